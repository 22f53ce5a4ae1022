//! The command line of conmon, which watches over podman's and CRI-O's containers.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use miharu_linux::process::arguments;

/// The options that take a value, conmon(8), besides those that are wanted: a value may look like an option.
const WITH_VALUE: &[&str] = &[
    "--api-version",
    "-P",
    "--conmon-pidfile",
    "-p",
    "--container-pidfile",
    "-u",
    "--cuuid",
    "--exec-process-spec",
    "--exit-command",
    "--exit-command-arg",
    "--exit-delay",
    "--exit-dir",
    "--log-level",
    "-l",
    "--log-path",
    "--log-size-max",
    "--log-global-size-max",
    "--log-tag",
    "-0",
    "--persist-dir",
    "--replace-listen-pid",
    "--restore",
    "-r",
    "--runtime",
    "--runtime-arg",
    "--runtime-opt",
    "--sdnotify-socket",
    "--socket-dir-path",
    "-T",
    "--timeout",
    "--seccomp-notify-socket",
    "--seccomp-notify-plugins",
];

/// A container as its conmon speaks of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Conmon {
    /// The container's id.
    pub(crate) id: String,
    /// What it was called when it was started.
    pub(crate) name: Option<String>,
    /// The directory of `config.json`.
    pub(crate) bundle: Option<PathBuf>,
}

/// Parses a command line; `None` where it is no conmon's, or that of one that watches over `podman exec`.
pub(crate) fn parse(command_line: &[u8]) -> Option<Conmon> {
    let mut arguments = arguments(command_line);
    let program = Path::new(OsStr::from_bytes(arguments.next()?));
    if program.file_name()? != "conmon" {
        return None;
    }
    let (mut id, mut name, mut bundle) = (None, None, None);
    while let Some(argument) = arguments.next() {
        let (option, attached) = match argument.iter().position(|byte| *byte == b'=') {
            Some(at) if argument.starts_with(b"--") => (argument.get(..at)?, argument.get(at + 1..)),
            _ => (argument, None),
        };
        match option {
            b"-e" | b"--exec" => return None,
            b"-c" | b"--cid" => id = attached.or_else(|| arguments.next()),
            b"-n" | b"--name" => name = attached.or_else(|| arguments.next()),
            b"-b" | b"--bundle" => bundle = attached.or_else(|| arguments.next()),
            other if WITH_VALUE.iter().any(|known| known.as_bytes() == other) && attached.is_none() => {
                arguments.next();
            }
            _ => {}
        }
    }
    let text = |bytes: &[u8]| std::str::from_utf8(bytes).ok().map(str::to_owned);
    let bundle = bundle.map(|bundle| PathBuf::from(OsStr::from_bytes(bundle)));
    Some(Conmon {
        id: id.and_then(text)?,
        name: name.and_then(text),
        bundle: bundle.filter(|path| path.is_absolute()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parsed(line: &str) -> Option<Conmon> {
        parse(line.replace(' ', "\0").as_bytes())
    }

    #[test]
    fn podmans_command_line() {
        let line = "/usr/bin/conmon --api-version 1 -c 5f43 -u 5f43 -r /usr/bin/runc -b /s/overlay-containers/5f43/userdata -p \
            /r/pidfile -n one --exit-dir /t/exits --full-attach -l k8s-file:/s/ctr.log --log-level warning --runtime-arg \
            --log-format=json --exit-command /usr/bin/podman --exit-command-arg -e --exit-command-arg -n \
            --exit-command-arg container --exit-command-arg cleanup --exit-command-arg 5f43";
        let found = parsed(line).unwrap();
        assert_eq!((found.id.as_str(), found.name.as_deref()), ("5f43", Some("one")));
        assert_eq!(found.bundle.as_deref(), Some(Path::new("/s/overlay-containers/5f43/userdata")));
    }

    #[test]
    fn others() {
        assert_eq!(parsed("conmon --cid=a --name=b").unwrap().name.as_deref(), Some("b"));
        assert_eq!(parsed("conmon -c a -b relative").unwrap().bundle, None);
        for line in
            ["conmon -n one", "conmon -c", "conmon -c a -n b -e --exec-attach", "x/conmonx -c a", "sh", ""]
        {
            assert_eq!(parsed(line), None, "{line}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(line in proptest::collection::vec(any::<u8>(), 0..100)) {
            let mut conmon = b"conmon\0-c\0".to_vec();
            conmon.extend(&line);
            prop_assert!(parse(&conmon).is_none_or(|found| found.bundle.is_none_or(|path| path.is_absolute())));
        }
    }
}
