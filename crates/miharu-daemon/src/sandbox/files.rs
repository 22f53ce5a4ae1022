//! Where files may be changed, by landlock(7).

use std::path::Path;

use anyhow::Context;
use landlock::{
    ABI, AccessFs, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetStatus, Scope,
};

use super::Outcome;

/// Lets the calling thread, and those that it starts, change files below the state directory alone, and signal nobody outside.
/// Reading is left as it is, and so are mode and owner of files, which Landlock knows no right for; nobody may change their times and
/// attributes ([`super::calls`]).
pub(super) fn confine(dir: &Path) -> anyhow::Result<Outcome> {
    // Connecting to sockets would be the next right of later kernels; the threads that answer connect to the service manager.
    let writes = AccessFs::from_write(ABI::V3);
    let state = PathFd::new(dir).with_context(|| dir.display().to_string())?;
    let done = Ruleset::default()
        .handle_access(writes | AccessFs::Execute)?
        .scope(Scope::Signal)?
        .create()?
        .add_rule(PathBeneath::new(state, writes))?
        .restrict_self()?;
    Ok(match done.ruleset {
        RulesetStatus::FullyEnforced => Outcome::InForce,
        RulesetStatus::PartiallyEnforced => Outcome::Partly,
        RulesetStatus::NotEnforced => {
            Outcome::Not("this kernel has no Landlock, or it was started without".to_owned())
        }
    })
}
