//! The tutorial and the how-to are there in Japanese too, part by part.

use std::path::Path;

use crate::pages::{self, Page};

#[test]
fn tutorial_and_how_to_are_in_japanese_too() {
    let pages = pages::all();
    let mut seen = 0;
    let mut wrong = Vec::new();
    for page in &pages {
        let path = page.path.to_str().unwrap();
        let due = ["README.md", "docs/introduction.md", "docs/tutorial/", "docs/how-to/"];
        if path.ends_with(".ja.md") || !due.iter().any(|start| path.starts_with(start)) {
            continue;
        }
        seen += 1;
        let japanese = path.replace(".md", ".ja.md");
        let Some(translation) = pages.iter().find(|page| page.path == Path::new(&japanese)) else {
            wrong.push(format!("{path} has no {japanese}"));
            continue;
        };
        // Who adds a part to one of them is told of the other; whether it says the same only a reader can see.
        if page.levels != translation.levels {
            wrong.push(format!("{path}: headings {:?}, in Japanese {:?}", page.levels, translation.levels));
        }
        if page.blocks != translation.blocks {
            wrong
                .push(format!("{path}: code blocks {:?}, in Japanese {:?}", page.blocks, translation.blocks));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(seen > 8, "{seen}");
}

#[test]
fn translations_point_at_each_other() {
    let pages = pages::all();
    for page in pages.iter().filter(|page| page.path.to_str().unwrap().ends_with(".ja.md")) {
        let english = page.path.to_str().unwrap().replace(".ja.md", ".md");
        let english = pages.iter().find(|page| page.path == Path::new(&english)).unwrap();
        for (one, other) in [(page, english), (english, page)] {
            let name = other.path.file_name().unwrap().to_str().unwrap();
            assert!(first_links(one).any(|link| link == name), "{} lacks {name}", one.path.display());
        }
    }
}

/// The links with which a page begins.
fn first_links(page: &Page) -> impl Iterator<Item = &str> {
    page.links.iter().take(8).map(String::as_str)
}
