//! What the host calls a user: `/etc/passwd`.

use std::path::Path;

use miharu_linux::Roots;
use miharu_linux::read::{Buffer, lines, number};

/// The name of a user in the host's own file; users of a directory service have none there.
pub(crate) fn name(roots: &Roots, uid: u32) -> Option<String> {
    let mut buffer = Buffer::new();
    let text = buffer.read(&roots.host_path(Path::new("/etc/passwd"))?).ok()?;
    let found = lines(text).find_map(|line| {
        let mut parts = line.split(|b| *b == b':');
        let name = parts.next()?;
        (number(parts.nth(1)?)? == u64::from(uid)).then(|| String::from_utf8_lossy(name).into_owned())
    });
    found.filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_users() {
        let base = tempfile::tempdir().unwrap();
        std::fs::create_dir(base.path().join("etc")).unwrap();
        std::fs::write(base.path().join("etc/passwd"), "root:x:0:0::/:/bin/sh\nann:x:1000:1000::/:/\n:x:7\n")
            .unwrap();
        let roots = Roots::at(base.path());
        assert_eq!(name(&roots, 1000).as_deref(), Some("ann"));
        assert_eq!(name(&roots, 7), None);
        assert_eq!(name(&roots, 1), None);
    }
}
