//! The command line of a monitor: which container it runs.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use miharu_linux::process::arguments;

/// Where LXC keeps root's containers unless it is told otherwise.
const SYSTEM_PATH: &str = "/var/lib/lxc";

/// The short options of lxc-start and lxc-execute that take a value, getopt(3).
const WITH_VALUE: &[u8] = b"ncfLpsoPlgu";

/// The long ones.
const LONG_WITH_VALUE: &[&str] = &[
    "name",
    "console",
    "console-log",
    "rcfile",
    "pidfile",
    "define",
    "logfile",
    "logpriority",
    "lxcpath",
    "share-net",
    "share-ipc",
    "share-uts",
    "share-pid",
    "gid",
    "uid",
];

/// A container as its monitor speaks of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Container {
    /// LXCPATH: the directory that its own is in.
    pub(crate) path: PathBuf,
    /// LXC's name for it, which is that directory's.
    pub(crate) name: OsString,
}

/// Parses a monitor's command line; `None` where it is none. LXC's default path is root's alone, so a command line
/// without a path is taken only from the system's own monitors.
pub(crate) fn parse(command_line: &[u8], is_system: bool) -> Option<Container> {
    let mut arguments = arguments(command_line);
    let program = arguments.next()?;
    if let Some(title) = program.strip_prefix(b"[lxc monitor] ") {
        let blank = title.iter().rposition(|b| *b == b' ')?;
        return container(title.get(..blank)?, title.get(blank + 1..)?);
    }
    let program = Path::new(OsStr::from_bytes(program)).file_name()?;
    if program != "lxc-start" && program != "lxc-execute" {
        return None;
    }
    let given = options(arguments);
    let path = match given.path {
        Some(path) => path,
        None if is_system => SYSTEM_PATH.as_bytes(),
        None => return None,
    };
    container(path, given.name?)
}

/// A container of a monitor that makes sense: an absolute path, and a name that is one component.
fn container(path: &[u8], name: &[u8]) -> Option<Container> {
    let path = Path::new(OsStr::from_bytes(path));
    if !path.is_absolute() || matches!(name, b"" | b"." | b"..") || name.contains(&b'/') {
        return None;
    }
    // Without a slash at the end and the like, so that one directory is one project.
    Some(Container { path: path.components().collect(), name: OsString::from_vec(name.to_vec()) })
}

#[derive(Default)]
struct Options<'a> {
    name: Option<&'a [u8]>,
    path: Option<&'a [u8]>,
}

impl<'a> Options<'a> {
    fn take(&mut self, option: &[u8], value: Option<&'a [u8]>) {
        match option {
            b"n" | b"name" => self.name = value,
            b"P" | b"lxcpath" => self.path = value,
            _ => {}
        }
    }
}

/// The name and path among the arguments: `-n c1`, `-nc1`, `--name c1`, `--name=c1`, or the first word that is no
/// option.
fn options<'a>(mut arguments: impl Iterator<Item = &'a [u8]>) -> Options<'a> {
    let mut found = Options::default();
    let mut first_word = None;
    while let Some(argument) = arguments.next() {
        if argument == b"--" {
            break;
        }
        if let Some(long) = argument.strip_prefix(b"--") {
            let mut parts = long.splitn(2, |b| *b == b'=');
            let option = parts.next().unwrap_or_default();
            let has_value = LONG_WITH_VALUE.iter().any(|known| known.as_bytes() == option);
            let value = parts.next().or_else(|| if has_value { arguments.next() } else { None });
            found.take(option, value);
        } else if let Some(cluster) = argument.strip_prefix(b"-").filter(|rest| !rest.is_empty()) {
            let Some(at) = cluster.iter().position(|letter| WITH_VALUE.contains(letter)) else { continue };
            let attached = cluster.get(at + 1..).filter(|rest| !rest.is_empty());
            let value = attached.or_else(|| arguments.next());
            found.take(cluster.get(at..=at).unwrap_or_default(), value);
        } else {
            first_word = first_word.or(Some(argument));
            // What follows is the container's own command.
            if found.name.is_some() {
                break;
            }
        }
    }
    found.name = found.name.or(first_word);
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parsed(line: &str) -> Option<String> {
        let container = parse(line.replace('|', "\0").as_bytes(), true)?;
        Some(format!("{} {}", container.path.display(), container.name.to_string_lossy()))
    }

    #[test]
    fn the_title_of_a_monitor() {
        assert_eq!(parsed("[lxc monitor] /var/lib/lxc u1||").unwrap(), "/var/lib/lxc u1");
        assert_eq!(parsed("[lxc monitor] /a b/lxc/ foo_c1").unwrap(), "/a b/lxc foo_c1");
        for bad in
            ["[lxc monitor] /x", "[lxc monitor] x y", "[lxc monitor] /x ..", "[lxc monitor] /x a/b", "sh"]
        {
            assert_eq!(parsed(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_monitor_in_the_foreground() {
        for line in [
            "lxc-start|-F|-P|/p|-n|c1",
            "/usr/bin/lxc-start|-Fnc1|-P/p",
            "lxc-start|--name=c1|--lxcpath|/p|-F",
            "lxc-start|-o|log|-P|/p|c1|-F",
            "lxc-execute|-n|c1|-P|/p|--|sh|-n|c2",
            "lxc-execute|-P|/p|-n|c1|sh|-n|c2",
        ] {
            assert_eq!(parsed(line).as_deref(), Some("/p c1"), "{line}");
        }
        assert_eq!(parsed("lxc-start|-n|c1").unwrap(), "/var/lib/lxc c1");
        assert_eq!(parse(b"lxc-start\0-n\0c1\0", false), None, "a user's default path is not known");
        assert_eq!(parsed("lxc-attach|-n|c1|-P|/p"), None);
        assert_eq!(parsed("lxc-start|-P|/p"), None);
    }

    proptest! {
        #[test]
        fn nothing_panics(line in proptest::collection::vec(any::<u8>(), 0..80)) {
            let mut title = b"[lxc monitor] ".to_vec();
            title.extend(&line);
            let mut start = b"lxc-start\0".to_vec();
            start.extend(&line);
            for line in [line, title, start] {
                if let Some(container) = parse(&line, true) {
                    prop_assert!(container.path.is_absolute());
                }
            }
        }
    }
}
