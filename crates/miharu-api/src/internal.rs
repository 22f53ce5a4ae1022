//! `/internal`: what only the command line asks, on the unix socket alone.

use serde::{Deserialize, Serialize};

/// `POST /internal/renew-certificate`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CertificateRenewal {
    /// Names and addresses to be named beside those of the machine.
    pub san: Vec<String>,
}

/// Its answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RenewedCertificate {
    /// The new certificate, PEM.
    pub certificate: String,
    /// Its fingerprint: SHA-256 of its DER, in hexadecimal digits.
    pub fingerprint: String,
}

/// `GET /internal/build`: what the program that answers was built from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Build {
    /// The version.
    pub version: String,
    /// The commit, with a `+` behind it where files differed from it; empty where it is not known.
    pub commit: String,
    /// The compiler.
    pub rustc: String,
    /// What it was compiled for: the machine's architecture, the kernel, the C library.
    pub target: String,
    /// `release`, or `debug` for a development build.
    pub profile: String,
    /// Names and versions of libraries, with commas between.
    pub libraries: String,
}

/// `GET /internal/doctor`: what the daemon may do, what confines it, and what it finds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Diagnosis {
    /// What was looked at, in an order for people.
    pub checks: Vec<Check>,
}

/// One thing that was looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Check {
    /// What it belongs to: `rights`, `sandbox`, `limits`, `host`, `network`, `runtimes`, `daemon`.
    pub area: String,
    /// What was looked at.
    pub name: String,
    /// How it is.
    pub state: Finding,
    /// What was seen, for people.
    pub found: String,
    /// What it costs that it is so; empty where all is well.
    pub cost: String,
    /// What can be done about it; empty where all is well.
    pub remedy: String,
}

/// How something is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Finding {
    /// As it should be.
    Ok,
    /// Different from how the package has it, which may be meant so.
    Note,
    /// Something is missing that costs figures or safety.
    #[default]
    Missing,
}

/// The [`Build`] of the program that this is compiled into, from what its build script (`packaging/build-info.rs`) found out.
#[macro_export]
macro_rules! this_build {
    () => {
        $crate::Build {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            commit: env!("MIHARU_COMMIT").to_owned(),
            rustc: env!("MIHARU_RUSTC").to_owned(),
            target: env!("MIHARU_TARGET").to_owned(),
            profile: env!("MIHARU_PROFILE").to_owned(),
            libraries: env!("MIHARU_LIBRARIES").to_owned(),
        }
    };
}
