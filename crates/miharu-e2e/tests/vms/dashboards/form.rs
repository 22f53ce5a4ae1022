//! What a dashboard has to be before anything is asked: panels that lie beside one another, links that lead somewhere, variables
//! that exist, units that Grafana knows, and every family shown somewhere.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{dashboards, file, list, panels};

/// Families that no panel shows, and why.
const NOT_SHOWN: [(&str, &str); 2] = [
    ("memory_Active_bytes", "the sum of two that are shown"),
    ("memory_Inactive_bytes", "the sum of two that are shown"),
];

/// Units by the names that Grafana has for them, as far as they are used here. One that it does not know it writes behind the
/// number as a word.
const UNITS: [&str; 10] = [
    "none",
    "bytes",
    "binBps",
    "percentunit",
    "s",
    "iops",
    "pps",
    "reqps",
    "dateTimeAsIso",
    "dateTimeFromNow",
];

/// What Grafana fills in by itself.
const BUILT_IN: [&str; 6] = ["__all", "__rate_interval", "__url_time_range", "__value", "__field", "__data"];

fn names_of_variables(dashboard: &Value) -> BTreeSet<&str> {
    list(&dashboard["templating"], "list").iter().filter_map(|one| one["name"].as_str()).collect()
}

/// Everything that a `$` stands before.
fn used_variables(text: &str) -> BTreeSet<&str> {
    let after = text.split('$').skip(1).map(|rest| rest.strip_prefix('{').unwrap_or(rest));
    after
        .map(|rest| {
            &rest[..rest.find(|next: char| next != '_' && !next.is_alphanumeric()).unwrap_or(rest.len())]
        })
        .collect()
}

/// All objects within this one.
fn objects(value: &Value) -> Vec<&Value> {
    let children: Vec<&Value> = match value {
        Value::Array(children) => children.iter().collect(),
        Value::Object(children) => children.values().collect(),
        _ => Vec::new(),
    };
    let this = value.is_object().then_some(value);
    this.into_iter().chain(children.into_iter().flat_map(objects)).collect()
}

#[test]
fn every_panel_can_be_read() -> Result<()> {
    for (uid, dashboard) in dashboards()? {
        assert_eq!(dashboard["uid"], *uid);
        assert!(uid.len() <= 40 && dashboard["schemaVersion"].as_u64() >= Some(38), "{uid}");
        let tags = list(&dashboard, "tags");
        assert!(tags.contains(&"miharu".into()), "{uid}: {tags:?}");
        let mut ids = BTreeSet::new();
        for panel in panels(&dashboard) {
            let title = panel["title"].as_str().unwrap_or_default();
            let place = format!("{uid}: {title}");
            assert!(ids.insert(panel["id"].to_string()), "{place}: the id is taken");
            let description = panel["description"].as_str().unwrap_or_default();
            assert!(!title.is_empty() && description.len() > 10, "{place}");
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{place}");
            let targets = list(panel, "targets");
            assert!(!targets.is_empty(), "{place} asks nothing");
            let letters: BTreeSet<_> = targets.iter().filter_map(|one| one["refId"].as_str()).collect();
            assert_eq!(letters.len(), targets.len(), "{place}: two queries have one letter");

            let config = &panel["fieldConfig"];
            let own = config["defaults"]["unit"].as_str();
            assert!(own.is_some() || panel["type"] == "table", "{place} has no unit");
            let properties = list(config, "overrides").iter().flat_map(|one| list(one, "properties"));
            let of_columns = properties.filter(|one| one["id"] == "unit").map(|one| one["value"].as_str());
            for unit in own.map(Some).into_iter().chain(of_columns) {
                assert!(unit.is_some_and(|unit| UNITS.contains(&unit)), "{place}: {unit:?}");
            }
            // Columns and lines are named after the queries that they come from.
            let text = panel.to_string();
            let columns = text.split("Value #").skip(1).filter_map(|rest| rest.split('"').next());
            let matchers = list(config, "overrides").iter().map(|one| &one["matcher"]);
            let lines =
                matchers.filter(|one| one["id"] == "byFrameRefID").filter_map(|one| one["options"].as_str());
            for letter in columns.chain(lines) {
                assert!(letters.contains(letter), "{place}: there is no query {letter}");
            }
        }
    }
    Ok(())
}

#[test]
fn no_panel_lies_on_another() -> Result<()> {
    for (uid, dashboard) in dashboards()? {
        // The folded rows' panels lie where they come to lie when their row is opened, so that each list is looked at alone.
        let lists = std::iter::once(&dashboard).chain(list(&dashboard, "panels"));
        for panels in lists.map(|of| list(of, "panels")) {
            let mut cells = BTreeSet::new();
            for panel in panels {
                let edge = |what: &str| panel["gridPos"][what].as_u64().context("gridPos");
                let (left, top) = (edge("x")?, edge("y")?);
                let (right, bottom) = (left + edge("w")?, top + edge("h")?);
                for cell in (left..right).flat_map(|x| (top..bottom).map(move |y| (x, y))) {
                    ensure!(
                        cell.0 < 24 && cells.insert(cell),
                        "{uid}: {} lies on another panel",
                        panel["title"]
                    );
                }
            }
        }
    }
    Ok(())
}

#[test]
fn every_variable_is_there_and_used() -> Result<()> {
    for (uid, dashboard) in dashboards()? {
        let text = dashboard.to_string();
        let used: BTreeSet<_> =
            used_variables(&text).into_iter().filter(|name| !BUILT_IN.contains(name)).collect();
        assert_eq!(used, names_of_variables(&dashboard), "{uid}");
    }
    Ok(())
}

#[test]
fn every_link_leads_to_a_dashboard_that_takes_what_it_brings() -> Result<()> {
    let dashboards = dashboards()?;
    let mut seen = BTreeSet::new();
    for (uid, dashboard) in &dashboards {
        for object in objects(dashboard) {
            let Some(url) = object["url"].as_str() else { continue };
            let (path, query) = url.split_once('?').with_context(|| url.to_owned())?;
            let target = path.strip_prefix("/d/").and_then(|path| path.split('/').next()).unwrap_or_default();
            let (_, there) =
                dashboards.iter().find(|(uid, _)| *uid == target).with_context(|| url.to_owned())?;
            let there = names_of_variables(there);
            let mut keeps_time = object["keepTime"] == true;
            for part in query.split('&') {
                if part == "${__url_time_range}" {
                    keeps_time = true;
                    continue;
                }
                let carried = part.strip_prefix("${").and_then(|part| part.strip_suffix(":queryparam}"));
                let given = part.strip_prefix("var-").and_then(|part| part.split('=').next());
                let name = carried.or(given).with_context(|| format!("{uid}: {part} of {url}"))?;
                assert!(there.contains(name), "{uid}: {target} has no variable {name}: {url}");
            }
            assert!(keeps_time, "{uid}: the link forgets the time: {url}");
            for name in ["${datasource:queryparam}", "${prefix:queryparam}", "${job:queryparam}"] {
                assert!(query.contains(name), "{uid}: the link forgets {name}: {url}");
            }
            seen.insert((*uid, target.to_owned()));
        }
    }
    for way in [
        ("miharu-fleet", "miharu"),
        ("miharu-fleet", "miharu-instance"),
        ("miharu", "miharu-fleet"),
        ("miharu", "miharu-instance"),
        ("miharu-instance", "miharu"),
        ("miharu-instance", "miharu-fleet"),
    ] {
        assert!(seen.contains(&(way.0, way.1.to_owned())), "no way from {} to {}", way.0, way.1);
    }
    Ok(())
}

#[test]
fn every_family_is_shown() -> Result<()> {
    let text: String = dashboards()?.iter().map(|(_, dashboard)| dashboard.to_string()).collect();
    let families = file("docs/reference/metrics.md")?;
    let families = families.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` |"));
    let name = |text: &&str| {
        text.chars().all(|one| one == '_' || one.is_ascii_alphanumeric()) && !text.ends_with('_')
    };
    let families: Vec<_> = families.map(|(name, _)| name).filter(name).collect();
    assert!(families.len() > 80, "{families:?}");
    for family in families {
        let whole = |text: &str| !text.starts_with(|next: char| next == '_' || next.is_ascii_alphanumeric());
        let shown = text.match_indices(family).any(|(at, _)| whole(&text[at + family.len()..]));
        let reason = NOT_SHOWN.iter().find(|(name, _)| *name == family);
        assert_eq!(shown, reason.is_none(), "{family}: {reason:?}");
    }
    Ok(())
}
