//! Tables of `miharu top`, and what keys do to its screen.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use expect_test::expect;
use miharu_api::{History, InstanceUsage, Usage};
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::columns::{ON_SCREEN, Sort, parse};
use super::graph::Glyphs;
use super::source::Reading;
use super::view::{Flow, Page, View, Wish};
use crate::error::Failure;
use crate::testing::{Canned, Fake};

/// An instance with these figures.
pub(super) fn instance(name: &str, project: &str, figures: &[(&str, f64)]) -> InstanceUsage {
    let graph = |top: f64| (0..60).map(|slot| Some((top * f64::from(slot) / 59.0) as f32)).collect();
    let figures: BTreeMap<_, _> = figures.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
    InstanceUsage {
        name: name.to_owned(),
        project: project.to_owned(),
        instance_type: "container".to_owned(),
        runtime: "lxc".to_owned(),
        location: "none".to_owned(),
        boot_time: Some(1_800_000_000.0 - 93_784.0),
        readable: true,
        source: "cgroup2".to_owned(),
        cpu_seconds: figures.get("cpu").map(|cpu| cpu * 1000.0),
        recent: ["cpu", "memory"]
            .iter()
            .filter_map(|name| Some(((*name).to_owned(), graph(*figures.get(*name)?))))
            .collect(),
        figures,
    }
}

/// What a server with four instances says: a busy one, one with a Japanese name, one with a hostile name, and one that
/// cannot be read.
pub(super) fn usage() -> Usage {
    let mut vm =
        instance("監視サーバ", "default", &[("cpu", 0.02), ("memory", 3.5e8), ("memory_limit", 4e8)]);
    "virtual-machine".clone_into(&mut vm.instance_type);
    "incus".clone_into(&mut vm.runtime);
    let mut unreadable = instance("gone", "shop", &[]);
    unreadable.readable = false;
    unreadable.boot_time = None;
    let busy = [
        ("cpu", 3.42),
        ("cpu_limit", 4.0),
        ("cpu_throttled", 0.3),
        ("memory", 1_887_436.0),
        ("memory_limit", 1e9),
        ("disk_read", 0.0),
        ("disk_written", 10_240.0),
        ("network_received", 2_500_000.0),
        ("network_sent", 999.0),
        ("filesystem_used", 5e9),
        ("filesystem_size", 1e10),
        ("processes", 17.0),
    ];
    let hostile = instance("a\u{1b}[2J\u{202e}b\u{7}", "default", &[("cpu", 0.5), ("memory", 1024.0)]);
    Usage {
        server: "abydos".to_owned(),
        time: 1_800_000_000.0,
        interval: Some(3.0),
        host_cpus: Some(8),
        host_memory: Some(16 << 30),
        instances: vec![instance("web-1", "docker/shop", &busy), vm, hostile, unreadable],
    }
}

fn reading(usage: Usage) -> Reading {
    Reading { usage, missing: Vec::new() }
}

fn lone() -> Canned {
    Canned::sync(r#"{"server_name":"","enabled":false,"member_config":[]}"#)
}

/// A screen of it.
pub(super) fn view() -> View {
    let mut view = View::new(
        parse(ON_SCREEN).unwrap(),
        Sort::parse("cpu").unwrap(),
        Duration::from_secs(3),
        Glyphs::Unicode,
    );
    view.read(reading(usage()), Instant::now());
    view
}

/// The last hour of an instance.
pub(super) fn history() -> History {
    let values = |top: f32| (0..120).map(|slot| (slot > 20).then_some(top * slot as f32 / 119.0)).collect();
    History {
        end: 1_800_000_000.0,
        step: 30.0,
        figures: [("cpu".to_owned(), values(3.42)), ("memory".to_owned(), values(1_887_436.0))].into(),
        missing: None,
    }
}

fn top(arguments: &[&str]) -> (String, String) {
    let fake = Fake::start(vec![lone(), Canned::sync(&serde_json::to_string(&usage()).unwrap())]);
    let (result, out) = fake.miharu(&[&["top", "-f"], arguments].concat());
    result.unwrap();
    (fake.requests()[1].line(), out)
}

#[test]
fn a_table_has_what_uses_most_first() {
    let (request, out) = top(&["table", "-c", "nencmD"]);
    expect!["GET /1.0/usage?max_age=3"].assert_eq(&request);
    expect![[r#"
        +------------+-------------+------------+--------+-----------+---------+
        |    NAME    |   PROJECT   |    NAME    |   CPU  |   MEMORY  |   DISK  |
        +------------+-------------+------------+--------+-----------+---------+
        | web-1      | docker/shop | web-1      | 342.0% | 1.80MiB   | 4.66GiB |
        +------------+-------------+------------+--------+-----------+---------+
        | a�[2J�b�   | default     | a�[2J�b�   | 50.0%  | 1.00KiB   |         |
        +------------+-------------+------------+--------+-----------+---------+
        | 監視サーバ | default     | 監視サーバ | 2.0%   | 333.79MiB |         |
        +------------+-------------+------------+--------+-----------+---------+
        | gone       | shop        | gone       |        |           |         |
        +------------+-------------+------------+--------+-----------+---------+
    "#]]
    .assert_eq(&out);
}

#[test]
fn csv_holds_plain_figures() {
    expect![[r#"
        NAME,CPU TIME(S),MEMORY,DISK,CPU,DISK WRITTEN,LOCATION,UPTIME
        監視サーバ,20,350000000,,0.02,,none,93784
        web-1,3420,1887436,5000000000,3.42,10240,none,93784
        gone,,,,,,none,
        a�[2J�b�,500,1024,,0.5,,none,93784
    "#]]
    .assert_eq(&top(&["csv,header", "-c", "numDcwLU", "--sort", "-name"]).1);
}

#[test]
fn json_holds_all_that_the_server_said_of_those_that_are_meant() {
    let (_, out) = top(&["json", "type=virtual-machine"]);
    let read: Vec<InstanceUsage> = serde_json::from_str(&out).unwrap();
    assert_eq!(read.len(), 1);
    assert_eq!(read[0].figures["memory"], 3.5e8);
}

#[test]
fn graphs_are_asked_for_where_they_are_shown() {
    let (request, out) = top(&["compact,noheader", "-c", "nC", "project=docker/shop"]);
    assert_eq!(request, "GET /1.0/usage?max_age=3&recent=true");
    assert!(out.contains("web-1  ▆"), "{out}");
}

#[test]
fn it_goes_on_as_often_as_it_is_told_to() {
    let answer = || Canned::sync(&serde_json::to_string(&usage()).unwrap());
    let fake = Fake::start(vec![lone(), answer(), answer()]);
    let (result, out) = fake.miharu(&[
        "top",
        "local:",
        "-r",
        "1",
        "-n",
        "2",
        "-f",
        "csv",
        "-c",
        "n",
        "web",
        "--project",
        "docker/shop",
    ]);
    result.unwrap();
    assert_eq!(out, "web-1\nweb-1\n");
    let lines: Vec<_> = fake.requests().iter().map(|request| request.line()).collect();
    assert_eq!(lines[1..], ["GET /1.0/usage?max_age=1&project=docker%2Fshop"; 2]);
}

#[test]
fn mistakes_are_found_before_the_server_is_asked() {
    let fake = Fake::start(vec![]);
    for wrong in [
        vec!["top", "-c", "n?"],
        vec!["top", "--sort", "mem"],
        vec!["top", "runtime=dokcer"],
        vec!["top", "prod:"],
    ] {
        let result = fake.miharu(&wrong).0;
        assert!(matches!(result, Err(Failure::Usage(_))), "{wrong:?} gave {result:?}");
    }
}

#[test]
fn an_old_server_is_told() {
    let fake = Fake::start(vec![lone(), Canned::error(404, "not found")]);
    let failure = fake.miharu(&["top", "-f", "csv"]).0.unwrap_err().to_string();
    assert!(failure.starts_with("not found\nThe server does not say"), "{failure}");
}

#[test]
fn each_member_of_a_cluster_is_asked_and_one_that_is_away_is_left_out() {
    let cluster = r#"{"server_name":"m1","enabled":true,"member_config":[]}"#;
    let members = r#"[{"server_name":"m1"},{"server_name":"m2"},{"server_name":"m3"}]"#;
    let of = |member: &str| {
        let mut usage = usage();
        usage.instances.truncate(1);
        usage.instances[0].location = member.to_owned();
        Canned::sync(&serde_json::to_string(&usage).unwrap())
    };
    let fake = Fake::start(vec![
        Canned::sync(cluster),
        Canned::sync(members),
        of("m1"),
        Canned::error(503, "m2 is away"),
        of("m3"),
    ]);
    let (result, out) = fake.miharu(&["top", "-f", "csv", "-c", "nL"]);
    result.unwrap();
    assert_eq!(out, "web-1,m1\nweb-1,m3\n");
    let lines: Vec<_> = fake.requests().iter().skip(2).map(|request| request.line()).collect();
    assert_eq!(lines, ["m1", "m2", "m3"].map(|member| format!("GET /1.0/usage?max_age=3&target={member}")));
    // One that is named is asked alone, and where nobody answers that is told.
    let fake = Fake::start(vec![Canned::error(503, "m2 is away")]);
    let failure = fake.miharu(&["top", "-f", "csv", "--target", "m2"]).0.unwrap_err().to_string();
    assert_eq!(failure, "m2 is away");
}

fn press(view: &mut View, keys: &str) -> Wish {
    let mut wish = Wish::Nothing;
    for key in keys.chars() {
        let code = match key {
            '\n' => KeyCode::Enter,
            '\u{1b}' => KeyCode::Esc,
            '\u{8}' => KeyCode::Backspace,
            key => KeyCode::Char(key),
        };
        wish = view.press(KeyEvent::new(code, KeyModifiers::NONE));
    }
    wish
}

fn names(view: &View) -> Vec<String> {
    view.rows().iter().map(|instance| instance.name.chars().take(2).collect()).collect()
}

#[test]
fn keys_sort() {
    let mut view = view();
    assert_eq!(names(&view), ["we", "a\u{1b}", "監視", "go"]);
    press(&mut view, "n");
    assert_eq!(names(&view), ["a\u{1b}", "go", "we", "監視"]);
    press(&mut view, "n");
    assert_eq!(names(&view), ["監視", "we", "go", "a\u{1b}"]);
    press(&mut view, "r>");
    assert_eq!(view.sort.column.key, "project");
    press(&mut view, "<<");
    assert_eq!(view.sort.column.key, "uptime");
    press(&mut view, "m");
    assert_eq!(names(&view), ["監視", "we", "a\u{1b}", "go"]);
}

#[test]
fn what_is_typed_filters() {
    let mut view = view();
    press(&mut view, "/shop");
    assert_eq!((view.page, names(&view).len()), (Page::Typing, 2));
    press(&mut view, " we\n");
    assert_eq!((view.page, names(&view)), (Page::List, vec!["we".to_owned()]));
    press(&mut view, "/\u{8}q\u{8}\u{8}");
    assert_eq!(view.words.typed(), "shop ");
    press(&mut view, "\u{1b}");
    assert_eq!((view.page, names(&view).len()), (Page::List, 4));
    assert_eq!(press(&mut view, "/runtime=incus\n"), Wish::Draw);
    assert_eq!(names(&view), ["監視"]);
    assert_eq!(press(&mut view, "\u{1b}"), Wish::Draw);
    assert_eq!(press(&mut view, "\u{1b}"), Wish::Quit);
}

#[test]
fn the_mark_stays_on_its_instance() {
    let mut view = view();
    press(&mut view, "jj");
    let marked = view.marked.clone().unwrap();
    assert!(marked.name.starts_with('a'));
    press(&mut view, "nn");
    assert_eq!(view.marked.as_ref(), Some(&marked));
    assert_eq!(press(&mut view, "\n"), Wish::History);
    assert_eq!(view.page, Page::Instance);
    press(&mut view, "<");
    assert_ne!(view.marked.as_ref(), Some(&marked));
    press(&mut view, "q");
    assert_eq!(view.page, Page::List);
    press(&mut view, "G");
    assert_eq!(view.marked.as_ref().unwrap().name, view.rows()[3].name);
    view.read(Reading::default(), Instant::now());
    assert_eq!(press(&mut view, "jkG\n"), Wish::Nothing);
}

#[test]
fn pauses_and_ends() {
    let mut view = view();
    assert_eq!(press(&mut view, "p"), Wish::Draw);
    assert_eq!(view.flow, Flow::Paused);
    assert_eq!(press(&mut view, " "), Wish::Read);
    press(&mut view, "+++");
    assert_eq!(view.pause, Duration::from_secs(6));
    press(&mut view, "----------");
    assert_eq!(view.pause, Duration::from_secs(1));
    press(&mut view, &"+".repeat(200));
    assert_eq!(view.pause, Duration::from_secs(300));
    press(&mut view, "?");
    assert_eq!(view.page, Page::Help);
    assert_eq!(press(&mut view, "qq"), Wish::Quit);
    let control = |c| KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL);
    view.page = Page::Typing;
    assert_eq!(view.press(control('c')), Wish::Quit);
    assert_eq!(view.press(control('z')), Wish::Suspend);
    assert_eq!(view.press(control('l')), Wish::Redraw);
    view.page = Page::List;
    assert_eq!(view.press(control('q')), Wish::Nothing);
}

#[test]
fn graphs_stay_until_new_ones_come() {
    let mut view = view();
    let mut later = usage();
    later.instances.retain(|instance| instance.name == "web-1");
    later.instances[0].recent.clear();
    view.read(reading(later), Instant::now());
    assert_eq!(view.recent(&view.usage.instances[0], "cpu").len(), 60);
    view.read(reading(usage()), Instant::now());
    assert_eq!(view.recent(&view.usage.instances[1], "cpu").len(), 60);
}
