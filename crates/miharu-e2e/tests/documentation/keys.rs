//! The server keys that the pages set are there, and take what the pages give them.

use miharu_store::keys;

use crate::pages;

#[test]
fn every_key_that_a_page_sets_takes_its_value() {
    let mut settings = 0;
    for page in pages::all() {
        for line in &page.code {
            let Some((_, rest)) = line.split_once("miharu config set ") else { continue };
            // What follows two spaces or a sign of the shell is no part of the command.
            let command = rest.split(['#', '|', ';', ')']).next().unwrap().split("  ").next().unwrap();
            let words: Vec<&str> =
                command.split_whitespace().map(|word| word.trim_matches(['"', '\''])).collect();
            let pairs: Vec<(&str, &str)> = match words.as_slice() {
                [key, value] if !key.contains('=') => vec![(key, value)],
                pairs => pairs.iter().filter_map(|pair| pair.split_once('=')).collect(),
            };
            for (name, value) in pairs {
                // KEY and VALUE stand for any, and so does how the reference writes them.
                let any = name.chars().all(|c| c.is_ascii_uppercase() || "[]<>.".contains(c));
                if any || keys::is_user_key(name) {
                    continue;
                }
                settings += 1;
                let place = format!("{}: {line}", page.path.display());
                let key = keys::find(name).unwrap_or_else(|| panic!("{place}: there is no key {name}"));
                if !value.contains('…') && !value.is_empty() {
                    key.normalise(value).unwrap_or_else(|why| panic!("{place}: {why}"));
                }
            }
        }
    }
    assert!(settings > 5, "{settings}");
}
