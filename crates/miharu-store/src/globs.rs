//! Lists of patterns, the values of the server keys that leave something out: `*` stands for any text, `?` for any
//! character, `[a-z]` for one of these, `[!a-z]` for one of all others.

use glob::{Pattern, PatternError};
use miharu_api::instances::RUNTIMES;

/// The longest pattern, in bytes. The matcher calls itself once for each `*`.
const PATTERN_LIMIT: usize = 256;

/// Patterns, of which one has to match the whole of a name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Globs(Vec<Pattern>);

impl Globs {
    /// Reads patterns with commas between them.
    ///
    /// # Errors
    /// Which pattern is wrong, and why.
    pub fn parse(list: &str) -> Result<Self, String> {
        split(list).map(pattern).collect::<Result<_, _>>().map(Self)
    }

    /// Whether a pattern matches `name`.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        self.0.iter().any(|pattern| pattern.matches(name))
    }

    /// The patterns themselves.
    #[must_use]
    pub fn patterns(&self) -> &[Pattern] {
        &self.0
    }
}

/// Patterns of devices' names, by the kind of device that each is about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceGlobs {
    /// For block devices.
    pub disks: Globs,
    /// For network interfaces.
    pub interfaces: Globs,
    /// For file systems.
    pub filesystems: Globs,
}

impl DeviceGlobs {
    /// Reads patterns with commas between them. One that begins with `disk:`, `network:` or `filesystem:` is for devices of
    /// that kind, any other one for all three.
    ///
    /// # Errors
    /// Which pattern is wrong, and why.
    pub fn parse(list: &str) -> Result<Self, String> {
        let mut globs = Self::default();
        for entry in split(list) {
            let (kind, name) =
                entry.split_once(':').map_or((None, entry), |(kind, name)| (Some(kind), name.trim_start()));
            let Self { disks, interfaces, filesystems } = &mut globs;
            let of_kind: &mut [&mut Globs] = match kind {
                None => &mut [disks, interfaces, filesystems],
                Some("disk") => &mut [disks],
                Some("network") => &mut [interfaces],
                Some("filesystem") => &mut [filesystems],
                Some(other) => {
                    return Err(format!(
                        "'{entry}': there are no devices of the kind '{other}', only disk, network and filesystem"
                    ));
                }
            };
            let pattern = pattern(name)?;
            for globs in of_kind {
                globs.0.push(pattern.clone());
            }
        }
        Ok(globs)
    }
}

/// Patterns of instances, by what of an instance each is about. One that is about any of it matches.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InstanceGlobs {
    /// For names.
    pub names: Globs,
    /// For projects.
    pub projects: Globs,
    /// For runtimes.
    pub runtimes: Globs,
}

impl InstanceGlobs {
    /// Reads patterns with commas between them. One that begins with `project:` or `runtime:` is for these, one with
    /// `name:` or nothing before it for names.
    ///
    /// # Errors
    /// Which pattern is wrong, and why.
    pub fn parse(list: &str) -> Result<Self, String> {
        let mut globs = Self::default();
        for entry in split(list) {
            let (kind, text) =
                entry.split_once(':').map_or(("name", entry), |(kind, text)| (kind, text.trim_start()));
            let of_kind = match kind {
                "name" => &mut globs.names,
                "project" => &mut globs.projects,
                "runtime" => &mut globs.runtimes,
                other => {
                    return Err(format!(
                        "'{entry}': an instance has no '{other}' to choose it by, only name, project and runtime"
                    ));
                }
            };
            let pattern = pattern(text)?;
            // There are these and no others, so that a word with a slip in it would silently match nothing.
            if kind == "runtime" && !RUNTIMES.iter().any(|runtime| pattern.matches(runtime)) {
                return Err(format!("'{entry}': no runtime is called so, only {}", RUNTIMES.join(", ")));
            }
            of_kind.0.push(pattern);
        }
        Ok(globs)
    }
}

/// The list in the form in which it is kept.
pub(crate) fn tidy(list: &str) -> String {
    split(list).collect::<Vec<_>>().join(",")
}

/// The patterns of a list. A comma too many at its end says nothing.
pub(crate) fn split(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|pattern| !pattern.is_empty())
}

fn pattern(text: &str) -> Result<Pattern, String> {
    if text.is_empty() {
        return Err("a pattern is empty".to_owned());
    }
    if text.len() > PATTERN_LIMIT {
        let begin: String = text.chars().take(20).collect();
        return Err(format!("'{begin}…': a pattern has at most {PATTERN_LIMIT} bytes"));
    }
    Pattern::new(text).map_err(|PatternError { msg, .. }| {
        // The crate's own words are about paths.
        let why = if msg.contains("wildcard") {
            "one '*' stands for any text, also over slashes"
        } else {
            "a '[' has no ']', or nothing before it"
        };
        format!("'{text}': {why}")
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_pattern_matches_the_whole_name() {
        let globs = Globs::parse("veth*, lo,tap[0-9]?").unwrap();
        for name in ["veth", "veth12", "lo", "tap1x"] {
            assert!(globs.matches(name), "{name}");
        }
        for name in ["lo0", "xveth1", "tapx1", "tap1", "Lo", ""] {
            assert!(!globs.matches(name), "{name}");
        }
        assert!(Globs::parse("/run*").unwrap().matches("/run/user/0"), "a star goes over slashes");
        assert!(!Globs::default().matches(""));
        assert_eq!(Globs::parse(" , ").unwrap(), Globs::default());
    }

    #[test]
    fn an_error_says_which_pattern_and_why() {
        let error = |list: &str| Globs::parse(list).unwrap_err();
        assert_eq!(error("lo,ve[th"), "'ve[th': a '[' has no ']', or nothing before it");
        assert_eq!(error("[]"), "'[]': a '[' has no ']', or nothing before it");
        assert_eq!(error("a**,lo"), "'a**': one '*' stands for any text, also over slashes");
        assert_eq!(error("***"), "'***': one '*' stands for any text, also over slashes");
        assert_eq!(error(&"x".repeat(257)), "'xxxxxxxxxxxxxxxxxxxx…': a pattern has at most 256 bytes");
    }

    #[test]
    fn a_kind_limits_a_pattern_to_its_devices() {
        let globs = DeviceGlobs::parse("loop*, network:veth*,filesystem:/run*,filesystem:nas:*").unwrap();
        let kinds = [&globs.disks, &globs.interfaces, &globs.filesystems];
        assert_eq!(kinds.map(|globs| globs.matches("loop1")), [true; 3]);
        assert_eq!(kinds.map(|globs| globs.matches("veth1")), [false, true, false]);
        assert_eq!(kinds.map(|globs| globs.matches("/run/x")), [false, false, true]);
        assert_eq!(kinds.map(|globs| globs.matches("nas:/export")), [false, false, true]);
        let error = DeviceGlobs::parse("lo,netwrok:veth*").unwrap_err();
        assert_eq!(
            error,
            "'netwrok:veth*': there are no devices of the kind 'netwrok', only disk, network and filesystem"
        );
        assert_eq!(DeviceGlobs::parse("disk:").unwrap_err(), "a pattern is empty");
    }

    #[test]
    fn an_instance_is_chosen_by_name_project_or_runtime() {
        let globs =
            InstanceGlobs::parse("web*, project:docker/*,project:lxc:/srv/lxc,runtime:podman,name:a:b")
                .unwrap();
        assert_eq!(["web1", "a:b", "a"].map(|name| globs.names.matches(name)), [true, true, false]);
        assert_eq!(
            ["docker/shop", "docker", "lxc:/srv/lxc"].map(|name| globs.projects.matches(name)),
            [true, false, true]
        );
        assert_eq!(["podman", "web1"].map(|name| globs.runtimes.matches(name)), [true, false]);
        assert_eq!(
            InstanceGlobs::parse("u1,image:debian*").unwrap_err(),
            "'image:debian*': an instance has no 'image' to choose it by, only name, project and runtime"
        );
        assert_eq!(InstanceGlobs::parse("project:").unwrap_err(), "a pattern is empty");
        let error = InstanceGlobs::parse("runtime:lx*,runtime:dokcer").unwrap_err();
        assert!(error.starts_with("'runtime:dokcer': no runtime is called so, only incus, lxd, "), "{error}");
    }

    #[test]
    fn many_stars_are_no_hard_work() {
        let globs = Globs::parse(&"*a".repeat(128)).unwrap();
        assert!(!globs.matches(&format!("{}b", "a".repeat(4096))));
    }

    proptest! {
        #[test]
        fn a_list_that_is_taken_is_taken_again(list in "[a*?\\[\\]!:, /-]{0,40}") {
            if let Ok(globs) = DeviceGlobs::parse(&list) {
                prop_assert_eq!(DeviceGlobs::parse(&tidy(&list)), Ok(globs.clone()));
                let _ = globs.filesystems.matches("/a/a");
            }
            if let Ok(globs) = InstanceGlobs::parse(&list) {
                prop_assert_eq!(InstanceGlobs::parse(&tidy(&list)), Ok(globs));
            }
        }
    }
}
