//! The pages, read as mdBook reads them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

/// One page.
pub(crate) struct Page {
    /// Where it is, from the top of the repository.
    pub(crate) path: PathBuf,
    /// The level of each heading, in their order.
    pub(crate) levels: Vec<usize>,
    /// What can be pointed at in it.
    pub(crate) anchors: Vec<String>,
    /// Where its links and pictures point.
    pub(crate) links: Vec<String>,
    /// What its code blocks are written in, in their order; nothing of indented ones.
    pub(crate) blocks: Vec<String>,
    /// Lines of code blocks, and what stands between backticks.
    pub(crate) code: Vec<String>,
}

/// The top of the repository.
pub(crate) fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Every page for people, SUMMARY.md left out.
pub(crate) fn all() -> Vec<Page> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(top()).unwrap() {
        paths
            .extend(Some(entry.unwrap().path()).filter(|path| path.extension().is_some_and(|it| it == "md")));
    }
    below(&top().join("docs"), &mut paths);
    paths.retain(|path| path.extension().is_some_and(|it| it == "md") && !path.ends_with("SUMMARY.md"));
    paths.sort();
    assert!(paths.len() > 25, "{paths:?}");
    paths.iter().map(|path| read(path)).collect()
}

/// Every file below a folder.
pub(crate) fn below(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() && entry.file_name() != "target" {
            below(&entry.path(), files);
        } else if kind.is_file() {
            files.push(entry.path());
        }
    }
}

/// Reads one page.
pub(crate) fn read(path: &Path) -> Page {
    let text = fs::read_to_string(path).unwrap();
    let mut page = Page {
        path: path.strip_prefix(top()).unwrap().to_owned(),
        levels: Vec::new(),
        anchors: Vec::new(),
        links: Vec::new(),
        blocks: Vec::new(),
        code: Vec::new(),
    };
    let mut seen = BTreeMap::new();
    let mut heading = None;
    let mut in_block = false;
    for event in Parser::new_ext(&text, Options::ENABLE_TABLES) {
        match event {
            Event::Start(Tag::Heading { level, .. }) => {
                page.levels.push(level as usize);
                heading = Some(String::new());
            }
            Event::End(TagEnd::Heading(_)) => {
                let name = anchor(&heading.take().unwrap());
                let times: &mut usize = seen.entry(name.clone()).or_default();
                page.anchors.push(if *times == 0 { name } else { format!("{name}-{times}") });
                *times += 1;
            }
            Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                page.links.push(dest_url.into_string());
            }
            Event::Start(Tag::CodeBlock(kind)) => {
                in_block = true;
                page.blocks.push(match kind {
                    CodeBlockKind::Fenced(language) => language.into_string(),
                    CodeBlockKind::Indented => String::new(),
                });
            }
            Event::End(TagEnd::CodeBlock) => in_block = false,
            Event::Code(code) => {
                heading.iter_mut().for_each(|heading| heading.push_str(&code));
                page.code.push(code.into_string());
            }
            Event::Text(words) if in_block => page.code.extend(words.lines().map(str::to_owned)),
            Event::Text(words) => heading.iter_mut().for_each(|heading| heading.push_str(&words)),
            _ => {}
        }
    }
    page
}

/// What GitHub and mdBook make of a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().chars().filter_map(|c| match c {
        c if c.is_alphanumeric() || "_-".contains(c) => Some(c),
        c if c.is_whitespace() => Some('-'),
        _ => None,
    });
    kept.collect::<String>().to_lowercase()
}
