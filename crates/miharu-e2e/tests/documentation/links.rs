//! Every link leads somewhere, and the book has every page.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};

use crate::pages::{self, Page};

#[test]
fn every_link_leads_somewhere() {
    let pages = pages::all();
    let anchors: BTreeMap<&Path, &[String]> =
        pages.iter().map(|page| (page.path.as_path(), page.anchors.as_slice())).collect();
    let wrong: Vec<String> = pages
        .iter()
        .flat_map(|page| page.links.iter().filter_map(|link| broken(page, link, &anchors)))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What is wrong with a link, if anything is.
fn broken(page: &Page, link: &str, anchors: &BTreeMap<&Path, &[String]>) -> Option<String> {
    let wrong = |why: &str| Some(format!("{}: {link}: {why}", page.path.display()));
    if link.contains("://") {
        // Whether anybody answers there is not asked: a test needs no network.
        let sound = link.parse::<http::Uri>().is_ok_and(|uri| {
            uri.scheme_str() == Some("https") && uri.host().is_some_and(|host| host.contains('.'))
        });
        return if sound { None } else { wrong("no address of the web with https") };
    }
    let (path, anchor) = link.split_once('#').map_or((link, None), |(path, anchor)| (path, Some(anchor)));
    let target =
        if path.is_empty() { page.path.clone() } else { normal(&page.path.parent().unwrap().join(path)) };
    if page.path.starts_with("docs") && !target.starts_with("docs") {
        return wrong("leaves docs/, which the book does not");
    }
    if !pages::top().join(&target).is_file() {
        return wrong("there is no such file");
    }
    let known = anchors.get(target.as_path());
    match anchor {
        Some(anchor) if !known.is_some_and(|known| known.iter().any(|one| one == anchor)) => {
            wrong("there is no such heading")
        }
        _ => None,
    }
}

/// A path without `.` and `..`.
fn normal(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut so_far, part| {
        match part {
            Component::ParentDir => drop(so_far.pop()),
            Component::CurDir => {}
            part => so_far.push(part),
        }
        so_far
    })
}

#[test]
fn the_book_has_every_page_once() {
    let mut listed = pages::read(&pages::top().join("docs/SUMMARY.md")).links;
    listed.sort();
    let mut pages: Vec<String> = pages::all()
        .iter()
        .filter_map(|page| Some(page.path.strip_prefix("docs").ok()?.to_str()?.to_owned()))
        .collect();
    pages.sort();
    assert_eq!(listed, pages, "docs/SUMMARY.md on the left, the pages that there are on the right");
}

#[test]
fn every_page_has_one_title() {
    for page in pages::all() {
        let titles = page.levels.iter().filter(|level| **level == 1).count();
        assert!(titles == 1 && page.levels[0] == 1, "{}: {:?}", page.path.display(), page.levels);
    }
}

/// What programs say, and what other files point at.
#[test]
fn every_page_that_is_mentioned_is_there() {
    let mut files = Vec::new();
    for folder in ["crates", "dashboards", "docs", "packaging", "scripts"] {
        pages::below(&pages::top().join(folder), &mut files);
    }
    for file in ["ARCHITECTURE.md", "Makefile", "README.ja.md", "README.md"] {
        files.push(pages::top().join(file));
    }
    let mut mentions = 0;
    for file in files {
        // Whatever is no text mentions nothing.
        let Ok(text) = fs::read_to_string(&file) else { continue };
        for (at, _) in text.match_indices("docs/") {
            let before = &text[..at];
            if before.ends_with(|c: char| c.is_alphanumeric() || ".-/".contains(c))
                && !before.ends_with("../")
            {
                continue;
            }
            let end = text[at..].find(|c: char| !c.is_ascii_alphanumeric() && !"-_./".contains(c));
            let path = text[at..end.map_or(text.len(), |end| at + end)].trim_end_matches('.');
            if path.ends_with(".md") {
                mentions += 1;
                assert!(pages::top().join(path).is_file(), "{}: {path} is not there", file.display());
            }
        }
    }
    assert!(mentions > 40, "{mentions}");
}

/// A picture that is not in the repository is named by a comment, which `make book` reads in this form alone.
#[test]
fn every_picture_is_named_as_the_book_reads_it() {
    let mut files = Vec::new();
    pages::below(&pages::top().join("docs"), &mut files);
    let texts = files.iter().filter_map(|file| Some((file, fs::read_to_string(file).ok()?)));
    for (file, text) in texts {
        for line in text.lines().filter(|line| line.contains("<!-- picture")) {
            let inner = line.strip_prefix("<!-- picture: ").and_then(|rest| rest.strip_suffix(" -->"));
            let parts = inner.and_then(|inner| inner.split_once(": "));
            let sound = parts.is_some_and(|(name, what)| {
                let (stem, kind) = name.rsplit_once('.').unwrap_or_default();
                let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
                stem.chars().all(plain) && ["svg", "png"].contains(&kind) && !what.trim().is_empty()
            });
            assert!(sound, "{}: {line}", file.display());
        }
    }
}
