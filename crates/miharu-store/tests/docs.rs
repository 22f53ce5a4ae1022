//! docs/reference/server-keys.md describes every server key that there is, with its default, and none that there is not.

use std::collections::BTreeMap;

use miharu_store::KEYS;

#[test]
fn every_key_is_described_with_its_default() {
    let page =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/server-keys.md"))
            .unwrap();
    let mut described = BTreeMap::new();
    for line in page.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let Some(key) = cells.get(1).and_then(|cell| cell.strip_prefix("[`")?.split('`').next()) else {
            continue;
        };
        let default = cells.get(3).copied().unwrap_or_default().trim_matches('`');
        described
            .insert(key.to_owned(), default.replace("not served", "").replace("tokens never expire", ""));
        assert!(page.contains(&format!("\n## `{key}`\n")), "{key} has no section");
    }
    let known: BTreeMap<String, String> =
        KEYS.iter().map(|key| (key.name.to_owned(), key.default.to_owned())).collect();
    assert_eq!(described, known, "docs/reference/server-keys.md on the left, the list of keys on the right");
}
