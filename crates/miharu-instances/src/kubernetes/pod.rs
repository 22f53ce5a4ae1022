//! What a container is called in Kubernetes, told by the names and notes that its runtime gives it.

use std::collections::BTreeMap;

use crate::Identity;
use crate::oci::{is_image, is_name};

/// What a kubelet calls the container that only holds a pod's namespaces, in names that are made of parts.
const SANDBOX: &str = "POD";

/// Where containerd and CRI-O note who a container is, in the annotations of its `config.json`: `containerd/pkg/cri/annotations`
/// and `cri-o/pkg/annotations`. CRI-O notes the name that is made of parts.
const NAMESPACE: &str = "io.kubernetes.cri.sandbox-namespace";
const POD: &str = "io.kubernetes.cri.sandbox-name";
const CONTAINER: &str = "io.kubernetes.cri.container-name";
const TYPE: &str = "io.kubernetes.cri.container-type";
const IMAGE: &str = "io.kubernetes.cri.image-name";
const CRIO_NAME: &str = "io.kubernetes.cri-o.ContainerName";
const CRIO_IMAGE: &str = "io.kubernetes.cri-o.ImageName";

/// A container of a pod, or what holds the pod's namespaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pod {
    /// The namespace of the pod.
    pub(crate) namespace: String,
    /// The name of the pod.
    pub(crate) name: String,
    /// The container's name in the pod; `None` of the sandbox.
    pub(crate) container: Option<String>,
}

impl Pod {
    /// Takes a name apart that dockershim, cri-dockerd or CRI-O made: `k8s_CONTAINER_POD_NAMESPACE_UID_ATTEMPT`, maybe with
    /// more behind it. None of the parts can hold an underscore.
    pub(crate) fn of_container_name(name: &str) -> Option<Self> {
        let mut parts = name.split('_');
        let is_ours = parts.next()? == "k8s";
        let container = parts.next()?;
        let (pod, namespace) = (parts.next()?, parts.next()?);
        let (_uid, _attempt) = (parts.next()?, parts.next()?);
        let container = (container != SANDBOX).then(|| container.to_owned());
        if is_ours { Self::new(namespace.to_owned(), pod.to_owned(), container) } else { None }
    }

    /// By the annotations of its bundle.
    pub(crate) fn of_annotations(annotations: &BTreeMap<String, String>) -> Option<Self> {
        let get = |key: &str| annotations.get(key).filter(|value| !value.is_empty()).cloned();
        let container = get(CONTAINER);
        if container.is_none() && get(TYPE).is_none_or(|kind| kind != "sandbox") {
            return Self::of_container_name(annotations.get(CRIO_NAME)?);
        }
        Self::new(get(NAMESPACE)?, get(POD)?, container)
    }

    /// One whose names are such as Kubernetes allows, or at least no others than a path or a label could take.
    pub(super) fn new(namespace: String, name: String, container: Option<String>) -> Option<Self> {
        let all = [Some(&namespace), Some(&name), container.as_ref()];
        let is_allowed = all.into_iter().flatten().all(|name| is_name(name));
        is_allowed.then_some(Self { namespace, name, container })
    }

    /// What the container is called here.
    pub(crate) fn identity(&self, image: Option<String>) -> Identity {
        let Self { namespace, name, container } = self;
        Identity {
            project: format!("{PREFIX}/{namespace}"),
            name: format!("{name}/{}", container.as_ref().unwrap_or(name)),
            image: image.filter(|image| container.is_some() && is_image(image)),
            is_sandbox: container.is_none(),
        }
    }
}

/// What the projects of Kubernetes' namespaces begin with.
pub(crate) const PREFIX: &str = "k8s";

/// The image of a container, by the annotations of its bundle.
pub(crate) fn image(annotations: &BTreeMap<String, String>) -> Option<String> {
    let image = annotations.get(IMAGE).or_else(|| annotations.get(CRIO_IMAGE));
    image.filter(|image| !image.is_empty()).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn line(pod: Option<Pod>) -> String {
        let Some(Identity { project, name, is_sandbox, .. }) = pod.map(|pod| pod.identity(None)) else {
            return "?".to_owned();
        };
        format!("{project} {name} {is_sandbox}")
    }

    #[test]
    fn names_that_are_made_of_parts() {
        let named = |name: &str| line(Pod::of_container_name(name));
        assert_eq!(named("k8s_nginx_web-0_shop_1-2-3_0"), "k8s/shop web-0/nginx false");
        assert_eq!(named("k8s_POD_web-0_shop_1-2-3_0"), "k8s/shop web-0/web-0 true");
        // dockershim put a number behind a name that was taken.
        assert_eq!(named("k8s_nginx_web-0_shop_1-2-3_0_a1b2c3"), "k8s/shop web-0/nginx false");
        for other in [
            "web",
            "k8s_nginx_web-0_shop_1",
            "k9s_a_b_c_d_0",
            "k8s__b_c_d_0",
            "k8s_a__c_d_0",
            "k8s_a_b/c_c_d_0",
            "",
        ] {
            assert_eq!(named(other), "?", "{other}");
        }
    }

    fn annotated(pairs: &[(&str, &str)]) -> String {
        let all = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        format!("{} {}", line(Pod::of_annotations(&all)), image(&all).unwrap_or_default())
    }

    #[test]
    fn annotations_of_containerd() {
        let of_both = [(POD, "web-0"), (NAMESPACE, "shop"), ("io.kubernetes.cri.sandbox-uid", "1-2")];
        let container =
            [&of_both[..], &[(TYPE, "container"), (CONTAINER, "nginx"), (IMAGE, "localhost/bb:1")]].concat();
        assert_eq!(annotated(&container), "k8s/shop web-0/nginx false localhost/bb:1");
        let sandbox = [&of_both[..], &[(TYPE, "sandbox")]].concat();
        assert_eq!(annotated(&sandbox), "k8s/shop web-0/web-0 true ");
        assert_eq!(annotated(&of_both), "? ", "it may be either");
        assert_eq!(annotated(&[(TYPE, "sandbox"), (POD, "web-0")]), "? ");
    }

    #[test]
    fn annotations_of_crio() {
        let name = (CRIO_NAME, "k8s_nginx_web-0_shop_1-2_0");
        assert_eq!(annotated(&[name, (CRIO_IMAGE, "quay.io/x:1")]), "k8s/shop web-0/nginx false quay.io/x:1");
        assert_eq!(annotated(&[(CRIO_NAME, "k8s_POD_web-0_shop_1-2_0")]), "k8s/shop web-0/web-0 true ");
    }

    proptest! {
        #[test]
        fn nothing_panics(name in ".{0,40}", parts in "k8s(_[a-z]{0,2}){0,7}") {
            for name in [name, parts] {
                if let Some(pod) = Pod::of_container_name(&name) {
                    let identity = pod.identity(None);
                    prop_assert!(identity.project.starts_with("k8s/") && identity.project.len() > 4);
                    prop_assert!(!identity.name.starts_with('/') && !identity.name.ends_with('/'));
                }
                let _ = Pod::of_annotations(&[(CRIO_NAME.to_owned(), name)].into());
            }
        }
    }
}
