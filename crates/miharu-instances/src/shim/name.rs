//! What containers and their cgroups are called.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::oci::is_id;

/// The longest id or namespace of containerd, `containerd/identifiers`.
const MAX_IDENTIFIER: usize = 76;

/// The id in the name of a container's own cgroup: `ID` (cgroupfs), `RUNTIME-ID.scope` (systemd: `docker`,
/// `cri-containerd`, `crio`, `nerdctl`), `crio-ID` (CRI-O on cgroupfs). The monitors' cgroups (`crio-conmon-ID.scope`) and
/// podman's are not meant.
pub(crate) fn container_id(name: &OsStr) -> Option<&str> {
    let name = std::str::from_utf8(name.as_bytes()).ok()?;
    let (prefix, id) = match name.strip_suffix(".scope") {
        Some(unit) => unit.rsplit_once('-')?,
        None => name.rsplit_once('-').filter(|(prefix, _)| *prefix == "crio").unwrap_or(("-", name)),
    };
    let is_others = prefix.is_empty() || prefix.starts_with("libpod") || prefix.ends_with("conmon");
    (is_id(id.as_bytes()) && !is_others).then_some(id)
}

/// Whether a cgroup may be a container's own, by its name and its parent's. A pod of podman is called by an id, too, and its
/// containers are in it: claimed by anyone, it would not be looked into.
pub(crate) fn may_be_container(name: &OsStr, parent: &OsStr) -> bool {
    parent != "libpod_parent" && container_id(name).is_some()
}

/// Whether containerd would take this as an id or a namespace, `containerd/identifiers`: letters and digits, with single
/// `-`, `_` and `.` between them. So it is one component of a path, and neither `.` nor `..`.
pub(crate) fn is_identifier(text: &str) -> bool {
    let is_between = |b: u8| matches!(b, b'-' | b'_' | b'.');
    let ends = [text.bytes().next(), text.bytes().last()];
    text.len() <= MAX_IDENTIFIER
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || is_between(b))
        && ends.iter().all(|end| end.is_some_and(|b| b.is_ascii_alphanumeric()))
}

/// Whether a cgroup is one of a pod that a kubelet made: `/kubepods/…`, `/kubepods.slice/…`, also below a parent of its own
/// (`kubelet-kubepods.slice` of kind, `--cgroup-root`).
pub(crate) fn is_pod(path: &Path) -> bool {
    path.iter().any(|part| {
        let part = part.as_bytes();
        let part = part.strip_suffix(b".slice").unwrap_or(part);
        part == b"kubepods" || part.ends_with(b"-kubepods")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ID: &str = "f58f5aef7fdd2e59f29738e4ab05ba84d7acd067e06f4ebc20f45df8170504fd";

    #[test]
    fn a_pod_of_podman_is_no_container() {
        assert!(may_be_container(OsStr::new(ID), OsStr::new("docker")));
        assert!(!may_be_container(OsStr::new(ID), OsStr::new("libpod_parent")));
    }

    #[test]
    fn cgroups_of_containers_and_others() {
        for name in [
            "ID",
            "docker-ID.scope",
            "cri-containerd-ID.scope",
            "crio-ID.scope",
            "crio-ID",
            "nerdctl-ID.scope",
        ] {
            assert_eq!(container_id(OsStr::new(&name.replace("ID", ID))), Some(ID), "{name}");
        }
        for name in [
            "crio-conmon-ID.scope",
            "crio-conmon-ID",
            "libpod-ID.scope",
            "libpod-conmon-ID.scope",
            "libpod-ID",
            "docker-ID",
            "docker-ID.mount",
            "-ID.scope",
            "ID.scope",
            "IDa",
            "user@0.service",
            "",
        ] {
            assert_eq!(container_id(OsStr::new(&name.replace("ID", ID))), None, "{name}");
        }
        assert_eq!(container_id(OsStr::new(&ID.to_uppercase())), None);
        assert_eq!(container_id(OsStr::from_bytes(b"\xff-x.scope")), None);
    }

    #[test]
    fn identifiers_are_single_components() {
        for good in ["k8s.io", "moby", "a", "default", "a_b-c.d", ID] {
            assert!(is_identifier(good), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a.", "-a", "a b", "ä", &"a".repeat(77)] {
            assert!(!is_identifier(bad), "{bad}");
        }
    }

    #[test]
    fn pods_of_kubelets() {
        for pod in ["kubepods/burstable/podU/x", "kubepods.slice/x", "kubelet.slice/kubelet-kubepods.slice/x"]
        {
            assert!(is_pod(Path::new(pod)), "{pod}");
        }
        for other in ["docker/x", "kubepodsx/x", "system.slice/kubelet.service"] {
            assert!(!is_pod(Path::new(other)), "{other}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(name in proptest::collection::vec(any::<u8>(), 0..100), path in "[-/.a-f0-9x]{0,200}") {
            if let Some(id) = container_id(OsStr::from_bytes(&name)) {
                prop_assert!(is_id(id.as_bytes()));
            }
            is_identifier(&path);
            is_pod(Path::new(&path));
        }
    }
}
