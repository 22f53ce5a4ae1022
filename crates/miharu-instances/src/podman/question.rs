//! What a container of podman's is called: asked of podman's service where that listens, else of its files.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::state::{self, LISTS, Record, Whose};
use crate::docker::record::Image;
use crate::oci::names::{Identity, Question, Renames, Unlearned};
use crate::oci::sockets::{Sockets, Unanswered};
use crate::oci::{is_name, short};

/// The labels by which Compose's tools mark the containers of a project.
const COMPOSE: [&str; 2] = ["com.docker.compose.project", "io.podman.compose.project"];

/// One container.
#[derive(Debug)]
pub(super) struct Podmans {
    pub(super) id: String,
    /// `podman`, or `podman@USER`.
    pub(super) project: String,
    /// The name under which it was started.
    pub(super) started_as: Option<String>,
    /// The directory of all containers in the storage, `…/overlay-containers`, as the host's paths go.
    pub(super) containers: Option<PathBuf>,
    pub(super) whose: Whose,
    /// The service's socket, as this process sees it. A user's is never asked.
    pub(super) socket: Option<PathBuf>,
    /// What was answered last.
    pub(super) known: Option<Identity>,
    /// Whether that is a name without what only the service and the database tell.
    pub(super) is_partial: bool,
    /// The file that changes when it is renamed.
    pub(super) watched: Option<Renames>,
}

impl Question for Podmans {
    fn ask(&mut self, sockets: &mut Sockets) -> Result<Identity, Unlearned> {
        let listed = self.listed().map(|(name, list)| {
            self.watched = self.whose.change(&list);
            name
        });
        // The list changes with every container that comes and goes, and a name in it seldom.
        if let (Some(known), Some(listed)) = (&self.known, &listed)
            && known.name == *listed
            && !self.is_partial
        {
            return Ok(known.clone());
        }
        let mut problems = Vec::new();
        let mut found = None;
        if let Some(socket) = &self.socket {
            match of_service(sockets, socket, &self.id) {
                Ok(answer) => found = Some(answer),
                // Most hosts have no service.
                Err(Unanswered::Absent(_)) => {}
                Err(error) => problems.push(error.to_string()),
            }
        }
        if let (None, Some(root)) = (&found, self.containers.as_deref().and_then(Path::parent)) {
            match state::look_up(&self.whose, root, &self.id) {
                Ok((answer, database)) => {
                    // One whose root file system is no image's is in no list.
                    if listed.is_none() {
                        self.watched = self.whose.change(&database);
                    }
                    found = Some(answer);
                }
                Err(problem) => problems.push(problem),
            }
        }
        self.is_partial = found.is_none();
        let (record, pod) = match found {
            // podman writes a new name into one after the other, and it is the list that is watched.
            Some((record, pod)) => (Record { name: listed.unwrap_or(record.name), ..record }, pod),
            // A name without a pod is better than none.
            None => {
                let name = listed.or_else(|| self.started_as.clone());
                let name = name.ok_or_else(|| Unlearned(problems.join("; ")))?;
                (Record { name, ..Record::default() }, None)
            }
        };
        let is_in_project = pod.is_none() && compose(record.labels.as_ref(), &BTreeMap::new()).is_some();
        let of_image = if is_in_project { self.labels_of_image(&record, sockets) } else { BTreeMap::new() };
        let identity = self.identity(record, pod, &of_image)?;
        self.known = Some(identity.clone());
        Ok(identity)
    }

    fn project(&self) -> String {
        self.project.clone()
    }

    fn renames(&self) -> Renames {
        if self.is_partial {
            return Renames::Anybody;
        }
        self.watched.clone().unwrap_or(Renames::Never)
    }

    fn place(&self) -> Option<&Path> {
        self.containers.as_deref()
    }
}

impl Podmans {
    /// The name in the storage's lists, and the list.
    fn listed(&self) -> Option<(String, PathBuf)> {
        let containers = self.containers.as_ref()?;
        LISTS.iter().find_map(|list| {
            let list = containers.join(list);
            Some((state::names(&self.whose, &list).ok()?.remove(&self.id)?, list))
        })
    }

    /// The labels of its image; none where the image is not known any more.
    fn labels_of_image(&self, record: &Record, sockets: &mut Sockets) -> BTreeMap<String, String> {
        let Some(id) = record.image_id.as_deref().filter(|id| crate::oci::is_id(id.as_bytes())) else {
            return BTreeMap::new();
        };
        let kept =
            self.containers.as_deref().and_then(|containers| state::image(&self.whose, containers, id));
        // It may be in a storage besides, which only podman knows.
        let told = || sockets.get(self.socket.as_deref()?, &format!("/v4.0.0/libpod/images/{id}/json")).ok();
        kept.or_else(told).map(Image::labels).unwrap_or_default()
    }

    /// `of_image` are the labels that its image brought along, which podman mixes with its own. They do not make it one of a
    /// Compose project: otherwise who makes an image could choose the project.
    fn identity(
        &self,
        record: Record,
        pod: Option<String>,
        of_image: &BTreeMap<String, String>,
    ) -> Result<Identity, Unlearned> {
        let Record { name, labels, is_infra, image, .. } = record;
        let unexpected =
            |what: &str| Unlearned(format!("{} has a {what} that podman does not give", short(&self.id)));
        if !is_name(&name) {
            return Err(unexpected("name"));
        }
        let project = match pod {
            Some(pod) if is_name(&pod) => format!("{}/{pod}", self.project),
            Some(_) => return Err(unexpected("pod's name")),
            None => match compose(labels.as_ref(), of_image) {
                Some(project) => format!("{}/{project}", self.project),
                None => self.project.clone(),
            },
        };
        Ok(Identity {
            project,
            name,
            image: image.filter(|image| crate::oci::is_image(image)),
            is_sandbox: is_infra,
        })
    }
}

/// The Compose project that a container is of, by its labels and those of its image.
fn compose<'l>(
    labels: Option<&'l HashMap<String, String>>,
    of_image: &BTreeMap<String, String>,
) -> Option<&'l str> {
    let labels = labels?;
    let own = |label: &&str| labels.get(*label).filter(|project| of_image.get(*label) != Some(*project));
    COMPOSE.iter().find_map(own).map(String::as_str).filter(|project| is_name(project))
}

/// `GET /libpod/containers/ID/json`, as far as it is used.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Inspected {
    name: String,
    image: Option<String>,
    image_name: Option<String>,
    pod: Option<String>,
    is_infra: bool,
    config: Config,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Config {
    labels: Option<HashMap<String, String>>,
}

/// `GET /libpod/pods/ID/json`, as far as it is used.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Pod {
    name: String,
}

/// What podman's service tells of a container, and the name of its pod. Any version of podman from 3.0 on answers for this
/// version of its API.
fn of_service(
    sockets: &mut Sockets,
    socket: &Path,
    id: &str,
) -> Result<(Record, Option<String>), Unanswered> {
    let found: Inspected = sockets.get(socket, &format!("/v4.0.0/libpod/containers/{id}/json"))?;
    let pod = match found.pod.as_deref().filter(|pod| crate::oci::is_id(pod.as_bytes())) {
        Some(pod) => Some(sockets.get::<Pod>(socket, &format!("/v4.0.0/libpod/pods/{pod}/json"))?.name),
        None => None,
    };
    Ok((found.into(), pod))
}

impl From<Inspected> for Record {
    fn from(found: Inspected) -> Self {
        Self {
            name: found.name,
            pod: found.pod,
            labels: found.config.labels,
            is_infra: found.is_infra,
            image_id: found.image,
            image: found.image_name,
        }
    }
}

/// Who a container is by what podman's service tells of it, its pod and its image; for `miharu-fuzz`.
pub(crate) fn told(container: &[u8], pod: &[u8], of_image: &BTreeMap<String, String>) -> Option<Identity> {
    let question = Podmans {
        id: "0".repeat(64),
        project: "podman".to_owned(),
        started_as: None,
        containers: None,
        whose: Whose::System(miharu_linux::Roots::default()),
        socket: None,
        known: None,
        is_partial: false,
        watched: None,
    };
    let pod = serde_json::from_slice::<Pod>(pod).ok().map(|pod| pod.name);
    let record = serde_json::from_slice::<Inspected>(container).ok()?.into();
    question.identity(record, pod, of_image).ok()
}
