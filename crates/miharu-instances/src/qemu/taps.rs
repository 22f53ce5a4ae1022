//! Which taps a QEMU holds: the kernel names them in `/proc/PID/fdinfo`, whoever opened them and however they are called
//! by now.

use std::os::unix::ffi::OsStrExt;

use miharu_linux::process::ProcDir;
use miharu_linux::read::{Buffer, lines};

/// The most descriptors that are looked at.
const MAX_DESCRIPTORS: usize = 4096;

/// The names of the taps that a process has open, each once; nothing where its descriptors may not be seen.
pub(super) fn held(process: &ProcDir, buffer: &mut Buffer) -> Option<Vec<String>> {
    let entries = std::fs::read_dir(process.path().join("fd")).ok()?;
    let mut found = Vec::new();
    for entry in entries.take(MAX_DESCRIPTORS).flatten() {
        let is_tun =
            std::fs::read_link(entry.path()).is_ok_and(|target| target.as_os_str() == "/dev/net/tun");
        if !is_tun {
            continue;
        }
        let Some(number) = entry.file_name().to_str().map(str::to_owned) else { continue };
        let name = process.read(buffer, &format!("fdinfo/{number}")).ok().and_then(interface);
        found.extend(name);
    }
    // A pid used again would have answered for another process.
    process.stat(buffer).ok()?;
    found.sort();
    found.dedup();
    Some(found)
}

/// The interface of a descriptor, `iff:` in drivers/net/tun.c.
pub(crate) fn interface(text: &[u8]) -> Option<String> {
    let name = lines(text).find_map(|line| line.strip_prefix(b"iff:"))?.trim_ascii();
    Some(std::ffi::OsStr::from_bytes(name).to_string_lossy().into_owned()).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interface_of_a_descriptor() {
        assert_eq!(interface(b"pos:\t0\nflags:\t02104002\niff:\ttap7\n").as_deref(), Some("tap7"));
        assert_eq!(interface(b"pos:\t0\niff:\t\n"), None);
    }
}
