//! The pages and this command line agree: each `miharu …` that a page shows can be typed, and docs/reference/command-line.md is
//! what `--help` says. `make references` writes that page anew.

mod page;

use std::fs;
use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser as _};
use pulldown_cmark::{Event, Parser, Tag, TagEnd};

use crate::args::Cli;

const TOP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// Every page for people.
fn pages() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![Path::new(TOP).join("docs")];
    let mut files: Vec<PathBuf> = fs::read_dir(TOP).unwrap().map(|entry| entry.unwrap().path()).collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    found.extend(files.into_iter().filter(|path| path.extension().is_some_and(|it| it == "md")));
    assert!(found.len() > 25, "{found:?}");
    found
}

/// Where code stands in a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In a block, to be typed.
    Block,
    /// In a sentence, which may speak of a command without what it takes.
    Sentence,
}

/// The code of a page: each line of its blocks, and what stands between backticks.
fn code(page: &str) -> Vec<(Place, String)> {
    let mut lines = Vec::new();
    let mut in_block = false;
    for event in Parser::new_ext(page, pulldown_cmark::Options::ENABLE_TABLES) {
        match event {
            Event::Start(Tag::CodeBlock(_)) => in_block = true,
            Event::End(TagEnd::CodeBlock) => in_block = false,
            // The events of one block may end in the middle of it, but never in the middle of a line. A line that ends in a
            // backslash goes on in the next.
            Event::Text(text) if in_block => {
                lines.extend(text.replace("\\\n", " ").lines().map(|line| (Place::Block, line.to_owned())));
            }
            // In a table a bar is written with a backslash.
            Event::Code(text) => lines.push((Place::Sentence, text.replace("\\|", "|"))),
            _ => {}
        }
    }
    lines
}

/// The words after `miharu` of each command that a line of code shows. Commands of the Incus and LXD clients count where there is
/// one of ours by that name, as an alias makes them ours.
fn commands(line: &str) -> Vec<Vec<String>> {
    let ours = Cli::command();
    let mut found = Vec::new();
    // A shell's signs end a command; so do two spaces, after which pages say what it does.
    let line = line.trim_start_matches("$ ");
    for part in
        line.split(['|', ';', '&', '(', ')', '<', '>']).flat_map(|part| part.trim().split("  ").next())
    {
        let Some(words) = shlex::split(part) else { continue };
        let assigns = |word: &&String| {
            word.split_once('=')
                .is_some_and(|(name, _)| name.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
        };
        let mut words = words.iter().skip_while(|word| assigns(word) || *word == "sudo").cloned();
        let program = words.next().unwrap_or_default();
        let words: Vec<String> = words.collect();
        // What is left out is left to the reader, and the line that says how a command is used is clap's own.
        let left_out =
            |word: &String| word.contains('…') || word.contains("...") || word.starts_with("[OPTIONS");
        if words.is_empty() || words.iter().any(left_out) {
            continue;
        }
        let known = |name: &String| ours.find_subcommand(name).is_some();
        match program.as_str() {
            "miharu" => found.push(words),
            "incus" | "lxc" if words.first().is_some_and(known) && !part.contains("_DIR=") => {
                found.push(words)
            }
            _ => {}
        }
    }
    found
}

#[test]
fn what_the_pages_show_can_be_typed() {
    let mut typed = 0;
    let mut wrong = Vec::new();
    for page in pages() {
        for (place, line) in code(&fs::read_to_string(&page).unwrap()) {
            for words in commands(&line) {
                typed += 1;
                let parsed = Cli::try_parse_from(std::iter::once("miharu".to_owned()).chain(words));
                let Err(error) = parsed else { continue };
                let helps = matches!(
                    error.kind(),
                    ErrorKind::DisplayHelp
                        | ErrorKind::DisplayVersion
                        // A group of commands named for itself, as in "see `miharu config trust`".
                        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
                );
                let mentioned =
                    place == Place::Sentence && error.kind() == ErrorKind::MissingRequiredArgument;
                if !helps && !mentioned {
                    let error = error.to_string();
                    let reason = error.lines().next().unwrap_or_default();
                    wrong.push(format!("{}: {line}: {reason}", page.strip_prefix(TOP).unwrap().display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(typed > 100, "{typed}");
}

#[test]
fn the_reference_says_what_the_help_says() {
    let path = Path::new(TOP).join("docs/reference/command-line.md");
    let made = page::markdown(Cli::command());
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        return fs::write(path, made).unwrap();
    }
    let page = fs::read_to_string(path).unwrap();
    let differing = page.lines().zip(made.lines()).find(|(page, made)| page != made);
    assert!(
        page == made,
        "docs/reference/command-line.md is not what --help says, `make references` writes it; first: {differing:?}"
    );
}
