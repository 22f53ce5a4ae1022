//! docs/reference/metrics.md describes every family that there is, with its type, and none that there is not.

use std::collections::BTreeMap;

use miharu_metrics::{FAMILIES, Prefix};

#[test]
fn every_family_is_described_with_its_type() {
    let page =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/metrics.md"))
            .unwrap();
    let mut described = BTreeMap::new();
    for line in page.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let Some(name) = cells.get(1).and_then(|cell| cell.strip_prefix('`')?.strip_suffix('`')) else {
            continue;
        };
        if cells.len() > 4 && matches!(cells[2], "counter" | "gauge") {
            assert!(
                described.insert(name.to_owned(), cells[2].to_owned()).is_none(),
                "{name} is described twice"
            );
        }
    }
    let served: BTreeMap<String, String> = FAMILIES
        .iter()
        .map(|family| {
            let name = family.name(Prefix::Incus);
            let name = name.strip_prefix("incus_").unwrap_or(&name).to_owned();
            (name, family.metric_type().as_str().to_owned())
        })
        .collect();
    assert_eq!(described, served, "docs/reference/metrics.md on the left, the family list on the right");
}
