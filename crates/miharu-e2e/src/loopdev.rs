//! Small file systems on loop devices: a size of their own, as a volume of a real storage pool has.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::scratch::{self, Entry, Note};
use crate::shell;

/// An ext4 image on a loop device, detached on drop.
#[derive(Debug)]
pub struct LoopDevice {
    /// The image.
    pub image: PathBuf,
    /// Its device, such as `/dev/loop0`.
    pub device: String,
    _note: Note,
}

impl LoopDevice {
    /// Makes one of that size with the content of a folder, or empty.
    ///
    /// # Errors
    /// When `mkfs.ext4` or `losetup` cannot.
    pub fn create(bytes: u64, content: Option<&Path>) -> Result<Self> {
        let image = image(bytes, content)?;
        let device = shell::run("losetup", ["--find".as_ref(), "--show".as_ref(), image.as_os_str()])?
            .trim()
            .to_owned();
        let note = Entry::Loop(&device).note()?;
        Ok(Self { image, device, _note: note })
    }

    /// The number after `/dev/loop`.
    #[must_use]
    pub fn minor(&self) -> &str {
        self.device.trim_start_matches("/dev/loop")
    }
}

/// An ext4 image alone, for who attaches it himself.
///
/// # Errors
/// When `mkfs.ext4` cannot.
pub fn image(bytes: u64, content: Option<&Path>) -> Result<PathBuf> {
    let image = scratch::dir("image")?.join("ext4");
    fs::File::create(&image)?.set_len(bytes)?;
    let mut args = vec!["-q".as_ref(), "-F".as_ref()];
    if let Some(content) = content {
        args.extend(["-d".as_ref(), content.as_os_str()]);
    }
    args.push(image.as_os_str());
    shell::run("mkfs.ext4", args)?;
    Ok(image)
}
