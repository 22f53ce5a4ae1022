//! Who listens on unix sockets: `/proc/net/unix`.

use crate::error::Result;
use crate::process::ProcDir;
use crate::read::{Buffer, LIMIT, Take, fields, lines, number};
use crate::roots::Roots;
use crate::socket::holds;

/// The process whose network namespace is the host's.
const HOST_INIT: u32 = 1;

/// `__SO_ACCEPTCON` of include/uapi/linux/net.h: somebody has called listen(2).
const LISTENS: u32 = 0x1_0000;

/// The fields before the path: number, references, protocol, flags, type, state, inode.
const BEFORE_PATH: usize = 7;

/// A socket that somebody listens on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listening<'a> {
    /// The path that it was bound to.
    pub path: &'a [u8],
    /// The number that descriptors of it have: `socket:[inode]`.
    pub inode: u64,
}

/// Who listens on a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// Nobody in the host's network namespace.
    Nobody,
    /// Process 1 has the socket, for itself or to start a daemon with it once somebody connects (systemd.socket(5)).
    Init,
    /// Process 1 does not have it.
    Another,
    /// What process 1 has open may not be seen.
    Unknown,
}

/// Gives the path of every socket of the host that somebody listens on to `each`. Any user can make sockets, so a path
/// tells nothing of whose it is.
///
/// # Errors
/// Where the table cannot be read.
pub fn each_listening(roots: &Roots, buffer: &mut Buffer, mut each: impl FnMut(&[u8])) -> Result<()> {
    let init = ProcDir::open(roots, HOST_INIT)?;
    each_line(&init, buffer, |socket| each(socket.path))
}

/// By lines, as anybody can make the table as long as he has descriptors.
fn each_line(init: &ProcDir, buffer: &mut Buffer, mut each: impl FnMut(Listening<'_>)) -> Result<()> {
    let sort = |line: &[u8]| {
        parse(line).for_each(&mut each);
        Take::Drop
    };
    init.read_lines(buffer, "net/unix", LIMIT, sort).map(drop)
}

/// Who listens on the path that `is_it` knows. Nobody is connected to, as that would start a daemon that process 1 listens for.
///
/// # Errors
/// Where the table cannot be read.
pub fn holder(roots: &Roots, buffer: &mut Buffer, is_it: impl Fn(&[u8]) -> bool) -> Result<Holder> {
    let init = ProcDir::open(roots, HOST_INIT)?;
    let mut inodes = Vec::new();
    each_line(&init, buffer, |socket| inodes.extend(is_it(socket.path).then_some(socket.inode)))?;
    if inodes.is_empty() {
        return Ok(Holder::Nobody);
    }
    Ok(match holds(&init, &inodes) {
        Ok(true) => Holder::Init,
        Ok(false) => Holder::Another,
        Err(_) => Holder::Unknown,
    })
}

/// The sockets in the table that have a path and that somebody listens on. A path with a line's end in it is cut there.
pub fn parse(text: &[u8]) -> impl Iterator<Item = Listening<'_>> {
    lines(text).filter_map(|line| {
        let mut flags_first = fields(line).skip(3);
        let flags = std::str::from_utf8(flags_first.next()?).ok()?;
        if u32::from_str_radix(flags, 16).ok()? & LISTENS == 0 {
            return None;
        }
        // After the flags come type, state and inode.
        let inode = number(flags_first.nth(2)?)?;
        let path = after_fields(line, BEFORE_PATH)?;
        path.starts_with(b"/").then_some(Listening { path, inode })
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
        let found: Vec<(&[u8], u64)> = parse(TABLE).map(|socket| (socket.path, socket.inode)).collect();
        let expected: [(&[u8], u64); 2] =
            [(b"/var/lib/incus/guestapi/sock", 12_198_703), (b"/a b/unix.socket", 12_197)];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_socket_that_process_1_holds_is_told_from_a_daemons_own() {
        let base = tempfile::tempdir().unwrap();
        let init = base.path().join("proc/1");
        std::fs::create_dir_all(init.join("net")).unwrap();
        std::fs::write(init.join("net/unix"), TABLE).unwrap();
        let who = |path: &[u8]| {
            holder(&Roots::at(base.path()), &mut Buffer::new(), |listening| listening == path).unwrap()
        };
        assert_eq!(who(b"/a b/unix.socket"), Holder::Unknown);
        std::fs::create_dir(init.join("fd")).unwrap();
        std::os::unix::fs::symlink("/dev/null", init.join("fd/0")).unwrap();
        std::os::unix::fs::symlink("socket:[12197]", init.join("fd/9")).unwrap();
        assert_eq!(who(b"/a b/unix.socket"), Holder::Init);
        assert_eq!(who(b"/var/lib/incus/guestapi/sock"), Holder::Another);
        assert_eq!(who(b"/var/lib/lxd/unix.socket"), Holder::Nobody);
        std::fs::remove_file(init.join("net/unix")).unwrap();
        holder(&Roots::at(base.path()), &mut Buffer::new(), |_| true).unwrap_err();
    }

    #[test]
    fn a_socket_of_this_process_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let wanted = path.to_str().unwrap().as_bytes();
        let text = std::fs::read(Roots::default().proc.join("self/net/unix")).unwrap();
        assert!(parse(&text).any(|socket| socket.path == wanted && socket.inode != 0));
    }

    proptest! {
        #[test]
        fn nothing_panics(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            for Listening { path, .. } in parse(&text) {
                prop_assert!(path.starts_with(b"/") && !path.contains(&b'\n'));
            }
        }
    }
}
