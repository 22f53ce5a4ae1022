//! `miharu manual`: the man pages, from the definitions that `--help` is made of. Hidden, as only packages need it.

use std::path::{Path, PathBuf};
use std::{fs, io};

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
    clap_mangen::generate_to(Cli::command(), &args.folder)
        .and_then(|()| keep_tables_of_all(&args.folder))
        .map_err(|error| {
            Failure::request(format!("the man pages cannot be written to {}: {error}", args.folder.display()))
        })
}

fn keep_tables_of_all(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("miharu") && name.ends_with(".1") {
            fs::write(&path, keep_tables(&fs::read_to_string(&path)?))?;
        }
    }
    Ok(())
}

/// What stands below the options is text to troff, which fills lines anew and stretches the blanks in them. Examples and tables are
/// the lines that begin with a blank: they stay as they are, at the margin, where they fit into 80 columns.
fn keep_tables(page: &str) -> String {
    let mut text = String::with_capacity(page.len() + 64);
    let (mut below, mut kept) = (false, false);
    for line in page.lines() {
        below |= line == ".SH EXTRA";
        let keep = below && line.starts_with(' ');
        if keep != kept {
            text.push_str(if keep { ".nf\n.in 0\n" } else { ".in\n.fi\n" });
        }
        kept = keep;
        text.push_str(line);
        text.push('\n');
    }
    if kept {
        text.push_str(".in\n.fi\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::keep_tables;
    use crate::testing::Fake;

    #[test]
    fn tables_are_not_filled() {
        let page = ".SH OPTIONS\n  x\n.SH EXTRA\nExamples:\n  a  b\n  c  d\n\nWords.\n  e\n";
        let kept = ".SH OPTIONS\n  x\n.SH EXTRA\nExamples:\n.nf\n.in 0\n  a  b\n  c  d\n.in\n.fi\n\nWords.\n\
                    .nf\n.in 0\n  e\n.in\n.fi\n";
        assert_eq!(keep_tables(page), kept);
    }

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
