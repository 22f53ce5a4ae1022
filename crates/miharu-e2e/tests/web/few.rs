//! A handful of instances: every view, by mouse and by keyboard, in both languages and themes, wide and narrow, and over a restart.

use std::time::Duration;

use anyhow::{Context, Result};
use miharu_e2e::{Browser, Lxc, Miharud, need, scratch};
use serde_json::json;

use crate::common::{Host, choose, content, fits, names, open, usual_names, visit};

#[test]
fn two_real_containers_are_shown_as_they_are() -> Result<()> {
    need!(Lxc, Browser);
    let (busy, idle) = (Lxc::start(&[])?, Lxc::start(&[])?);
    // A tenth of a CPU or so, for as long as the container runs.
    busy.exec(
        "(while :; do i=0; while [ $i -lt 9000 ]; do i=$((i+1)); done; sleep 0.1; done) >/dev/null 2>&1 &",
    )?;
    let daemon = Miharud::with(&[])?;
    let (mut browser, _webui) = open(&daemon)?;

    // Others may run containers on this machine, too.
    let mine = busy.name.split('n').next().context("a name")?;
    visit(&mut browser, &format!("#/instances?q={mine}&sort=cpu:descending"), ".instances tbody tr")?;
    let row = |name: &str| {
        format!(
            "[...document.querySelectorAll('.instances tbody tr')].find((row) => row.querySelector('a.name')?.textContent === '{name}')"
        )
    };
    let busy_cpu =
        format!("parseFloat({}?.querySelector('.c-cpu .figure').textContent) > 0.005", row(&busy.name));
    browser.wait("the busy one's CPU", &busy_cpu)?;
    assert_eq!(names(&mut browser)?, [busy.name.clone(), idle.name.clone()], "the busy one comes first");
    let memory =
        browser.text(&format!("{}.querySelector('.c-memory .figure').textContent", row(&idle.name)))?;
    assert!(memory.ends_with("iB"), "{memory}");
    let runtime = browser.text(&format!("{}.querySelector('.second-line').textContent", row(&idle.name)))?;
    assert!(runtime.starts_with("container · lxc · lxc:"), "{runtime}");
    // It has no network but `lo`: nothing was received, or that is not known; a figure is not made up.
    let network = browser.text(&format!("{}.querySelector('.c-network').textContent", row(&idle.name)))?;
    assert!(network.contains("0 B/s") || network.contains('–'), "{network}");
    browser.picture("web-two-real")?;

    let pid = idle.pid.to_string();
    browser.eval(&format!("{}.querySelector('a.name').click()", row(&idle.name)))?;
    browser.wait("its facts", &format!("document.querySelector('.facts')?.textContent.includes('{pid}')"))?;
    browser.wait("where its figures come from", "!!document.querySelector('.sources details')")?;
    let sources = browser.text("document.querySelector('.sources').textContent")?;
    assert!(sources.contains(&format!("lxc.payload.{}", idle.name)), "{sources}");
    content(&mut browser, "two containers")
}

#[test]
fn every_view_works_by_keyboard_in_both_languages_and_themes_and_on_a_phone() -> Result<()> {
    need!(Browser);
    let host = Host::make(&usual_names())?;
    let daemon = host.serve()?;
    let (mut browser, _webui) = open(&daemon)?;
    browser.wait(
        "a rate",
        "[...document.querySelectorAll('.c-cpu .figure')].every((node) => parseFloat(node.textContent) > 0)",
    )?;
    browser.wait("lines", "document.querySelectorAll('.c-cpu .spark-line[d]').length === 8")?;
    content(&mut browser, "the list")?;
    linger(4)?;
    browser.picture("web-instances")?;

    sorting(&mut browser)?;
    filtering(&mut browser)?;
    walking(&mut browser)?;
    one_instance(&mut browser)?;
    lists(&mut browser)?;
    themes_and_languages(&mut browser)?;
    narrow(&mut browser)?;
    content(&mut browser, "in the end")
}

/// Waits until there is something to be seen on a picture: for pictures in the documentation `MIHARU_PICTURE_SECONDS` says for how
/// long, as a line in the list has a point every half minute.
fn linger(least: u64) -> Result<()> {
    let seconds = match std::env::var("MIHARU_PICTURE_SECONDS") {
        Ok(text) => text.parse().with_context(|| format!("MIHARU_PICTURE_SECONDS={text}"))?,
        Err(_) => least,
    };
    std::thread::sleep(Duration::from_secs(seconds));
    Ok(())
}

/// Sorting is by true buttons, and what is sorted is said.
fn sorting(browser: &mut Browser) -> Result<()> {
    let sorted = "document.querySelector('.c-name[aria-sort]')?.getAttribute('aria-sort')";
    browser.eval("document.querySelector('th.c-name button').focus()")?;
    browser.press("Enter")?;
    browser.wait("the sorting", &format!("{sorted} === 'ascending'"))?;
    let mut wanted = usual_names();
    wanted.sort();
    assert_eq!(names(browser)?, wanted);
    assert_eq!(browser.text("location.hash")?, "#/instances?sort=name%3Aascending");
    browser.press("Enter")?;
    browser.wait("the other direction", &format!("{sorted} === 'descending'"))?;
    wanted.reverse();
    assert_eq!(names(browser)?, wanted);
    assert_eq!(browser.eval("document.querySelectorAll('[aria-sort]').length")?, json!(1));
    Ok(())
}

/// The filter is reached by `/`, is part of the address, and an address brings it back.
fn filtering(browser: &mut Browser) -> Result<()> {
    browser.eval("document.activeElement.blur()")?;
    browser.press("/")?;
    assert_eq!(browser.text("document.activeElement.id")?, "filter");
    browser.write("build")?;
    browser.wait("two rows", "document.querySelectorAll('.instances tbody tr').length === 2")?;
    assert!(browser.text("location.hash")?.contains("q=build"));
    assert_eq!(browser.text("document.querySelector('.count').textContent")?, "2 of 8 instances");
    reload(browser)?;
    browser.wait("the same two", "document.querySelector('#filter')?.value === 'build' && document.querySelectorAll('.instances tbody tr').length === 2")?;
    browser.eval("[...document.querySelectorAll('.filters button')].at(-1).click()")?;
    browser.wait("all", "document.querySelectorAll('.instances tbody tr').length === 8")?;
    browser.write("no-such")?;
    browser.wait(
        "a word where nothing is found",
        "!document.querySelector('.empty').hidden && document.querySelector('.instances').hidden",
    )?;
    browser.eval(
        "[...document.querySelectorAll('.filters button')].at(-1).click(); document.activeElement.blur()",
    )?;
    browser.wait("all", "document.querySelectorAll('.instances tbody tr').length === 8")?;
    Ok(())
}

/// Loads the page anew, and waits until it is a new one.
fn reload(browser: &mut Browser) -> Result<()> {
    browser.eval("window.old = true; location.reload()")?;
    browser.wait("the page anew", "!window.old && !!document.querySelector('.instances tbody tr')")?;
    Ok(())
}

/// Arrows go through the rows, which keep their order meanwhile.
fn walking(browser: &mut Browser) -> Result<()> {
    browser.press("ArrowDown")?;
    let order = names(browser)?;
    browser.press("ArrowDown")?;
    browser.press("ArrowDown")?;
    assert_eq!(browser.text("document.activeElement.textContent")?, order[2]);
    browser.press("ArrowUp")?;
    assert_eq!(browser.text("document.activeElement.textContent")?, order[1]);
    let outline = browser.text("getComputedStyle(document.activeElement).outlineStyle")?;
    assert_eq!(outline, "solid", "the focus is seen");
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(
        browser.text("document.activeElement.textContent")?,
        order[1],
        "a refresh leaves the focus alone"
    );
    assert_eq!(names(browser)?, order);
    browser.press("Enter")?;
    browser
        .wait("the instance", &format!("document.querySelector('h1 bdi')?.textContent === '{}'", order[1]))?;
    assert_eq!(
        browser.text("document.activeElement.tagName")?,
        "H1",
        "who cannot see is told where they are"
    );
    browser.press("ArrowRight")?;
    browser
        .wait("the next one", &format!("document.querySelector('h1 bdi')?.textContent === '{}'", order[2]))?;
    browser.press("ArrowLeft")?;
    browser.wait(
        "the one before",
        &format!("document.querySelector('h1 bdi')?.textContent === '{}'", order[1]),
    )?;
    Ok(())
}

/// Charts have points, more with time, and words for who does not see them.
fn one_instance(browser: &mut Browser) -> Result<()> {
    visit(browser, "#/instance/lxc/web", ".chart canvas")?;
    let points = "Number(document.querySelector('[data-chart=\"chart.cpu\"] [data-points]')?.dataset.points)";
    browser.wait("points", &format!("{points} > 0"))?;
    let before = browser.eval(points)?.as_f64().context("points")?;
    browser.wait("more points", &format!("{points} > {before}"))?;
    let charts =
        browser.eval("document.querySelectorAll('.chart canvas').length")?.as_u64().context("charts")?;
    assert!(charts >= 3, "{charts}");
    let words = browser.text(
        "document.querySelector('[data-chart=\"chart.memory\"] [role=img]').getAttribute('aria-label')",
    )?;
    assert!(words.contains("In use: now ") && words.contains("MiB"), "{words}");
    let summary = browser.text("document.querySelector('[data-chart=\"chart.cpu\"] .summary').innerText")?;
    assert!(summary.contains("Mean") && summary.contains("All"), "{summary}");
    content(browser, "an instance")?;
    std::thread::sleep(Duration::from_secs(4));
    browser.picture("web-instance")?;
    browser.press("Escape")?;
    browser.wait("the list again", "!!document.querySelector('.instances tbody tr')")?;
    // One that is not there is said not to be.
    visit(browser, "#/instance/lxc/nobody", ".notice:not([hidden])")?;
    std::thread::sleep(Duration::from_secs(2));
    // The server has said 404, which the console shows.
    let complaints = browser.complaints()?;
    assert!(complaints.iter().all(|text| text.contains("404")), "{complaints:?}");
    Ok(())
}

/// Cluster, warnings and help.
fn lists(browser: &mut Browser) -> Result<()> {
    browser.press("2")?;
    browser.wait(
        "the cluster",
        "document.querySelector('.view-list')?.textContent.includes('not a member of a cluster')",
    )?;
    browser.press("3")?;
    browser.wait("the warnings", "location.hash === '#/warnings' && /Nothing is wrong|new/.test(document.querySelector('.view-list')?.textContent)")?;
    content(browser, "the lists")?;
    browser.press("?")?;
    browser.wait("help", "document.getElementById('help').open")?;
    browser.press("Escape")?;
    browser.wait("no help", "!document.getElementById('help').open")?;
    browser.press("1")?;
    browser.wait("the list", "!!document.querySelector('.instances tbody tr')")?;
    browser.press("p")?;
    browser.wait("a pause", "document.getElementById('state').dataset.state === 'paused'")?;
    // An answer that was on its way may still come.
    std::thread::sleep(Duration::from_secs(2));
    let refreshes = "performance.getEntriesByName('refresh').length";
    let before = browser.eval(refreshes)?;
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(browser.eval(refreshes)?, before);
    browser.press("p")?;
    browser.wait("life", "document.getElementById('state').dataset.state === 'live'")?;
    // Nor does it ask while nobody can see it; `hidden` is what the browser says of a page behind others.
    let hide = "Object.defineProperty(document, 'hidden', { value: true, configurable: true });";
    browser.eval(&format!("{hide} document.dispatchEvent(new Event('visibilitychange'))"))?;
    browser.wait("rest", "document.getElementById('state').dataset.state === 'hidden'")?;
    let before = browser.eval(refreshes)?;
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(browser.eval(refreshes)?, before);
    browser.eval("delete document.hidden; document.dispatchEvent(new Event('visibilitychange'))")?;
    browser.wait("life", "document.getElementById('state').dataset.state === 'live'")?;
    Ok(())
}

fn themes_and_languages(browser: &mut Browser) -> Result<()> {
    let page = "getComputedStyle(document.body).backgroundColor";
    let light = browser.text(page)?;
    browser.prefer("prefers-color-scheme", "dark")?;
    let dark = browser.text(page)?;
    assert_ne!(light, dark, "without a choice it is as the system is");
    choose(browser, "theme", "light")?;
    assert_eq!(browser.text(page)?, light);
    browser.prefer("prefers-color-scheme", "light")?;
    choose(browser, "theme", "dark")?;
    assert_eq!(browser.text(page)?, dark);
    browser.picture("web-instances-dark")?;
    visit(browser, "#/instance/lxc/web", ".chart canvas")?;
    std::thread::sleep(Duration::from_secs(3));
    browser.picture("web-instance-dark")?;
    visit(browser, "#/instances", ".instances tbody tr")?;
    choose(browser, "language", "ja")?;
    browser.wait(
        "Japanese",
        "document.documentElement.lang === 'ja' && !!document.querySelector('.instances tbody tr')",
    )?;
    assert_eq!(browser.text("document.querySelector('th.c-memory button').textContent")?, "メモリー");
    choose(browser, "theme", "light")?;
    std::thread::sleep(Duration::from_secs(3));
    browser.picture("web-instances-ja")?;
    reload(browser)?;
    browser.wait(
        "the choices",
        "document.documentElement.lang === 'ja' && document.documentElement.dataset.theme === 'light'",
    )?;
    choose(browser, "theme", "auto")?;
    choose(browser, "language", "en")?;
    Ok(())
}

fn narrow(browser: &mut Browser) -> Result<()> {
    for width in [380, 700, 950, 1100, 1300, 1900] {
        browser.size(width, 800)?;
        for (place, sign) in [
            ("#/instances", ".instances tbody tr"),
            ("#/instance/lxc/web", ".chart canvas"),
            ("#/cluster", ".view-list .empty"),
            ("#/warnings", ".view-list .empty, .view-list table"),
        ] {
            visit(browser, place, sign)?;
            std::thread::sleep(Duration::from_millis(300));
            fits(browser, &format!("{place} at {width}"))?;
            if width == 380 {
                let view = place.trim_start_matches("#/").split('/').next().unwrap_or_default();
                browser.picture(&format!("web-phone-{view}"))?;
            }
        }
    }
    browser.size(380, 800)?;
    visit(browser, "#/instances", ".instances tbody tr")?;
    std::thread::sleep(Duration::from_secs(3));
    browser.picture("web-phone")?;
    browser.size(1440, 900)
}

#[test]
fn the_page_survives_a_restart_of_miharud_and_says_so() -> Result<()> {
    need!(Browser);
    let host = Host::make(&usual_names())?;
    let dir = scratch::dir("miharu")?;
    let tree = host.tree.to_str().context("path")?;
    let daemon = Miharud::in_dir(&dir, &["--root", tree])?;
    let (mut browser, _webui) = open(&daemon)?;
    content(&mut browser, "before")?;
    daemon.stop()?;
    browser.wait("trouble", "!document.getElementById('trouble').hidden")?;
    let words = browser.text("document.getElementById('trouble').innerText")?;
    assert!(words.contains("What is shown is as of") && words.contains("Next attempt in"), "{words}");
    assert_eq!(browser.text("document.getElementById('state-text').textContent")?, "No answer");
    assert_eq!(
        browser.eval("document.querySelectorAll('.instances tbody tr').length")?,
        json!(8),
        "what was known stays"
    );
    browser.picture("web-trouble")?;
    let _daemon = Miharud::in_dir(&dir, &["--root", tree])?;
    browser.eval("document.getElementById('trouble-now').click()")?;
    browser.wait("life", "document.getElementById('trouble').hidden && document.getElementById('state').dataset.state === 'live'")?;
    assert_eq!(browser.eval("document.getElementById('main').classList.contains('stale')")?, json!(false));
    // The failed requests are on the console; nothing else is.
    let complaints = browser.complaints()?;
    assert!(complaints.iter().all(|text| text.contains("Failed to load resource")), "{complaints:?}");
    Ok(())
}
