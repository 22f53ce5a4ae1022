//! What the daemon may do, what confines it, and what it finds on its host: for `miharu admin doctor`.

mod host;
mod limits;
mod reach;
mod rights;

use miharu_api::{Check, Finding};
use miharu_collect::Roots;
use miharu_collect::host::Buffer;
use miharu_store::Settings;

use crate::warnings::Warnings;

/// What is looked at with.
pub(crate) struct Patient {
    pub(crate) roots: Roots,
    pub(crate) settings: Settings,
    pub(crate) warnings: Warnings,
    /// The runtime of each instance, where that could be told.
    pub(crate) runtimes: Option<Vec<String>>,
}

/// Looks at everything; to be done on a thread that may look at instances, as what is seen is what these see.
pub(crate) fn examine(patient: &Patient) -> Vec<Check> {
    let mut buffer = Buffer::new();
    let mut checks = rights::checks(patient, &mut buffer);
    checks.extend(limits::checks(patient, &mut buffer));
    checks.extend(host::checks(patient, &mut buffer));
    checks.extend(reach::checks(patient, &mut buffer));
    checks
}

fn ok(area: &str, name: impl Into<String>, found: impl Into<String>) -> Check {
    Check {
        area: area.to_owned(),
        name: name.into(),
        state: Finding::Ok,
        found: found.into(),
        ..Check::default()
    }
}

fn wrong(finding: Finding, check: Check, cost: &str, remedy: &str) -> Check {
    Check { state: finding, cost: cost.to_owned(), remedy: remedy.to_owned(), ..check }
}

#[cfg(test)]
mod tests;
