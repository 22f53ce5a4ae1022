//! A container's bundle: the directory with its `config.json`, the OCI runtime specification of how it was started.
//!
//! containerd keeps the bundles of running containers in `STATE/io.containerd.runtime.v2.task/NAMESPACE/ID`, for root
//! alone. What stands there is what the container's own runtime went by, whatever its daemon does now.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// What is used of a `config.json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Config {
    /// What daemons note of a container.
    #[serde(default)]
    pub(crate) annotations: BTreeMap<String, String>,
    #[serde(default)]
    root: Root,
    #[serde(default)]
    linux: Linux,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
struct Root {
    #[serde(default)]
    path: PathBuf,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Linux {
    #[serde(default)]
    cgroups_path: String,
}

impl Config {
    /// Parses a `config.json`; `None` where it is none.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        serde_json::from_slice(text).ok()
    }

    /// The container's cgroup as a part of its init's path in a hierarchy, as what runs inside may have made others below:
    /// either the path that was asked for (cgroupfs), or the first component called like the scope that
    /// `SLICE:PREFIX:NAME` stands for (systemd), or, where nothing was asked for, like the container. Units that others
    /// may share (a slice, a service) are not taken.
    pub(crate) fn cgroup(&self, id: &str, path: &Path) -> Option<PathBuf> {
        let asked = &self.linux.cgroups_path;
        let of_unit = asked.split_once(':').and_then(|(_, unit)| unit.split_once(':'));
        let name = match of_unit {
            Some(("", name)) => format!("{name}.scope"),
            Some((prefix, name)) => format!("{prefix}-{name}.scope"),
            None => asked.rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or(id).to_owned(),
        };
        if [".slice", ".service"].iter().any(|shared| name.ends_with(shared)) {
            return None;
        }
        let absolute = asked.strip_prefix('/').map(Path::new).filter(|asked| asked.parent().is_some());
        if let Some(asked) = absolute.filter(|asked| path.starts_with(asked)) {
            return Some(asked.components().collect());
        }
        let mut own = PathBuf::new();
        for part in path {
            own.push(part);
            if part == name.as_str() {
                return Some(own);
            }
        }
        None
    }

    /// Directories that may be the data root of the Docker that started the container, the nearest first: Docker keeps a
    /// container's root file system in its data root, `overlay2/LAYER/merged` or `rootfs/overlayfs/ID` and the like.
    pub(crate) fn data_roots(&self) -> impl Iterator<Item = &Path> {
        let above = self.root.path.ancestors().skip(2).take(MAX_DEPTH);
        above.filter(|path| path.is_absolute() && path.parent().is_some())
    }
}

/// How deep in a data root a container's root file system can be, by one more than any way that Docker keeps it in.
const MAX_DEPTH: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_bundle_of_docker() {
        let text = br#"{"ociVersion": "1.0.2-dev", "root": {"path": "/d/overlay2/4503/merged"}, "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"}], "hooks": {}, "linux": {"cgroupsPath": "/docker/f58f"}}"#;
        let config = Config::parse(text).unwrap();
        assert_eq!(
            config.cgroup("f58f", Path::new("docker/f58f")).as_deref(),
            Some(Path::new("docker/f58f"))
        );
        assert_eq!(config.data_roots().collect::<Vec<_>>(), ["/d/overlay2", "/d"].map(Path::new));
    }

    #[test]
    fn cgroups_of_both_managers() {
        let cgroup = |asked: &str, path: &str| {
            let config = serde_json::json!({"linux": {"cgroupsPath": asked}});
            let config = Config::parse(config.to_string().as_bytes()).unwrap();
            config.cgroup("ab", Path::new(path)).map(|path| path.display().to_string())
        };
        assert_eq!(cgroup("/default/ab", "default/ab/init.scope").as_deref(), Some("default/ab"));
        assert_eq!(cgroup("/ab/ab", "ab/ab").as_deref(), Some("ab/ab"));
        assert_eq!(cgroup("/default/ab", "x/default/ab").as_deref(), Some("x/default/ab"));
        assert_eq!(cgroup("/own", "own/y").as_deref(), Some("own"));
        assert_eq!(cgroup("", "x/ab").as_deref(), Some("x/ab"));
        let unit = "system.slice:nerdctl:ab";
        assert_eq!(
            cgroup(unit, "system.slice/nerdctl-ab.scope/x").as_deref(),
            Some("system.slice/nerdctl-ab.scope")
        );
        assert_eq!(
            cgroup("system.slice::ab", "system.slice/ab.scope").as_deref(),
            Some("system.slice/ab.scope")
        );
        for (asked, path) in [
            ("/", ""),
            ("/system.slice", "system.slice"),
            ("/default/ab", "default/cd"),
            ("/a/../b", "a"),
            (unit, "ab"),
        ] {
            assert_eq!(cgroup(asked, path), None, "{asked}");
        }
    }

    #[test]
    fn annotations_and_nothing_else() {
        let config = Config::parse(br#"{"annotations": {"nerdctl/name": "web"}}"#).unwrap();
        assert_eq!(config.annotations["nerdctl/name"], "web");
        assert!(config.data_roots().next().is_none());
        for bad in [&b""[..], b"1", b"{\"annotations\": []}", b"{\"root\": 1}", b"\xff"] {
            assert_eq!(Config::parse(bad), None);
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..80), path in "[:/.a-c]{0,30}") {
            let _ = Config::parse(&bytes);
            let value = serde_json::json!({
                "linux": {"cgroupsPath": path}, "root": {"path": path},
            });
            let config = Config::parse(value.to_string().as_bytes()).unwrap();
            let own = config.cgroup("a", Path::new("a/b/c"));
            prop_assert!(own.is_none_or(|own| Path::new("a/b/c").starts_with(&own) && own != Path::new("")));
            prop_assert!(config.data_roots().all(Path::is_absolute));
        }
    }
}
