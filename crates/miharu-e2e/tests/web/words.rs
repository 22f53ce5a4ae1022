//! The page's own words: each language has every key, each key is used, and each that is used is there. No browser is needed.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

const LANGUAGES: [&str; 2] = ["en", "ja"];

fn ui() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../miharu-daemon/ui")
}

/// Key and words of each line `'KEY': 'WORDS',`.
fn words(language: &str) -> Result<Vec<(String, String)>> {
    let text = fs::read_to_string(ui().join(format!("words/{language}.js")))?;
    let lines = text.lines().filter_map(|line| {
        let (key, words) = line.strip_prefix("  '")?.split_once("': '")?;
        Some((key.to_owned(), words.strip_suffix("',").context(line.to_owned()).map(ToOwned::to_owned)))
    });
    lines.map(|(key, words)| Ok((key, words?))).collect()
}

/// The page without its words.
fn code() -> Result<String> {
    let mut code = fs::read_to_string(ui().join("index.html"))?;
    for file in fs::read_dir(ui().join("js"))? {
        code += &fs::read_to_string(file?.path())?;
    }
    Ok(code)
}

/// What stands in braces.
fn values(words: &str) -> BTreeSet<&str> {
    words.split('{').skip(1).filter_map(|rest| rest.split_once('}')).map(|(name, _)| name).collect()
}

#[test]
fn every_language_says_the_same_things_with_the_same_values() -> Result<()> {
    let first = words(LANGUAGES[0])?;
    assert!(first.len() > 100, "{}", first.len());
    let keys: BTreeSet<_> = first.iter().map(|(key, _)| key).collect();
    assert_eq!(keys.len(), first.len(), "a key is there twice");
    for language in &LANGUAGES[1..] {
        let other = words(language)?;
        assert_eq!(
            first.iter().map(|(key, _)| key).collect::<Vec<_>>(),
            other.iter().map(|(key, _)| key).collect::<Vec<_>>(),
            "{language}"
        );
        for ((key, one), (_, two)) in first.iter().zip(&other) {
            assert_eq!(values(one), values(two), "{language} {key}");
            assert!(!two.is_empty(), "{language} {key}");
        }
    }
    Ok(())
}

#[test]
fn every_key_is_used_and_every_one_that_is_used_is_there() -> Result<()> {
    let code = code()?;
    let known: BTreeSet<String> = words("en")?.into_iter().map(|(key, _)| key).collect();
    let unused: Vec<_> = known
        .iter()
        .filter(|key| !code.contains(&format!("'{key}'")) && !code.contains(&format!("\"{key}\"")))
        .collect();
    assert!(unused.is_empty(), "{unused:?}");
    let mut used = BTreeSet::new();
    for marker in ["t('", "data-t=\"", "data-t-label=\"", " label: '", " title: 'chart.", " title: 'column."]
    {
        for (at, _) in code.match_indices(marker) {
            // `get('` and the like are no calls of `t`.
            let before = code[..at].chars().next_back().unwrap_or(' ');
            if marker == "t('" && (before.is_alphanumeric() || "_.".contains(before)) {
                continue;
            }
            let start = at + marker.find(['\'', '"']).unwrap_or_default() + 1;
            used.insert(code[start..].split(['\'', '"']).next().unwrap_or_default());
        }
    }
    assert!(used.len() > 100, "{used:?}");
    let lacking: Vec<_> = used.iter().filter(|key| !known.contains(**key)).collect();
    assert!(lacking.is_empty(), "{lacking:?}");
    Ok(())
}

#[test]
fn no_code_makes_markup_of_text() -> Result<()> {
    let code = code()?;
    for word in [
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "new Function",
        "javascript:",
    ] {
        assert!(!code.contains(word), "{word}");
    }
    let index = fs::read_to_string(ui().join("index.html"))?;
    assert!(
        !index.contains(" style=") && !index.contains("<style") && !index.contains(" onclick"),
        "{index}"
    );
    assert!(!index.contains("//cdn") && !index.contains("https://"), "nothing comes from elsewhere");
    Ok(())
}
