//! Five hundred instances: what a refresh costs in the browser, and how it looks.

use std::time::Duration;

use anyhow::{Context, Result};
use miharu_e2e::need;
use serde_json::json;

use crate::common::{Host, content, fits, open, visit};

const MANY: usize = 500;
/// Milliseconds that the page may take for a refresh. On a machine that does nothing else it takes a tenth of that.
const LIMIT: f64 = 400.0;

#[test]
fn five_hundred_instances_are_shown_smoothly() -> Result<()> {
    need!(Browser);
    let kinds = ["web", "db", "cache", "mail", "git", "build", "proxy", "queue", "search", "auth"];
    let names: Vec<String> =
        (0..MANY).map(|number| format!("{}-{number:03}", kinds[number % kinds.len()])).collect();
    let host = Host::make(&names)?;
    let daemon = host.serve()?;
    let (mut browser, _webui) = open(&daemon)?;
    browser
        .wait("all rows", &format!("document.querySelectorAll('.instances tbody tr').length === {MANY}"))?;
    browser.wait("rates", "parseFloat(document.querySelector('.c-cpu .figure').textContent) > 0")?;
    assert_eq!(browser.text("document.querySelector('.count').textContent")?, format!("{MANY} instances"));
    // Rows are updated where they are: the one that was marked is the same afterwards.
    browser.eval("document.querySelectorAll('.instances tbody tr')[250].marked = true; performance.clearMeasures('refresh')")?;
    browser.wait("refreshes", "performance.getEntriesByName('refresh').length >= 6")?;
    let marked = browser
        .eval("[...document.querySelectorAll('.instances tbody tr')].filter((row) => row.marked).length")?;
    assert_eq!(marked, json!(1));
    let times = browser.eval("performance.getEntriesByName('refresh').map((entry) => entry.duration)")?;
    let mut times: Vec<f64> = serde_json::from_value(times)?;
    times.sort_by(f64::total_cmp);
    let median = times[times.len() / 2];
    println!(
        "a refresh of {MANY} rows: median {median:.1} ms, {:.1} to {:.1} ms",
        times[0],
        times[times.len() - 1]
    );
    assert!(median < LIMIT, "{times:?}");

    // Sparklines are drawn near the window only, and come as it moves.
    let drawn = "[...document.querySelectorAll('.c-cpu .spark-line')].filter((line) => line.getAttribute('d')).length";
    let before = browser.eval(drawn)?.as_u64().context("lines")?;
    assert!((5..200).contains(&before), "{before}");
    browser.picture("web-500")?;
    browser.eval("window.scrollTo(0, document.body.scrollHeight / 2)")?;
    browser.wait("lines further down", &format!("{drawn} > {before}"))?;
    std::thread::sleep(Duration::from_millis(500));
    browser.picture("web-500-middle")?;
    let top = browser.eval("document.querySelector('.instances thead').getBoundingClientRect().top")?;
    assert!(top.as_f64().context("top")? >= 0.0, "the headings stay in sight: {top}");

    browser.size(380, 800)?;
    visit(&mut browser, "#/instances?sort=memory:descending", ".instances tbody tr")?;
    std::thread::sleep(Duration::from_secs(3));
    fits(&mut browser, "500 on a phone")?;
    browser.picture("web-500-phone")?;
    content(&mut browser, "500")
}
