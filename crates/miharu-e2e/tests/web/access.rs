//! What axe-core finds that would shut people out: in every view, both themes, wide and narrow.

use std::fs;

use anyhow::{Context, Result};
use miharu_e2e::need::axe;
use miharu_e2e::{Browser, need};
use serde_json::{Value, json};

use crate::common::{Host, choose, open, usual_names, visit};

/// Looks at the page as it is.
fn look(browser: &mut Browser, program: &str, where_: &str) -> Result<()> {
    if browser.eval("typeof window.axe")? != json!("object") {
        // As a tool of the browser's; as a script of the page's the policy would refuse it.
        browser.eval(&format!("{program}; 0"))?;
    }
    let found = browser.eval(
        "axe.run(document, { resultTypes: ['violations'] }).then(({ violations }) => violations.map(({ id, impact, help, nodes }) =>
           ({ id, impact, help, nodes: nodes.slice(0, 4).map(({ html, failureSummary }) => `${html.slice(0, 200)} ${failureSummary}`) })))",
    )?;
    let found: Vec<Value> = serde_json::from_value(found)?;
    assert!(found.is_empty(), "{where_}: {found:#?}");
    Ok(())
}

#[test]
fn nothing_shuts_people_out() -> Result<()> {
    need!(Browser, Axe);
    let program = fs::read_to_string(axe())?;
    let host = Host::make(&usual_names())?;
    let daemon = host.serve()?;
    let (mut browser, _webui) = open(&daemon)?;
    browser.prefer("prefers-reduced-motion", "reduce")?;
    for theme in ["light", "dark"] {
        choose(&mut browser, "theme", theme)?;
        for width in [1900, 1440, 380] {
            browser.size(width, 900)?;
            for (place, sign) in [
                ("#/instances", ".instances tbody tr"),
                ("#/instance/lxc/web", ".chart canvas"),
                ("#/cluster", ".view-list .empty"),
                ("#/warnings", ".view-list .empty, .view-list table"),
            ] {
                visit(&mut browser, place, sign)?;
                look(&mut browser, &program, &format!("{place}, {theme}, {width}"))?;
            }
        }
    }
    browser.press("?")?;
    browser.wait("help", "document.getElementById('help').open")?;
    look(&mut browser, &program, "help")?;
    let motion =
        browser.text("getComputedStyle(document.querySelector('.dot')).animationName").context("motion")?;
    assert_eq!(motion, "none", "who wants no motion has none");
    Ok(())
}
