//! Who a container is to containerd, which knows it by an id of the user's choice; nerdctl gives it a name besides.

use std::collections::BTreeMap;
use std::path::PathBuf;

use prost::Message;

use super::PREFIX;
use crate::Identity;
use crate::grpc::Connection;
use crate::oci::names::{self, Renames, Unlearned};
use crate::oci::sockets::{Failure, Sockets};
use crate::oci::{is_id, is_image, is_name};
use crate::shim;

/// Where nerdctl notes a container's name, among the labels and the annotations.
const NERDCTL_NAME: &str = "nerdctl/name";

/// containerd's own API, api/services/containers/v1/containers.proto, with only what is used.
const GET: &str = "/containerd.services.containers.v1.Containers/Get";

#[derive(Clone, PartialEq, Message)]
struct GetRequest {
    #[prost(string, tag = "1")]
    id: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct GetResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) container: Option<Container>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Container {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(btree_map = "string, string", tag = "2")]
    pub(crate) labels: BTreeMap<String, String>,
    #[prost(string, tag = "3")]
    pub(crate) image: String,
}

/// A container whose name is wanted.
#[derive(Debug)]
pub(crate) struct Question {
    namespace: String,
    id: String,
    socket: Option<PathBuf>,
    bundles: Vec<PathBuf>,
    /// Whether nerdctl gave it a name, which it can change.
    is_nerdctls: bool,
}

impl Question {
    /// About container `id` of a namespace, whose containerd listens at `socket`.
    pub(crate) fn new(namespace: String, id: String, socket: Option<PathBuf>, bundles: Vec<PathBuf>) -> Self {
        Self { namespace, id, socket, bundles, is_nerdctls: false }
    }

    pub(crate) fn identity(&self, name: Option<&str>, image: Option<String>) -> Identity {
        let name = name.filter(|name| is_name(name)).unwrap_or(&self.id);
        Identity {
            project: self.project_name(),
            name: name.to_owned(),
            image: image.filter(|image| is_image(image)),
            is_sandbox: false,
        }
    }

    /// The name that nerdctl notes, among labels or annotations. nerdctl makes ids of its own; where somebody chose the id,
    /// the label is one that the image brought along, and who makes an image gives no names.
    pub(crate) fn nerdctls<'n>(&self, noted: &'n BTreeMap<String, String>) -> Option<&'n str> {
        noted.get(NERDCTL_NAME).map(String::as_str).filter(|_| is_id(self.id.as_bytes()))
    }

    fn project_name(&self) -> String {
        format!("{PREFIX}/{}", self.namespace)
    }
}

impl names::Question for Question {
    fn ask(&mut self, sockets: &mut Sockets) -> Result<Identity, Unlearned> {
        let (namespace, id) = (self.namespace.as_str(), self.id.as_str());
        let answer = self.socket.as_ref().map(|socket| {
            sockets.ask(socket, |stream| async {
                container(Connection::over(stream).await?, namespace, id).await
            })
        });
        if let Some(Ok(Container { labels, image, .. })) = answer {
            let name = self.nerdctls(&labels);
            self.is_nerdctls = name.is_some();
            return Ok(self.identity(name, Some(image)));
        }
        let config = shim::config(&self.bundles).unwrap_or_default();
        let name = self.nerdctls(&config.annotations);
        self.is_nerdctls = name.is_some();
        match answer {
            // An id that nobody chose is no name.
            Some(Err(unanswered)) if name.is_none() && is_id(self.id.as_bytes()) => {
                Err(Unlearned(format!("{unanswered}, and no name is noted in its bundle")))
            }
            _ => Ok(self.identity(name, None)),
        }
    }

    fn project(&self) -> String {
        self.project_name()
    }

    fn renames(&self) -> Renames {
        if self.is_nerdctls { Renames::Anybody } else { Renames::Never }
    }
}

async fn container(mut connection: Connection, namespace: &str, id: &str) -> Result<Container, Failure> {
    let request = GetRequest { id: id.to_owned() };
    let GetResponse { container } = connection.call(GET, Some(namespace), request).await?;
    let is_asked = |container: &Container| container.id == id;
    container.filter(is_asked).ok_or_else(|| Failure::Refused("with another container".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..80), name in ".{0,20}") {
            let _ = GetResponse::decode(&bytes[..]);
            let question = Question::new("default".to_owned(), "k1".to_owned(), None, Vec::new());
            let identity = question.identity(Some(&name), Some(name.clone()));
            prop_assert!(is_name(&identity.name) && identity.image.is_none_or(|image| is_image(&image)));
        }
    }
}
