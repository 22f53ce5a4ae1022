//! Certificates made as the Incus page says, and requests over TLS with them.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::miharud::Reply;
use crate::{scratch, shell};

/// A client certificate and its key, as files.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// The certificate, PEM.
    pub crt: PathBuf,
    /// The key, PEM.
    pub key: PathBuf,
}

impl Certificate {
    /// Makes `NAME.crt` and `NAME.key` in a new folder with the very line of the Incus page.
    ///
    /// # Errors
    /// When openssl cannot.
    pub fn create(name: &str) -> Result<Self> {
        Self::create_in(&scratch::dir("tls")?, name)
    }

    /// As [`Certificate::create`], in a given folder.
    ///
    /// # Errors
    /// When openssl cannot.
    pub fn create_in(dir: &Path, name: &str) -> Result<Self> {
        let line = openssl_line(name);
        shell::output(Command::new("/bin/sh").args(["-c", &line]).current_dir(dir))?;
        Ok(Self { crt: dir.join(format!("{name}.crt")), key: dir.join(format!("{name}.key")) })
    }

    /// Makes one whose validity ended years ago.
    ///
    /// # Errors
    /// When openssl cannot.
    pub fn expired(name: &str) -> Result<Self> {
        let dir = scratch::dir("tls")?;
        let config = "[ca]\ndefault_ca=d\n[d]\ndatabase=index\nnew_certs_dir=.\nrand_serial=yes\npolicy=p\n[p]\ncommonName=supplied\n";
        std::fs::write(dir.join("index"), "")?;
        std::fs::write(dir.join("config"), config)?;
        let line = format!(
            "openssl req -newkey ec -pkeyopt ec_paramgen_curve:secp384r1 -nodes -keyout {name}.key -out {name}.csr -subj /CN=metrics.local && \
             openssl ca -batch -selfsign -config config -in {name}.csr -keyfile {name}.key -md sha384 -notext -out {name}.crt \
             -startdate 20200101000000Z -enddate 20210101000000Z"
        );
        shell::output(Command::new("/bin/sh").args(["-c", &line]).current_dir(&dir))?;
        Ok(Self { crt: dir.join(format!("{name}.crt")), key: dir.join(format!("{name}.key")) })
    }

    /// The fingerprint, as the trust store shows it: SHA-256 of the DER in lower case hex digits.
    ///
    /// # Errors
    /// When openssl cannot read the file.
    pub fn fingerprint(&self) -> Result<String> {
        let args = ["x509", "-noout", "-fingerprint", "-sha256", "-in"].map(std::ffi::OsStr::new);
        let text = shell::run("openssl", args.into_iter().chain([self.crt.as_os_str()]))?;
        let (_, digits) = text.trim().split_once('=').context("no fingerprint")?;
        Ok(digits.replace(':', "").to_ascii_lowercase())
    }

    /// The DER in base64 on one line, as the REST API takes it.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn base64(&self) -> Result<String> {
        let pem = std::fs::read_to_string(&self.crt)?;
        Ok(pem.lines().filter(|line| !line.starts_with("-----")).collect())
    }
}

/// The line of the Incus page, which makes `NAME.crt` and `NAME.key`.
#[must_use]
pub fn openssl_line(name: &str) -> String {
    format!(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:secp384r1 -sha384 -keyout {name}.key -nodes -out {name}.crt \
         -days 3650 -subj \"/CN=metrics.local\""
    )
}

/// Asks an HTTPS listener with curl, trusting only `server`, the server's own certificate.
///
/// # Errors
/// When there is no answer at all.
pub fn ask(
    address: &str,
    path: &str,
    server: &Path,
    client: Option<&Certificate>,
    args: &[&str],
) -> Result<Reply> {
    let mut command = Command::new("curl");
    command
        .args(["--silent", "--show-error", "--include", "--http1.1", "--max-time", "30", "--cacert"])
        .arg(server);
    if let Some(client) = client {
        command.arg("--cert").arg(&client.crt).arg("--key").arg(&client.key);
    }
    command.args(args).arg(format!("https://{address}{path}"));
    let out = command.output().context("curl")?;
    if !out.status.success() {
        anyhow::bail!("{command:?}: {}", String::from_utf8_lossy(&out.stderr).trim());
    }
    Reply::parse(&out.stdout)
}
