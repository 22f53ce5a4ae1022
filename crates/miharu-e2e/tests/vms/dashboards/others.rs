//! Dashboards of others, such as the public ones for Incus and LXD, which are not ours to keep here: every JSON file in the folder
//! that `MIHARU_DASHBOARDS` names is held to the same, as far as it asks for the prefix that is served. Not set, nothing is done.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use miharu_e2e::prometheus::Prometheus;
use serde_json::Value;

use super::{list, panels};

/// Adds what they ask. They choose one project, so that each instance is asked for in its own.
pub(super) fn add_questions(
    prometheus: &Prometheus,
    prefix: &str,
    questions: &mut BTreeMap<String, Vec<String>>,
) -> Result<()> {
    let Some(dir) = std::env::var_os("MIHARU_DASHBOARDS") else { return Ok(()) };
    let instances = prometheus.query(&format!("{prefix}_instance_info"))?;
    for entry in fs::read_dir(&dir).with_context(|| Path::new(&dir).display().to_string())? {
        let path = entry?.path();
        if path.extension().is_none_or(|end| end != "json") {
            continue;
        }
        let dashboard: Value =
            serde_json::from_str(&fs::read_to_string(&path)?).with_context(|| path.display().to_string())?;
        for panel in
            panels(&dashboard).into_iter().filter(|panel| panel["datasource"]["type"] == "prometheus")
        {
            for target in list(panel, "targets") {
                let expression = target["expr"].as_str().context("expr")?;
                if !expression.contains(&format!("{prefix}_")) {
                    continue;
                }
                let place =
                    format!("{} {} {} {}", path.display(), panel["id"], panel["title"], target["refId"]);
                let ways: BTreeSet<_> =
                    instances.iter().map(|one| filled(expression, &one["metric"])).collect();
                questions.insert(place, ways.into_iter().collect());
            }
        }
    }
    Ok(())
}

fn filled(expression: &str, instance: &Value) -> String {
    let label = |name: &str| instance[name].as_str().unwrap_or_default();
    let values = [
        ("job", label("job")),
        ("project", label("project")),
        ("name", label("name")),
        ("top", "5"),
        ("__range", "1m"),
        ("__rate_interval", "30s"),
    ];
    values.iter().fold(expression.to_owned(), |text, (variable, value)| {
        text.replace(&format!("${{{variable}}}"), value).replace(&format!("${variable}"), value)
    })
}
