//! `miharu manual`: the man pages, from the definitions that `--help` is made of. Hidden, as only packages need it.

use std::path::PathBuf;

use clap::{Args, CommandFactory as _};

use crate::args::Cli;
use crate::error::Failure;

/// Where to.
#[derive(Debug, Args)]
pub(crate) struct ManualArgs {
    /// The folder; it has to exist
    folder: PathBuf,
}

/// Writes miharu.1 and a page for each command below it.
pub(crate) fn run(args: &ManualArgs) -> Result<(), Failure> {
    clap_mangen::generate_to(Cli::command(), &args.folder).map_err(|error| {
        Failure::request(format!("the man pages cannot be written to {}: {error}", args.folder.display()))
    })
}

#[cfg(test)]
mod tests {
    use crate::testing::Fake;

    #[test]
    fn every_command_has_a_page() {
        let folder = tempfile::tempdir().unwrap();
        let fake = Fake::start(vec![]);
        fake.miharu(&["manual", folder.path().to_str().unwrap()]).0.unwrap();
        for (page, word) in [
            ("miharu", "miharu\\-query"),
            ("miharu-list", "miharu list"),
            ("miharu-config-trust-add", "\\-\\-restricted"),
        ] {
            let text = std::fs::read_to_string(folder.path().join(format!("{page}.1"))).unwrap();
            assert!(text.contains(word), "{page} lacks {word}:\n{text}");
        }
        assert!(!folder.path().join("miharu-manual.1").exists(), "a hidden command has a page");
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let (result, _) = Fake::start(vec![]).miharu(&["manual", "/nowhere/at/all"]);
        let error = result.unwrap_err().to_string();
        assert!(error.contains("/nowhere/at/all"), "{error}");
    }
}
