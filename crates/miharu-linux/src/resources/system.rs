//! The machine: what its firmware tells (`/sys/class/dmi/id`), whether it is a virtual one, and how busy it is.

use super::Files;
use crate::read::{fields, lines, number};

/// The machine. What its firmware does not tell is absent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say all there is to say")]
pub struct System {
    pub uuid: Option<String>,
    pub vendor: Option<String>,
    pub product: Option<String>,
    pub family: Option<String>,
    pub version: Option<String>,
    pub sku: Option<String>,
    pub serial: Option<String>,
    /// Whether a hypervisor runs it; absent where the CPU does not tell.
    pub is_virtual: Option<bool>,
    pub firmware: Option<Firmware>,
    pub chassis: Option<Chassis>,
    pub board: Option<Board>,
}

/// Its firmware.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say all there is to say")]
pub struct Firmware {
    pub vendor: Option<String>,
    pub date: Option<String>,
    pub version: Option<String>,
}

/// Its chassis.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say all there is to say")]
pub struct Chassis {
    pub vendor: Option<String>,
    /// Its kind, a number of the SMBIOS specification, section 7.4.1.
    pub kind: Option<u64>,
    pub serial: Option<String>,
    pub version: Option<String>,
}

/// Its main board.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say all there is to say")]
pub struct Board {
    pub vendor: Option<String>,
    pub product: Option<String>,
    pub serial: Option<String>,
    pub version: Option<String>,
}

/// How busy the host is: `/proc/loadavg`.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Load {
    /// The averages of 1, 5 and 15 minutes.
    pub averages: Option<[f64; 3]>,
    /// Tasks that there are.
    pub tasks: Option<u64>,
}

pub(super) fn read(files: &mut Files<'_>) -> System {
    let id = files.roots.sys.join("class/dmi/id");
    let has_firmware = id.is_dir();
    let is_virtual = files.buffer.read(&files.roots.proc.join("cpuinfo")).ok().and_then(parse_hypervisor);
    let mut field = |name: &str| files.text(&id.join(name));
    System {
        uuid: field("product_uuid"),
        vendor: field("sys_vendor"),
        product: field("product_name"),
        family: field("product_family"),
        version: field("product_version"),
        sku: field("product_sku"),
        serial: field("product_serial"),
        is_virtual,
        firmware: has_firmware.then(|| Firmware {
            vendor: field("bios_vendor"),
            date: field("bios_date"),
            version: field("bios_version"),
        }),
        chassis: has_firmware.then(|| Chassis {
            vendor: field("chassis_vendor"),
            kind: field("chassis_type").and_then(|text| number(text.as_bytes())),
            serial: field("chassis_serial"),
            version: field("chassis_version"),
        }),
        board: has_firmware.then(|| Board {
            vendor: field("board_vendor"),
            product: field("board_name"),
            serial: field("board_serial"),
            version: field("board_version"),
        }),
    }
}

pub(super) fn load(files: &mut Files<'_>) -> Load {
    let path = files.roots.proc.join("loadavg");
    files.buffer.read(&path).ok().and_then(parse_load).unwrap_or_default()
}

/// x86 has a flag for it; where there are no flags, nothing is told.
fn parse_hypervisor(text: &[u8]) -> Option<bool> {
    let flags = lines(text).find(|line| line.starts_with(b"flags"))?;
    Some(fields(flags).any(|flag| flag == b"hypervisor"))
}

/// `0.69 1.10 1.29 4/573 15360`: three averages, tasks that run of how many, the last process number.
fn parse_load(text: &[u8]) -> Option<Load> {
    let text = std::str::from_utf8(text).ok()?;
    let mut words = text.split_whitespace();
    let mut average = || words.next()?.parse::<f64>().ok().filter(|average| average.is_finite());
    let averages = [average()?, average()?, average()?];
    let tasks = words.next().and_then(|word| number(word.split_once('/')?.1.as_bytes()));
    Some(Load { averages: Some(averages), tasks })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_load_is_read() {
        let load = parse_load(b"0.69 1.10 1.29 4/573 15360\n").unwrap();
        assert_eq!(load, Load { averages: Some([0.69, 1.1, 1.29]), tasks: Some(573) });
        assert_eq!(parse_load(b"0.69 x 1.29"), None);
    }

    #[test]
    fn a_hypervisor_shows_in_the_flags() {
        assert_eq!(parse_hypervisor(b"processor : 0\nflags\t\t: fpu hypervisor lahf_lm\n"), Some(true));
        assert_eq!(parse_hypervisor(b"flags\t\t: fpu\n"), Some(false));
        assert_eq!(parse_hypervisor(b"Features\t: fp asimd\n"), None);
    }
}
