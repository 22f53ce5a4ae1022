//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use miharu_api::report::VSOCK_PORT;

/// What `--help` prints.
pub const HELP: &str = "\
Tells the host of this virtual machine how it does.

Usage: miharu-agent [OPTIONS]

Options:
      --virtio-serial PATH  The virtio-serial port to answer on: a device file, `auto` for the port named
                            org.miharu.agent.0 [default: auto], or `off`
      --vsock PORT          The vsock port to answer the host on [default: 8444], or `off`
      --once                Print one report and exit
  -h, --help                Print help
  -V, --version             Print version
";

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Serve the host.
    Serve(Transports),
    /// Print one report.
    Once,
    /// Print [`HELP`].
    Help,
    /// Print the version.
    Version,
}

/// How the host can ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transports {
    /// The virtio-serial port.
    pub virtio_serial: Option<Port>,
    /// The vsock port.
    pub vsock: Option<u32>,
}

/// A virtio-serial port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Port {
    /// The one with our name.
    Found,
    /// This device file.
    At(PathBuf),
}

impl Default for Transports {
    fn default() -> Self {
        Self { virtio_serial: Some(Port::Found), vsock: Some(VSOCK_PORT) }
    }
}

/// Reads the arguments, the program's name not among them.
///
/// # Errors
/// A sentence on what is wrong.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Action, String> {
    let mut transports = Transports::default();
    let mut action = None;
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        let text = argument.to_string_lossy().into_owned();
        let (name, inline) = match text.split_once('=') {
            Some((name, value)) => (name, Some(OsString::from(value))),
            None => (text.as_str(), None),
        };
        let mut value =
            || inline.clone().or_else(|| arguments.next()).ok_or_else(|| format!("{name} needs a value"));
        match name {
            "--virtio-serial" => transports.virtio_serial = port(value()?),
            "--vsock" => transports.vsock = vsock(&value()?)?,
            "--once" => action = Some(Action::Once),
            "-h" | "--help" => return Ok(Action::Help),
            "-V" | "--version" => return Ok(Action::Version),
            _ => return Err(format!("unknown argument {text:?}")),
        }
    }
    if transports.virtio_serial.is_none() && transports.vsock.is_none() {
        return Err("--virtio-serial and --vsock are both off: there is nothing to answer on".to_owned());
    }
    Ok(action.unwrap_or(Action::Serve(transports)))
}

fn port(value: OsString) -> Option<Port> {
    match value.to_str() {
        Some("off") => None,
        Some("auto") => Some(Port::Found),
        _ => Some(Port::At(value.into())),
    }
}

fn vsock(value: &OsString) -> Result<Option<u32>, String> {
    let text = value.to_string_lossy();
    if text == "off" {
        return Ok(None);
    }
    // The last number means any port.
    let port = text.parse().ok().filter(|port| *port != u32::MAX);
    port.map(Some).ok_or_else(|| format!("{text:?} is no vsock port"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &[&str]) -> Result<Action, String> {
        parse(arguments.iter().map(OsString::from))
    }

    #[test]
    fn both_transports_are_on() {
        let Action::Serve(transports) = parsed(&[]).unwrap() else { panic!() };
        assert_eq!(transports, Transports { virtio_serial: Some(Port::Found), vsock: Some(8444) });
    }

    #[test]
    fn each_can_be_set_and_switched_off() {
        let Action::Serve(transports) = parsed(&["--virtio-serial", "/dev/vport1p1", "--vsock=off"]).unwrap()
        else {
            panic!()
        };
        assert_eq!(transports.virtio_serial, Some(Port::At("/dev/vport1p1".into())));
        assert_eq!(transports.vsock, None);
        let Action::Serve(transports) = parsed(&["--virtio-serial=off", "--vsock", "9000"]).unwrap() else {
            panic!()
        };
        assert_eq!((transports.virtio_serial, transports.vsock), (None, Some(9000)));
        assert_eq!(parsed(&["--once"]).unwrap(), Action::Once);
        assert_eq!(parsed(&["--once", "--help"]).unwrap(), Action::Help);
    }

    #[test]
    fn mistakes_are_named() {
        for (arguments, word) in [
            (&["--vsock", "x"][..], "vsock port"),
            (&["--vsock"], "needs a value"),
            (&["--vsock", "4294967295"], "vsock port"),
            (&["--vsock", "off", "--virtio-serial", "off"], "both off"),
            (&["--frobnicate"], "unknown argument"),
        ] {
            let error = parsed(arguments).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }
}
