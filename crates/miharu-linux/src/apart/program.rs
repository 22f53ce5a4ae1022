//! Which program of the host's a process runs, and who could have put it there.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::Metadata;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, StatxFlags, makedev, statx};

use crate::process::ProcDir;
use crate::{Result, Roots};

/// What the kernel puts behind the path of a file that is in no directory any more.
const DELETED: &[u8] = b" (deleted)";

/// A program that a process runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// Where it is, as the kernel shows it.
    pub path: PathBuf,
    /// Who could have put it there, as far as owners of files tell it.
    pub keepers: std::result::Result<BTreeSet<u32>, Unkept>,
}

/// Why it cannot be told who put a program where it is; to be read after "as".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unkept {
    /// The host has no such file there, or another: a process in a mount namespace of its own shows any path that it likes.
    #[error("the host has no such file in that place")]
    Elsewhere,
    /// The file, or a directory that it is in, can be changed by everybody.
    #[error("everybody may write to {}", .0.display())]
    Everybodys(PathBuf),
    /// It can be changed by a group other than root's.
    #[error("group {gid} may write to {}", .path.display())]
    Groups {
        /// The file or directory.
        path: PathBuf,
        /// The group's number.
        gid: u32,
    },
}

/// The program of that process.
pub(super) fn of(roots: &Roots, process: &ProcDir) -> Result<Program> {
    let path = process.program()?;
    let keepers = keepers(roots, process, &path);
    Ok(Program { path, keepers })
}

/// Whose the program at `path` and all that it is in are, if the host has that very file there, or had it until it was replaced.
/// A process in a mount namespace of its own shows any path that it likes.
fn keepers(roots: &Roots, process: &ProcDir, path: &Path) -> std::result::Result<BTreeSet<u32>, Unkept> {
    let runs = running(process)?;
    // First as it stands: a file may be called "… (deleted)", too.
    if let Ok(found) = of_the_host(roots, path)
        && runs.is_none_or(|runs| runs.is(&found))
    {
        return of_place(roots, path, &found);
    }
    let replaced = path.as_os_str().as_bytes().strip_suffix(DELETED).ok_or(Unkept::Elsewhere)?;
    let place = Path::new(OsStr::from_bytes(replaced));
    let follows = of_the_host(roots, place)?;
    let mut keepers = of_place(roots, place, &follows)?;
    if let Some(runs) = runs {
        keepers.insert(of_replaced(path, &runs, &follows)?);
    }
    Ok(keepers)
}

/// Whose a program is that is in no directory any more, and was at `path`, where the host has the program `follows` now: so it
/// is after an upgrade of the package, while the old one still runs.
///
/// What a user can do: show any path, by a bind mount in a mount namespace of the user's own, and whatever namespace the
/// process is in, as it may run an open file that another passed to it; and give a file any owner and mode, on a FUSE file
/// system, which fusermount3 mounts for everybody, uid 0 included. So neither the path nor the owner is proof. But no user can
/// make a file of root's on the file system that the host's program is on (in a user namespace only the ids that are mapped
/// can own files, and none of these is the host's root; an overlay or FUSE has another device number): who can, could as well
/// make it run as root, by its set-user-id bit. So the old file is of root's making, and as the place has to have a program of
/// root's now, all that remains to a user is to show an old program of root's under the name of another that the user could
/// run anyway.
///
/// A program that was removed rather than replaced is not believed, nor is one whose successor is on another file system, as
/// it may be where the host's root is an overlay without one numbering (`xino`) of its layers.
fn of_replaced(path: &Path, runs: &Running, follows: &Metadata) -> std::result::Result<u32, Unkept> {
    if runs.device != follows.dev() {
        return Err(Unkept::Elsewhere);
    }
    check_mode(path, runs.mode, runs.gid)?;
    Ok(runs.uid)
}

/// What a process runs, as the kernel knows the file: no server of a file system is asked.
#[derive(Debug, Clone, Copy)]
struct Running {
    device: u64,
    inode: u64,
    mode: u32,
    uid: u32,
    gid: u32,
}

impl Running {
    fn is(&self, found: &Metadata) -> bool {
        (self.device, self.inode) == (found.dev(), found.ino())
    }
}

/// Nothing where the link of a recorded tree leads nowhere; so does one of a process without a program, which has ended.
fn running(process: &ProcDir) -> std::result::Result<Option<Running>, Unkept> {
    let flags = AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
    let wanted = StatxFlags::INO | StatxFlags::MODE | StatxFlags::TYPE | StatxFlags::UID | StatxFlags::GID;
    match statx(process.as_fd(), "exe", flags, wanted) {
        Ok(runs) => Ok(Some(Running {
            device: makedev(runs.stx_dev_major, runs.stx_dev_minor),
            inode: runs.stx_ino,
            mode: runs.stx_mode.into(),
            uid: runs.stx_uid,
            gid: runs.stx_gid,
        })),
        Err(rustix::io::Errno::NOENT) => Ok(None),
        Err(_) => Err(Unkept::Elsewhere),
    }
}

/// Whose the file `found` at `path`, and each directory above, are.
fn of_place(roots: &Roots, path: &Path, found: &Metadata) -> std::result::Result<BTreeSet<u32>, Unkept> {
    if !found.is_file() {
        return Err(Unkept::Elsewhere);
    }
    let mut keepers = BTreeSet::new();
    for above in path.ancestors() {
        let metadata = of_the_host(roots, above)?;
        check_mode(above, metadata.mode(), metadata.gid())?;
        keepers.insert(metadata.uid());
    }
    Ok(keepers)
}

fn of_the_host(roots: &Roots, path: &Path) -> std::result::Result<Metadata, Unkept> {
    let place = roots.host_path(path).ok_or(Unkept::Elsewhere)?;
    std::fs::symlink_metadata(place).map_err(|_| Unkept::Elsewhere)
}

/// Whether nobody but its owner, and root's group, may change what is at `path`. An access list that lets somebody else write
/// shows in the group's bit. Who is in another group is not asked, as that is not for a file to say: a program in a directory
/// of Debian's `staff` has to move, or the directory has to become root's alone.
fn check_mode(path: &Path, mode: u32, gid: u32) -> std::result::Result<(), Unkept> {
    if mode & 0o002 != 0 {
        return Err(Unkept::Everybodys(path.to_owned()));
    }
    if mode & 0o020 != 0 && gid != 0 {
        return Err(Unkept::Groups { path: path.to_owned(), gid });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::apart::{Answer, Asked, Asker, Question};
    use crate::read::Buffer;

    #[test]
    #[allow(clippy::disallowed_methods, reason = "a test needs a process to look at")]
    fn a_program_is_told_with_who_could_have_put_it_there() {
        let base = tempfile::tempdir().unwrap();
        let copy = base.path().join("qemu-system-x86_64");
        install(&copy);
        let program_of = |program: &Path| {
            let mut child = std::process::Command::new(program).arg("1000").spawn().unwrap();
            let process = ProcDir::open(&Roots::default(), child.id()).unwrap();
            let start_ticks = process.stat(&mut Buffer::new()).unwrap().starttime;
            let question = Question::Program { pid: child.id(), start_ticks };
            let asked = Asker::new(&Roots::default()).ask(question, Duration::from_secs(20));
            child.kill().unwrap();
            child.wait().unwrap();
            let Asked::Now(Answer::Program(answer)) = asked else { panic!("{asked:?}") };
            answer.unwrap()
        };
        let systems = program_of(Path::new("/bin/sleep"));
        assert_eq!(systems.path.file_name().unwrap(), "sleep");
        assert_eq!(systems.keepers, Ok(BTreeSet::from([0])));
        let temporary = std::env::temp_dir();
        if std::fs::metadata(&temporary).unwrap().mode() & 0o002 != 0 {
            let keepers = Err(Unkept::Everybodys(temporary));
            assert_eq!(program_of(&copy), Program { path: copy, keepers });
        }
    }

    /// A host whose `/bin/program` runs.
    struct Host {
        base: tempfile::TempDir,
        roots: Roots,
        child: std::process::Child,
    }

    impl Host {
        #[allow(clippy::disallowed_methods, reason = "a test needs a process to look at")]
        fn new() -> Self {
            let base = tempfile::tempdir().unwrap();
            let mut roots = Roots::at(base.path());
            roots.proc = Roots::default().proc;
            let bin = base.path().join("bin");
            std::fs::create_dir(&bin).unwrap();
            install(&bin.join("program"));
            for path in [base.path(), &bin] {
                set_mode(path, 0o755);
            }
            let child = std::process::Command::new(bin.join("program")).arg("1000").spawn().unwrap();
            Self { base, roots, child }
        }

        fn place(&self, path: &str) -> PathBuf {
            self.base.path().join(path)
        }

        fn process(&self) -> ProcDir {
            ProcDir::open(&self.roots, self.child.id()).unwrap()
        }

        fn keepers(&self, path: &str) -> std::result::Result<BTreeSet<u32>, Unkept> {
            keepers(&self.roots, &self.process(), Path::new(path))
        }
    }

    impl Drop for Host {
        fn drop(&mut self) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }

    /// As a package manager does it: the whole file comes to its place at once. Another process writes it, as this one may
    /// start a child of another test at that moment, which would hold it open: ETXTBSY.
    #[allow(clippy::disallowed_methods, reason = "see above")]
    fn install(place: &Path) {
        let new = place.with_extension("new");
        let copied = std::process::Command::new("cp").arg("/bin/sleep").arg(&new).status();
        assert!(copied.unwrap().success());
        set_mode(&new, 0o755);
        std::fs::rename(new, place).unwrap();
    }

    fn set_mode(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    }

    fn own() -> BTreeSet<u32> {
        BTreeSet::from([rustix::process::geteuid().as_raw()])
    }

    #[test]
    fn what_a_group_may_write_is_nobodys_but_roots() {
        let host = Host::new();
        assert_eq!(host.keepers("/bin/program"), Ok(own()));
        set_mode(&host.place("bin"), 0o2775);
        let gid = std::fs::metadata(host.place("bin")).unwrap().gid();
        let groups = |path: &str, gid| Err(Unkept::Groups { path: path.into(), gid });
        let expected = if gid == 0 { Ok(own()) } else { groups("/bin", gid) };
        assert_eq!(host.keepers("/bin/program"), expected);
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(host.place("bin"), None, Some(50)).unwrap();
            assert_eq!(host.keepers("/bin/program"), groups("/bin", 50));
            std::os::unix::fs::chown(host.place("bin/program"), None, Some(51)).unwrap();
            set_mode(&host.place("bin/program"), 0o775);
            assert_eq!(host.keepers("/bin/program"), groups("/bin/program", 51));
        }
        assert_eq!(check_mode(Path::new("/x"), 0o100_775, 50), groups("/x", 50).map(drop));
        assert_eq!(check_mode(Path::new("/x"), 0o100_775, 0), Ok(()));
        assert_eq!(check_mode(Path::new("/x"), 0o100_757, 0), Err(Unkept::Everybodys("/x".into())));
    }

    #[test]
    fn a_program_that_was_replaced_is_whose_it_was_and_its_successor_is() {
        let host = Host::new();
        let path = "/bin/program (deleted)";
        std::fs::remove_file(host.place("bin/program")).unwrap();
        assert_eq!(host.process().program().unwrap(), host.place("bin/program (deleted)"));
        assert_eq!(host.keepers(path), Err(Unkept::Elsewhere), "a program that was removed");
        install(&host.place("bin/program"));
        assert_eq!(host.keepers(path), Ok(own()));
        assert_eq!(host.keepers("/bin/program"), Err(Unkept::Elsewhere), "what it runs is another");
        // The successor and its directory tell as much as they would of themselves.
        set_mode(&host.place("bin"), 0o1777);
        assert_eq!(host.keepers(path), Err(Unkept::Everybodys("/bin".into())));
        set_mode(&host.place("bin"), 0o755);
        set_mode(&host.place("bin/program"), 0o757);
        assert_eq!(host.keepers(path), Err(Unkept::Everybodys("/bin/program".into())));
        std::fs::remove_file(host.place("bin/program")).unwrap();
        std::fs::create_dir(host.place("bin/program")).unwrap();
        assert_eq!(host.keepers(path), Err(Unkept::Elsewhere), "a directory");
    }

    #[test]
    fn a_replaced_file_of_anothers_or_of_another_file_system_is_not_the_hosts() {
        let host = Host::new();
        // Who has it open may change it after it has left its directory.
        let open = std::fs::File::open(host.place("bin/program")).unwrap();
        install(&host.place("bin/program"));
        let path = Path::new("/bin/program (deleted)");
        open.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o757)).unwrap();
        assert_eq!(host.keepers("/bin/program (deleted)"), Err(Unkept::Everybodys(path.into())));
        open.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        assert_eq!(host.keepers("/bin/program (deleted)"), Ok(own()));
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::fchown(&open, Some(4000), None).unwrap();
            assert_eq!(host.keepers("/bin/program (deleted)"), Ok(BTreeSet::from([0, 4000])));
        }
        // As a file system that a user mounts can claim to be root's.
        let follows = std::fs::metadata(host.place("bin/program")).unwrap();
        let runs = Running { uid: 0, ..running(&host.process()).unwrap().unwrap() };
        assert_eq!(of_replaced(path, &runs, &follows), Ok(0));
        let elsewhere = Running { device: runs.device + 1, ..runs };
        assert_eq!(of_replaced(path, &elsewhere, &follows), Err(Unkept::Elsewhere));
    }
}
