//! What the server tells of the machine that it runs on.

use std::net::IpAddr;
use std::path::Path;

use miharu_collect::Roots;

/// Addresses that a certificate names: a host of many bridges does not make it too large for a handshake.
const ADDRESS_LIMIT: usize = 64;

/// The machine, as of the daemon's start.
#[derive(Debug, Clone, Default)]
pub(crate) struct Machine {
    pub(crate) name: String,
    pub(crate) kernel: String,
    pub(crate) kernel_version: String,
    pub(crate) architecture: String,
    pub(crate) os_name: String,
    pub(crate) os_version: String,
}

impl Machine {
    pub(crate) fn read(roots: &Roots) -> Self {
        let uname = rustix::system::uname();
        let text = |field: &std::ffi::CStr| field.to_string_lossy().into_owned();
        let release = roots.host_path(Path::new("/etc/os-release"));
        let release = release.and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
        Self {
            name: text(uname.nodename()),
            kernel: text(uname.sysname()),
            kernel_version: text(uname.release()),
            architecture: text(uname.machine()),
            os_name: os_release(&release, "NAME"),
            os_version: os_release(&release, "VERSION_ID"),
        }
    }

    /// The names of the architectures that it runs, its own first.
    pub(crate) fn architectures(&self) -> Vec<String> {
        let compatible = match self.architecture.as_str() {
            "x86_64" => Some("i686"),
            "aarch64" => Some("armv7l"),
            _ => None,
        };
        std::iter::once(self.architecture.as_str()).chain(compatible).map(str::to_owned).collect()
    }

    /// What a certificate for this machine is to name: its name, its full name, and the addresses that it has now, so
    /// that most clients need no `server_name`.
    pub(crate) fn certificate_names(&self, addresses: &[IpAddr]) -> Vec<String> {
        let mut names = vec![self.name.clone()];
        let hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
        names.extend(full_name(&hosts, &self.name));
        names.extend(["localhost", "127.0.0.1", "::1"].map(str::to_owned));
        names.extend(addresses.iter().take(ADDRESS_LIMIT).map(IpAddr::to_string));
        let valid = |name: &String| !name.is_empty() && name.is_ascii();
        let mut seen = std::collections::BTreeSet::new();
        names.into_iter().filter(|name| valid(name) && seen.insert(name.clone())).collect()
    }
}

/// A field of os-release(5).
fn os_release(text: &str, field: &str) -> String {
    let values = text.lines().filter_map(|line| line.strip_prefix(field)?.strip_prefix('='));
    values.map(|value| value.trim_matches(['"', '\'']).to_owned()).next().unwrap_or_default()
}

/// The full name of a host in hosts(5): a name on one of its lines that goes on with a dot.
fn full_name(hosts: &str, name: &str) -> Option<String> {
    let lines = hosts.lines().map(|line| line.split('#').next().unwrap_or_default());
    let of_host = lines.filter(|line| line.split_whitespace().skip(1).any(|alias| alias == name));
    let mut full = of_host
        .flat_map(|line| line.split_whitespace().skip(1))
        .filter(|alias| alias.strip_prefix(name).is_some_and(|rest| rest.len() > 1 && rest.starts_with('.')));
    full.next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn os_release_is_read_with_and_without_quotes() {
        let text = "PRETTY_NAME=\"Debian GNU/Linux 12\"\nNAME=\"Debian GNU/Linux\"\nVERSION_ID=12\n";
        assert_eq!(os_release(text, "NAME"), "Debian GNU/Linux");
        assert_eq!(os_release(text, "VERSION_ID"), "12");
        assert_eq!(os_release(text, "ID"), "");
    }

    #[test]
    fn a_certificate_names_each_address_once() {
        let machine = Machine { name: "web".to_owned(), ..Machine::default() };
        let addresses = ["127.0.0.1", "10.0.0.2"].map(|text| text.parse().unwrap());
        let names = machine.certificate_names(&addresses);
        assert_eq!(names.first().map(String::as_str), Some("web"));
        assert_eq!(names.iter().filter(|name| *name == "127.0.0.1").count(), 1);
        assert!(names.contains(&"10.0.0.2".to_owned()));
    }

    #[test]
    fn the_full_name_is_the_one_of_this_host() {
        let hosts = "127.0.0.1 localhost\n10.0.0.2 web.example.org web # web.evil\n10.0.0.3 website.example.org website\n";
        assert_eq!(full_name(hosts, "web").as_deref(), Some("web.example.org"));
        assert_eq!(full_name(hosts, "localhost"), None);
    }
}
