//! The host's end of a vhost-user vsock device: QEMU knows only the device's control socket, the command line of
//! vhost-device-vsock tells which socket on the host belongs to it.

use std::path::{Path, PathBuf};

use miharu_linux::Roots;
use miharu_linux::process::{ProcDir, arguments};

use super::watch::{Program, Watch};
use crate::driver::is_trusted;

/// The socket by which a guest's ports are reached whose QEMU connects to `control`.
pub(super) fn host_end(roots: &Roots, watch: &Watch, control: &Path) -> Option<PathBuf> {
    let devices = watch.processes.values();
    devices.filter(|process| process.program == Program::VsockDevice && is_trusted(process.uid)).find_map(
        |process| {
            let line = ProcDir::open(roots, process.dir.pid()).ok()?.command_line().ok()?;
            pairs(&line).into_iter().find(|(socket, _)| socket == control).map(|(_, end)| end)
        },
    )
}

/// Control sockets and host ends of `--socket S --uds-path U` and of each `--vm guest-cid=3,socket=S,uds-path=U`.
pub(crate) fn pairs(command_line: &[u8]) -> Vec<(PathBuf, PathBuf)> {
    let arguments: Vec<_> = arguments(command_line)
        .skip(1)
        .map(|argument| String::from_utf8_lossy(argument).into_owned())
        .collect();
    let mut found = Vec::new();
    let (mut socket, mut end) = (None, None);
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let (key, value) = match argument.split_once('=') {
            Some((key, value)) => (key, Some(value.to_owned())),
            None => (argument.as_str(), None),
        };
        if !matches!(key, "--socket" | "--uds-path" | "--vm" | "-s" | "-u") {
            continue;
        }
        let Some(value) = value.or_else(|| rest.next().cloned()) else { break };
        match key {
            "--vm" => found.extend(machine(&value)),
            "--socket" | "-s" => socket = Some(PathBuf::from(value)),
            _ => end = Some(PathBuf::from(value)),
        }
    }
    found.extend(socket.zip(end));
    found.retain(|(socket, end)| socket.is_absolute() && end.is_absolute());
    found
}

fn machine(text: &str) -> Option<(PathBuf, PathBuf)> {
    let value = |key: &str| {
        text.split(',').find_map(|item| item.strip_prefix(key)?.strip_prefix('=')).map(PathBuf::from)
    };
    value("socket").zip(value("uds-path"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_to_start_the_device() {
        let one = "vhost-device-vsock|--guest-cid|3|--socket=/w/c|--uds-path|/w/u";
        let two = "vhost-device-vsock|--vm|guest-cid=3,socket=/w/c,uds-path=/w/u|--vm=guest-cid=4,uds-path=x,socket=/y";
        for line in [one, two] {
            assert_eq!(pairs(line.replace('|', "\0").as_bytes()), [("/w/c".into(), "/w/u".into())], "{line}");
        }
        assert!(pairs(b"vhost-device-vsock\0--socket").is_empty());
    }
}
