//! The virtio-serial port: a device file that this process alone may open, with the host at its other end or nobody.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use miharu_api::report::PORT;
use miharu_linux::Roots;
use rustix::fs::{Mode, OFlags};

use crate::connection::{Connection, Served};
use crate::options::Port;
use crate::report::Reporter;

/// The pause while the host has not opened its end: the kernel has no call that waits for that.
const NO_HOST: Duration = Duration::from_millis(250);

/// How long the wait for a request may last at most; nothing happens after it but another one.
const FOREVER: Duration = Duration::from_secs(3600);

/// Serves the port until it goes away.
///
/// # Errors
/// Where it is not there, cannot be opened, or was unplugged.
pub fn serve(roots: &Roots, port: &Port, reporter: &Reporter) -> io::Result<()> {
    let path = match port {
        Port::At(path) => path.clone(),
        Port::Found => find(roots).ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no such port"))?,
    };
    let mut connection = Connection::new(open(&path)?);
    loop {
        if connection.serve(reporter, FOREVER)? == Served::Closed {
            connection.reset();
            std::thread::sleep(NO_HOST);
        }
    }
}

/// The device file of the port named [`PORT`]: the link that udev makes, or else what sysfs tells.
fn find(roots: &Roots) -> Option<PathBuf> {
    let linked = roots.host_path(&Path::new("/dev/virtio-ports").join(PORT))?;
    if linked.exists() {
        return Some(linked);
    }
    let entries = std::fs::read_dir(roots.sys.join("class/virtio-ports")).ok()?;
    let is_ours = |directory: &Path| {
        std::fs::read(directory.join("name")).is_ok_and(|name| name.trim_ascii() == PORT.as_bytes())
    };
    let port = entries.flatten().find(|entry| is_ours(&entry.path()))?;
    roots.host_path(&Path::new("/dev").join(port.file_name()))
}

fn open(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_port_is_found_with_and_without_udev() {
        let base = tempfile::tempdir().unwrap();
        let roots = Roots::at(base.path());
        assert_eq!(find(&roots), None);
        for (port, name) in [("vport1p1", "org.qemu.guest_agent.0\n"), ("vport1p2", "org.miharu.agent.0\n")] {
            let directory = base.path().join("sys/class/virtio-ports").join(port);
            fs::create_dir_all(&directory).unwrap();
            fs::write(directory.join("name"), name).unwrap();
        }
        assert_eq!(find(&roots), Some(base.path().join("dev/vport1p2")));
        let links = base.path().join("dev/virtio-ports");
        fs::create_dir_all(&links).unwrap();
        fs::write(links.join("org.miharu.agent.0"), "").unwrap();
        assert_eq!(find(&roots), Some(links.join("org.miharu.agent.0")));
    }
}
