//! Where a device is plugged in: its driver, its place on the PCI bus, its NUMA node.

use std::path::Path;

use super::Files;

/// Where a device is plugged in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// The kernel's driver for it.
    pub driver: Option<String>,
    /// `vendor`, four hexadecimal digits.
    pub vendor_id: Option<String>,
    /// `device`, four hexadecimal digits.
    pub product_id: Option<String>,
    /// Its place on the PCI bus.
    pub pci_address: Option<String>,
    /// Its NUMA node, where the kernel tells one.
    pub node: Option<u64>,
}

/// Reads it off a device's directory in sysfs.
pub(super) fn origin(files: &mut Files<'_>, device: &Path) -> Origin {
    let place = std::fs::canonicalize(device).unwrap_or_else(|_| device.to_owned());
    // A virtio device hangs off a PCI device, which is the nearest one above it.
    let pci =
        place.ancestors().find(|path| path.file_name().is_some_and(|name| is_pci(&name.to_string_lossy())));
    let hexadecimal = |text: String| text.strip_prefix("0x").map(str::to_owned);
    Origin {
        driver: link_name(&place.join("driver")),
        vendor_id: files.text(&place.join("vendor")).and_then(hexadecimal),
        product_id: files.text(&place.join("device")).and_then(hexadecimal),
        pci_address: pci.and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned()),
        // Without NUMA the file holds -1.
        node: pci.and_then(|path| files.number(&path.join("numa_node"))),
    }
}

/// The last part of what a link points at.
pub(super) fn link_name(link: &Path) -> Option<String> {
    Some(std::fs::read_link(link).ok()?.file_name()?.to_string_lossy().into_owned())
}

/// `0000:00:03.0`: domain, bus, device and function.
fn is_pci(name: &str) -> bool {
    let Some((numbers, function)) = name.split_once('.') else { return false };
    let mut lengths = numbers.split(':').map(str::len);
    let shape = (lengths.next(), lengths.next(), lengths.next(), lengths.next());
    matches!(shape, (Some(4..=8), Some(2), Some(2), None))
        && function.len() == 1
        && numbers.bytes().chain(function.bytes()).all(|b| b == b':' || b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_pci_are_known() {
        for name in ["0000:00:03.0", "10000:e1:00.7"] {
            assert!(is_pci(name), "{name}");
        }
        for name in ["pci0000:00", "virtio2", "0000:00:03", "0000:00.0", "1-1.2", ""] {
            assert!(!is_pci(name), "{name}");
        }
    }
}
