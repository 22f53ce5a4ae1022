//! Who a container of Docker is: asked at Docker's socket, else read in Docker's data root, which its bundle leads to.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use miharu_linux::Roots;

use super::record::{Image, PROJECT, Record};
use crate::Identity;
use crate::oci::files;
use crate::oci::names::{self, Renames, Unlearned};
use crate::oci::sockets::{Sockets, Unanswered};
use crate::shim;

/// Where Docker keeps a container's record, below its data root.
const CONTAINERS: &str = "containers";
const RECORD: &str = "config.v2.json";

/// How an image's id begins.
const DIGEST: &str = "sha256:";

/// A container of Docker whose record is wanted.
#[derive(Debug)]
pub(crate) struct Asked {
    roots: Roots,
    id: String,
    /// Where its bundle may be, as this process sees it.
    bundles: Vec<PathBuf>,
    /// The data root that has its record, once that was looked for and found.
    data_root: Option<PathBuf>,
}

impl Asked {
    pub(crate) fn new(roots: &Roots, id: &str, bundles: Vec<PathBuf>) -> Self {
        Self { roots: roots.clone(), id: id.to_owned(), bundles, data_root: None }
    }

    /// What Docker knows of the container. A Docker with another socket than the system's is told by its files, and so is one
    /// that does not answer.
    ///
    /// # Errors
    /// Where neither tells.
    pub(crate) fn record(&mut self, sockets: &mut Sockets) -> Result<Record, Unlearned> {
        // Looked for first, as a change of the file is how a new name shows, whoever told the old one.
        let kept = self.kept();
        let answer = sockets.get::<Record>(&self.socket(), &format!("/containers/{}/json", self.id));
        match (answer, kept) {
            (Ok(record), _) if record.is_of(&self.id) => Ok(record),
            (_, Some(record)) => Ok(record),
            (Ok(_), None) => Err(Unlearned("Docker answers with another container".to_owned())),
            (Err(unanswered), None) => Err(unlearned(&unanswered)),
        }
    }

    /// The labels of its image; none where the image is not known any more.
    fn labels_of_image(&self, record: &Record, sockets: &mut Sockets) -> BTreeMap<String, String> {
        let (image, driver) = record.image();
        let digest = image.strip_prefix(DIGEST).unwrap_or_default();
        if digest.is_empty() || !digest.bytes().all(|b| b.is_ascii_hexdigit()) {
            return BTreeMap::new();
        }
        let answer = sockets.get::<Image>(&self.socket(), &format!("/images/{image}/json")).ok();
        let kept = || {
            let driver = Some(Path::new(driver)).filter(|driver| driver.components().count() == 1)?;
            let images = self.data_root.as_ref()?.join("image").join(driver).join("imagedb/content/sha256");
            Image::parse(&files::read_systems(&images.join(digest)).ok()?)
        };
        answer.or_else(kept).unwrap_or_default().labels()
    }

    /// The record that Docker keeps.
    fn kept(&mut self) -> Option<Record> {
        if let Some(record) = self.data_root.as_ref().and_then(|root| read(root, &self.id)) {
            return Some(record);
        }
        let (root, record) = record_of(&self.roots, &self.bundles, &self.id)?;
        self.data_root = Some(root);
        Some(record)
    }

    fn socket(&self) -> PathBuf {
        self.roots.run.join("docker.sock")
    }

    /// The file that changes with the name.
    pub(crate) fn renames(&self) -> Renames {
        match &self.data_root {
            Some(root) => Renames::Change(place(root, &self.id)),
            None => Renames::Anybody,
        }
    }
}

/// A container of Docker whose name is wanted.
#[derive(Debug)]
pub(super) struct Question(pub(super) Asked);

impl names::Question for Question {
    fn ask(&mut self, sockets: &mut Sockets) -> Result<Identity, Unlearned> {
        let record = self.0.record(sockets)?;
        let labels =
            if record.has_project() { self.0.labels_of_image(&record, sockets) } else { BTreeMap::new() };
        record.identity(&labels).ok_or_else(|| Unlearned("Docker knows it without a name".to_owned()))
    }

    fn project(&self) -> String {
        PROJECT.to_owned()
    }

    fn renames(&self) -> Renames {
        self.0.renames()
    }
}

/// The data root of the Docker that a container is of, and the record there.
pub(crate) fn record_of(roots: &Roots, bundles: &[PathBuf], id: &str) -> Option<(PathBuf, Record)> {
    let config = shim::config(bundles).unwrap_or_default();
    let told = config.data_roots().filter_map(|root| roots.host_path(root));
    told.chain([roots.var_lib.join("docker")]).find_map(|root| {
        let record = read(&root, id)?;
        Some((root, record))
    })
}

fn read(data_root: &Path, id: &str) -> Option<Record> {
    let record = Record::parse(&files::read_systems(&place(data_root, id)).ok()?)?;
    record.is_of(id).then_some(record)
}

fn place(data_root: &Path, id: &str) -> PathBuf {
    data_root.join(CONTAINERS).join(id).join(RECORD)
}

fn unlearned(unanswered: &Unanswered) -> Unlearned {
    Unlearned(format!("{unanswered}, and Docker's own file of it was not found"))
}
