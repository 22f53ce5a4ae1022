//! The parsers of control files, which take bytes and open nothing: for the readers of this crate, and for who wants to
//! measure them or to feed them whatever a file could hold.

/// The files of v1 controllers.
pub use super::v1::parse as v1;
/// The files of v2 controllers.
pub use super::v2::parse as v2;

use super::figures::Io;
use crate::text::number;

/// A block device as the kernel writes it, `8:16`.
#[must_use]
pub fn device_number(field: &[u8]) -> Option<(u32, u32)> {
    let mut parts = field.splitn(2, |b| *b == b':').map(|part| number(part)?.try_into().ok());
    Some((parts.next()??, parts.next()??))
}

/// The entry of a device in a list in order of device numbers, made where there is none.
pub(super) fn device_entry(devices: &mut Vec<Io>, (major, minor): (u32, u32)) -> Option<&mut Io> {
    let at = match devices.binary_search_by_key(&(major, minor), |io| (io.major, io.minor)) {
        Ok(at) => at,
        Err(at) => {
            devices.insert(at, Io { major, minor, ..Io::default() });
            at
        }
    };
    devices.get_mut(at)
}
