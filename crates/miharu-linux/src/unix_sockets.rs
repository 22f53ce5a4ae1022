//! Who listens on unix sockets: `/proc/net/unix`.

use crate::error::Result;
use crate::process::ProcDir;
use crate::read::{Buffer, fields, lines};
use crate::roots::Roots;

/// The process whose network namespace is the host's.
const HOST_INIT: u32 = 1;

/// `__SO_ACCEPTCON` of include/uapi/linux/net.h: somebody has called listen(2).
const LISTENS: u32 = 0x1_0000;

/// The fields before the path: number, references, protocol, flags, type, state, inode.
const BEFORE_PATH: usize = 7;

/// Gives the path of every socket of the host that somebody listens on to `each`. Any user can make sockets, so a path
/// tells nothing of whose it is.
///
/// # Errors
/// Where the table cannot be read.
pub fn each_listening(roots: &Roots, buffer: &mut Buffer, each: impl FnMut(&[u8])) -> Result<()> {
    let init = ProcDir::open(roots, HOST_INIT)?;
    parse(init.read(buffer, "net/unix")?).for_each(each);
    Ok(())
}

/// The paths of the sockets in the table that somebody listens on. A path with a line's end in it is cut there.
pub fn parse(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    lines(text).filter_map(|line| {
        let mut flags_first = fields(line).skip(3);
        let flags = std::str::from_utf8(flags_first.next()?).ok()?;
        if u32::from_str_radix(flags, 16).ok()? & LISTENS == 0 {
            return None;
        }
        let path = after_fields(line, BEFORE_PATH)?;
        path.starts_with(b"/").then_some(path)
    })
}

/// What stands after so many fields and the one blank after them; a path may have blanks of its own.
fn after_fields(line: &[u8], count: usize) -> Option<&[u8]> {
    let mut rest = line;
    for _ in 0..count {
        let start = rest.iter().position(|byte| *byte != b' ')?;
        rest = rest.get(start..)?;
        let end = rest.iter().position(|byte| *byte == b' ')?;
        rest = rest.get(end..)?;
    }
    rest.get(1..)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TABLE: &[u8] = b"Num       RefCount Protocol Flags    Type St Inode Path\n\
        00000000434f4686: 00000002 00000000 00010000 0001 01 12198703 /var/lib/incus/guestapi/sock\n\
        00000000f43f4d23: 00000002 00000000 00010000 0001 01   12197 /a b/unix.socket\n\
        00000000f43f4d24: 00000003 00000000 00000000 0001 03 12197050 /var/lib/lxd/unix.socket\n\
        00000000f43f4d25: 00000002 00000000 00010000 0001 01 12197051 @abstract\n\
        00000000f43f4d26: 00000002 00000000 00010000 0001 01 12197052\n";

    #[test]
    fn only_sockets_with_a_path_that_somebody_listens_on_are_told() {
        let paths: Vec<&[u8]> = parse(TABLE).collect();
        assert_eq!(paths, [b"/var/lib/incus/guestapi/sock".as_slice(), b"/a b/unix.socket"]);
    }

    #[test]
    fn a_socket_of_this_process_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let wanted = path.to_str().unwrap().as_bytes();
        let text = std::fs::read(Roots::default().proc.join("self/net/unix")).unwrap();
        assert!(parse(&text).any(|path| path == wanted));
    }

    proptest! {
        #[test]
        fn nothing_panics(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            for path in parse(&text) {
                prop_assert!(path.starts_with(b"/") && !path.contains(&b'\n'));
            }
        }
    }
}
