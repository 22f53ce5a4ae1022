//! The Container Runtime Interface, as far as it is used: who a container is to Kubernetes.
//!
//! The messages are those of `runtime.v1`, k8s.io/cri-api/pkg/apis/runtime/v1/api.proto, with only the fields that are read
//! here; what else a runtime sends is skipped.

use prost::Message;

use super::pod::Pod;
use crate::grpc::Connection;
use crate::oci::sockets::Failure;

const LIST_CONTAINERS: &str = "/runtime.v1.RuntimeService/ListContainers";
const LIST_SANDBOXES: &str = "/runtime.v1.RuntimeService/ListPodSandbox";

/// A request for what has this id.
#[derive(Clone, PartialEq, Message)]
struct ListRequest {
    #[prost(message, optional, tag = "1")]
    filter: Option<Filter>,
}

#[derive(Clone, PartialEq, Message)]
struct Filter {
    #[prost(string, tag = "1")]
    id: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Containers {
    #[prost(message, repeated, tag = "1")]
    pub(crate) containers: Vec<Container>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Container {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(string, tag = "2")]
    pod_sandbox_id: String,
    #[prost(message, optional, tag = "3")]
    metadata: Option<ContainerMetadata>,
    #[prost(message, optional, tag = "4")]
    image: Option<ImageSpec>,
}

#[derive(Clone, PartialEq, Message)]
struct ContainerMetadata {
    #[prost(string, tag = "1")]
    name: String,
}

#[derive(Clone, PartialEq, Message)]
struct ImageSpec {
    #[prost(string, tag = "1")]
    image: String,
    /// As the pod's specification has it, since Kubernetes 1.28.
    #[prost(string, tag = "18")]
    user_specified_image: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Sandboxes {
    #[prost(message, repeated, tag = "1")]
    pub(crate) items: Vec<Sandbox>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Sandbox {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(message, optional, tag = "2")]
    metadata: Option<SandboxMetadata>,
}

#[derive(Clone, PartialEq, Message)]
struct SandboxMetadata {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "3")]
    namespace: String,
}

/// Who container `id` is, and what its image is called where the runtime knows more than a digest.
///
/// # Errors
/// [`Failure::Refused`] where the runtime knows neither a container nor a sandbox of that id, too.
pub(super) async fn pod(mut connection: Connection, id: &str) -> Result<(Pod, Option<String>), Failure> {
    let request = |id: &str| ListRequest { filter: Some(Filter { id: id.to_owned() }) };
    let found: Containers = connection.call(LIST_CONTAINERS, None, request(id)).await?;
    // A runtime also takes the beginning of an id.
    let container = found.containers.into_iter().find(|container| container.id == id);
    let of = container.as_ref().map_or(id, |container| &container.pod_sandbox_id);
    let found: Sandboxes = connection.call(LIST_SANDBOXES, None, request(of)).await?;
    let sandbox = found.items.into_iter().find(|sandbox| sandbox.id == of);
    let unknown = || Failure::Refused(format!("that there is no container or sandbox {id}"));
    named(container, sandbox.ok_or_else(unknown)?).ok_or_else(unknown)
}

pub(crate) fn named(container: Option<Container>, sandbox: Sandbox) -> Option<(Pod, Option<String>)> {
    let SandboxMetadata { name, namespace } = sandbox.metadata?;
    let (container, image) = match container {
        Some(Container { metadata, image, .. }) => (Some(metadata?.name), image.and_then(image_name)),
        None => (None, None),
    };
    Some((Pod::new(namespace, name, container)?, image))
}

/// A kubelet asks for an image by its digest once it has pulled it.
fn image_name(image: ImageSpec) -> Option<String> {
    let ImageSpec { image, user_specified_image } = image;
    [user_specified_image, image].into_iter().find(|image| !image.is_empty() && !image.starts_with("sha256:"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn images_by_name() {
        let name = |image: &str, specified: &str| {
            image_name(ImageSpec { image: image.to_owned(), user_specified_image: specified.to_owned() })
        };
        assert_eq!(name("sha256:12", "nginx:1").as_deref(), Some("nginx:1"));
        assert_eq!(name("localhost/bb:1", "").as_deref(), Some("localhost/bb:1"));
        assert_eq!(name("sha256:12", ""), None);
    }

    #[test]
    fn answers_that_lack_something() {
        let sandbox = |name: &str, namespace: &str| {
            let metadata = SandboxMetadata { name: name.to_owned(), namespace: namespace.to_owned() };
            Sandbox { id: "s".to_owned(), metadata: Some(metadata) }
        };
        let container = |name: &str| Container {
            metadata: Some(ContainerMetadata { name: name.to_owned() }),
            ..Container::default()
        };
        let (pod, _) = named(Some(container("nginx")), sandbox("web-0", "shop")).unwrap();
        assert_eq!(pod.identity(None).name, "web-0/nginx");
        assert!(named(None, sandbox("web-0", "shop")).unwrap().0.container.is_none());
        for (container, sandbox) in [
            (Some(container("")), sandbox("web-0", "shop")),
            (Some(Container::default()), sandbox("web-0", "shop")),
            (None, sandbox("", "shop")),
            (None, sandbox("web-0", "")),
            (None, Sandbox::default()),
        ] {
            assert_eq!(named(container, sandbox), None);
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let container = Container::decode(&bytes[..]).ok();
            if let Ok(sandbox) = Sandbox::decode(&bytes[..]) {
                let _ = named(container, sandbox);
            }
            let _ = Containers::decode(&bytes[..]);
            let _ = Sandboxes::decode(&bytes[..]);
        }
    }
}
