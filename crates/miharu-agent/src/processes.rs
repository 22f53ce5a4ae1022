//! How many processes the guest runs: its user processes, as Incus' agent counts; threads and the kernel's own are none.

use std::os::unix::ffi::OsStrExt;

use miharu_linux::Roots;
use miharu_linux::process::ProcDir;
use miharu_linux::read::{Buffer, fields, number};

/// The kernel's process whose children are all of its threads.
const KTHREADD: u32 = 2;

/// Counts them; `None` where `/proc` hides other users' processes.
#[must_use]
pub fn count(roots: &Roots, buffer: &mut Buffer) -> Option<u64> {
    // Under `hidepid=2` process 1 is not there for those who are not root.
    std::fs::symlink_metadata(roots.proc.join("1")).ok()?;
    let entries = std::fs::read_dir(&roots.proc).ok()?;
    let all = entries
        .filter(|entry| entry.as_ref().is_ok_and(|entry| number(entry.file_name().as_bytes()).is_some()));
    let all = u64::try_from(all.count()).ok()?;
    Some(all.saturating_sub(kernel_threads(roots, buffer).unwrap_or(0)))
}

/// The threads of the kernel, [`KTHREADD`] among them. One file tells them all, so that not each process need be looked at.
fn kernel_threads(roots: &Roots, buffer: &mut Buffer) -> Option<u64> {
    let process = ProcDir::open(roots, KTHREADD).ok()?;
    let stat = process.stat(buffer).ok()?;
    if stat.comm != b"kthreadd" || stat.ppid != 0 {
        return None;
    }
    let children = process.read(buffer, &format!("task/{KTHREADD}/children")).ok()?;
    u64::try_from(fields(children).filter(|field| number(field).is_some()).count()).ok()?.checked_add(1)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_kernels_threads_are_not_counted() {
        let base = tempfile::tempdir().unwrap();
        let proc = base.path().join("proc");
        for pid in ["1", "2", "3", "4", "812", "self", "sys"] {
            fs::create_dir_all(proc.join(pid)).unwrap();
        }
        let roots = Roots::at(base.path());
        assert_eq!(count(&roots, &mut Buffer::new()), Some(5));
        fs::create_dir_all(proc.join("2/task/2")).unwrap();
        fs::write(proc.join("2/task/2/children"), "3 4 ").unwrap();
        let stat = "2 (kthreadd) S 0 0 0 0 -1 2129984 0 0 0 0 0 0 0 0 20 0 1 0 1 0 0\n";
        fs::write(proc.join("2/stat"), stat).unwrap();
        assert_eq!(count(&roots, &mut Buffer::new()), Some(2));
        fs::write(proc.join("2/stat"), stat.replace("kthreadd", "bash")).unwrap();
        assert_eq!(count(&roots, &mut Buffer::new()), Some(5));
        fs::remove_dir(proc.join("1")).unwrap();
        assert_eq!(count(&roots, &mut Buffer::new()), None);
    }
}
