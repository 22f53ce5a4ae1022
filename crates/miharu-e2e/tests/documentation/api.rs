//! The page on the API has every route that the daemon has, and none that it has not.

use std::collections::BTreeSet;
use std::fs;

use crate::pages;

#[test]
fn the_api_page_has_every_route() {
    let file = |path: &str| fs::read_to_string(pages::top().join(path)).unwrap();
    let routes = file("crates/miharu-daemon/src/routes.rs");
    let served: BTreeSet<&str> = routes
        .split(".route(\"")
        .skip(1)
        .map(|rest| rest.split('"').next().unwrap())
        // What is only refused, and what the page tells in a line for all types of instances.
        .filter(|path| !path.contains("{*rest}") && *path != "/1.0/cluster/groups")
        .filter(|path| !path.ends_with('}') && !path.ends_with("/state") || !is_of_one_type(path))
        .collect();
    let page = file("docs/reference/api.md");
    let cells = page.lines().filter(|line| line.starts_with("| `")).filter_map(|row| row.split('|').nth(1));
    // Another table of the page lists figures.
    let words = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    let told: BTreeSet<&str> = words.filter(|word| word.starts_with('/')).collect();
    assert_eq!(served, told, "the routes on the left, docs/reference/api.md on the right");
}

fn is_of_one_type(path: &str) -> bool {
    ["/1.0/containers/", "/1.0/virtual-machines/"].iter().any(|start| path.starts_with(start))
}
