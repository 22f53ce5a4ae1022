//! The command line of a shim, the process that containerd keeps beside a container, or beside all those of a pod.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use miharu_linux::process::arguments;

use super::name::is_identifier;

/// How every shim's program is called: `containerd-shim-runc-v2`, `containerd-shim-kata-v2` and so on. It is also all that
/// the kernel keeps of its name.
pub(crate) const PROGRAM: &str = "containerd-shim";

/// The options of a shim that take no value, `containerd/runtime/v2/shim`.
const WITHOUT_VALUE: &[&[u8]] = &[b"debug", b"v", b"info", b"version", b"systemd-cgroup", b"criu"];

/// What a shim says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Command {
    /// The namespace of containerd that its containers are in: `moby` is Docker's, `k8s.io` Kubernetes'.
    pub(crate) namespace: String,
    /// The first of its containers, a pod's sandbox where it has several.
    pub(crate) id: Option<String>,
    /// The socket of the containerd that started it.
    pub(crate) address: Option<PathBuf>,
}

/// Parses a shim's command line; `None` where it is none.
pub(crate) fn parse(command_line: &[u8]) -> Option<Command> {
    let mut arguments = arguments(command_line);
    let program = Path::new(OsStr::from_bytes(arguments.next()?)).file_name()?;
    if !program.as_bytes().starts_with(PROGRAM.as_bytes()) {
        return None;
    }
    let (mut namespace, mut id, mut address) = (None, None, None);
    // Go's flag package: one hyphen or two, the value behind `=` or in the next word.
    while let Some(argument) = arguments.next() {
        let Some(option) = argument.strip_prefix(b"--").or_else(|| argument.strip_prefix(b"-")) else {
            break;
        };
        let mut parts = option.splitn(2, |b| *b == b'=');
        let option = parts.next().unwrap_or_default();
        let value = match parts.next() {
            Some(value) => Some(value),
            None if WITHOUT_VALUE.contains(&option) => None,
            None => arguments.next(),
        };
        match option {
            b"namespace" => namespace = value,
            b"id" => id = value,
            b"address" => address = value,
            _ => {}
        }
    }
    let address = address.map(|value| Path::new(OsStr::from_bytes(value)));
    Some(Command {
        namespace: identifier(namespace)?.to_owned(),
        id: identifier(id).map(str::to_owned),
        address: address.filter(|path| path.is_absolute()).map(Path::to_owned),
    })
}

/// What containerd would take as an id or a namespace.
fn identifier(text: Option<&[u8]>) -> Option<&str> {
    std::str::from_utf8(text?).ok().filter(|text| is_identifier(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parsed(line: &str) -> Option<String> {
        let Command { namespace, id, address } = parse(line.replace('|', "\0").as_bytes())?;
        let address = address.unwrap_or_default();
        Some(format!("{namespace} {} {}", id.as_deref().unwrap_or("?"), address.display()))
    }

    #[test]
    fn shims_of_all_ages() {
        for line in [
            "/usr/bin/containerd-shim-runc-v2|-namespace|moby|-id|c1|-address|/run/containerd/containerd.sock",
            "containerd-shim-kata-v2|--id=c1|-debug|--namespace=moby|-address=/run/containerd/containerd.sock|",
        ] {
            assert_eq!(parsed(line).unwrap(), "moby c1 /run/containerd/containerd.sock", "{line}");
        }
        // The first version had no id, but a directory to work in.
        let old =
            "containerd-shim|-namespace|moby|-workdir|/w|-address|/a|-containerd-binary|/b|-runtime-root|/r";
        assert_eq!(parsed(old).unwrap(), "moby ? /a");
    }

    #[test]
    fn what_is_no_shim_or_makes_no_sense() {
        for line in [
            "sleep|-namespace|moby|-id|c1",
            "/x/containerd|-namespace|moby",
            "containerd-shim-runc-v2|-id|c1",
            "containerd-shim-runc-v2|-namespace",
            "containerd-shim-runc-v2|-namespace|../x|-id|c1",
            "containerd-shim-runc-v2|start|-namespace|moby",
            "",
        ] {
            assert_eq!(parsed(line), None, "{line}");
        }
        assert_eq!(parsed("containerd-shim-runc-v2|-namespace|n|-id|a/b|-address|x").unwrap(), "n ? ");
    }

    proptest! {
        #[test]
        fn nothing_panics(line in proptest::collection::vec(any::<u8>(), 0..80)) {
            let mut shim = b"containerd-shim-runc-v2\0-namespace\0".to_vec();
            shim.extend(&line);
            for line in [line, shim] {
                if let Some(Command { namespace, id, address }) = parse(&line) {
                    prop_assert!(is_identifier(&namespace) && id.is_none_or(|id| is_identifier(&id)));
                    prop_assert!(address.is_none_or(|address| address.is_absolute()));
                }
            }
        }
    }
}
