//! Names that others have chosen: markup, marks that turn the direction of reading, controls, and very long ones. They are shown, and
//! nothing more.

use anyhow::{Context, Result};
use miharu_e2e::{Browser, lxc, need, scratch};
use miharu_e2e::{Lxc, Miharud};
use serde_json::json;

use crate::common::{Host, Webui, content, fits, open, prepare, usual_names, visit};

/// A name that would run, if a page took it for markup.
const NAME: &str = "<img_src=x_onerror=owned()>";

#[test]
fn a_real_containers_name_is_text() -> Result<()> {
    need!(Lxc, Browser);
    let name = format!("{}{NAME}", scratch::unique("x"));
    let config = lxc::Config { name: name.clone(), ..lxc::Config::default() };
    let _container = Lxc::with(&config)?;
    let daemon = Miharud::with(&[])?;
    let (mut browser, _webui) = open(&daemon)?;
    let shown = format!(
        "[...document.querySelectorAll('a.name')].find((node) => node.textContent === {})",
        json!(name)
    );
    browser.wait("the name", &format!("!!{shown}"))?;
    assert_eq!(browser.eval("document.querySelectorAll('main img').length")?, json!(0));
    browser.eval(&format!("{shown}.click()"))?;
    browser.wait("its page", "!!document.querySelector('.sources details')")?;
    assert_eq!(browser.text("document.querySelector('h1').textContent")?, name);
    assert_eq!(browser.eval("document.querySelectorAll('main img').length")?, json!(0));
    content(&mut browser, "a hostile name")
}

/// What the server could say of others in the worst case. It is put into its answer on the way, as no runtime here lets all of it in.
const WORST: &str = r##"
  const worst = ['<script>owned()</script>', '"><svg/onload=owned()>', 'x'.repeat(500), 'abc\u202edcba\u200f\u0007', '../../..', "a'b\"c&amp;", '\u0000', '%2e%2e', '', '日本語の名前'];
  const ask = window.fetch;
  window.fetch = async (url, options) => {
    const answer = await ask(url, options);
    const path = new URL(url, location.href).pathname;
    if (!path.endsWith('/1.0/usage') && !path.endsWith('/1.0/warnings')) return answer;
    const body = await answer.json();
    if (path.endsWith('usage')) {
      for (const name of worst) {
        body.metadata.instances.push({ ...body.metadata.instances[0], name, project: `${name}<b>p</b>`, runtime: name, type: name, location: name });
      }
    } else {
      for (const name of worst) body.metadata.push({ status: name, uuid: name, location: name, project: name, type: name, last_message: name, severity: name, first_seen_at: name, last_seen_at: name, count: 1 });
    }
    return new Response(JSON.stringify(body), { status: 200, headers: { 'Content-Type': 'application/json' } });
  };
  window.owned = () => console.error('owned');
"##;

#[test]
fn the_worst_names_are_shown_and_do_nothing() -> Result<()> {
    need!(Browser);
    let host = Host::make(&usual_names())?;
    let daemon = host.serve()?;
    let webui = Webui::start(&daemon)?;
    let mut browser = Browser::start()?;
    prepare(&mut browser)?;
    browser.before_each_page(WORST)?;
    browser.go(&webui.url)?;
    browser.wait("all of them", "document.querySelectorAll('.instances tbody tr').length === 18")?;
    let text = browser.text("document.querySelector('.instances').textContent")?;
    assert!(text.contains("abc‹U+202E›dcba‹U+200F›‹U+0007›"), "what is invisible is written out");
    let turned = browser.eval("/[\\u202e\\u200f\\u0007]/.test(document.documentElement.textContent)")?;
    assert_eq!(turned, json!(false), "nothing turns the direction of what is around it");
    for width in [1440, 1000, 380] {
        browser.size(width, 900)?;
        fits(&mut browser, &format!("{width}"))?;
    }
    browser.picture("web-hostile-phone")?;
    browser.size(1440, 900)?;
    browser.picture("web-hostile")?;
    content(&mut browser, "the list")?;

    // Each of their pages, too, though the server knows none of them.
    let links = browser.eval("[...document.querySelectorAll('a.name')].map((node) => node.hash)")?;
    let links: Vec<String> = serde_json::from_value(links)?;
    assert_eq!(links.len(), 18);
    for link in links {
        browser.eval(&format!("location.hash = {}", json!(link)))?;
        browser.wait("a heading", "!!document.querySelector('.view-instance h1')")?;
        fits(&mut browser, &link)?;
    }
    visit(&mut browser, "#/warnings", ".view-list table")?;
    fits(&mut browser, "warnings")?;
    // An address that somebody sends is hostile, too.
    for place in [
        "#/instance/%E0%A4%A/x",
        "#/instances?sort=__proto__:x&q=<img src=x onerror=owned()>",
        "#/constructor",
        "#//",
        "#/instances?target=../../x",
    ] {
        browser.eval(&format!("location.hash = {}", json!(place)))?;
        browser.wait("a view", "document.querySelector('main').childElementCount === 1")?;
    }
    assert_eq!(
        browser.eval("document.querySelectorAll('main script, main img, main svg[onload]').length")?,
        json!(0)
    );
    // What the server does not know it answers with an error, which the console shows; nothing was run and no policy breached.
    let complaints = browser.complaints()?;
    let unexpected: Vec<_> =
        complaints.iter().filter(|text| !text.contains("Failed to load resource")).collect();
    assert!(unexpected.is_empty(), "{unexpected:#?}");
    assert_eq!(browser.eval("window.breaches")?, json!([]));
    browser.text("document.title").context("the page lives")?;
    Ok(())
}
