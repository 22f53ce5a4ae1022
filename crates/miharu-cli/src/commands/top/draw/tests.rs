//! Pictures of the screen, and that no size and no name breaks it.

use std::time::{Duration, Instant};

use expect_test::{Expect, expect};
use proptest::prelude::*;
use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::super::graph::Glyphs;
use super::super::tests::{history, instance, view};
use super::super::view::{Page, View, key};
use super::super::words::Words;
use super::*;

fn terminal(view: &mut View, width: u16, height: u16, colours: Colours) -> Terminal<TestBackend> {
    let now = view.read_at + Duration::from_secs(75);
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(view, frame, colours, now)).unwrap();
    terminal
}

fn picture(view: &mut View, width: u16, height: u16) -> String {
    let terminal = terminal(view, width, height, Colours::Off);
    let buffer = terminal.backend().buffer();
    let mut lines = String::new();
    for y in 0..height {
        let mut x = 0;
        let mut line = String::new();
        while x < width {
            let symbol = buffer[(x, y)].symbol();
            line.push_str(symbol);
            x += u16::try_from(crate::text::width(symbol)).unwrap().max(1);
        }
        lines.push_str(line.trim_end());
        lines.push('\n');
    }
    lines
}

fn check(view: &mut View, width: u16, height: u16, expected: &Expect) {
    expected.assert_eq(&picture(view, width, height));
}

#[test]
fn the_list_at_80_by_24() {
    check(
        &mut view(),
        80,
        24,
        &expect![[r#"
        miharu top  abydos                  every 3 s  4 instances  08:00:00 UTC  by cpu
        CPU 394.0% of 800.0%   Memory 336M of 16G   Disk/s 0B read 10K written
        NAME         PROJECT       CPU% CPU        MEM READ/s WRIT/s RECV/s SENT/s  PROC
        web-1        docker/shop  342.0 ████████  1.8M     0B    10K   2.4M   999B    17
        a�[2J�b�     default       50.0 ████████  1.0K
        監視サーバ   default        2.0 ▄▄▄▄▄▄▄▄  334M
        ! gone       shop
















        q quit  / filter  Enter look  s sort  r reverse  p pause  ? help
    "#]],
    );
}

#[test]
fn the_list_at_40_by_10() {
    check(
        &mut view(),
        40,
        10,
        &expect![[r#"
        miharu top  abydos             every 3 s
        CPU 394.0% of 800.0%
        NAME           CPU% CPU              MEM
        web-1         342.0 ▇▇▇▇▇█████████  1.8M
        a�[2J�b�       50.0 ▇▇▇▇▇█████████  1.0K
        監視サーバ      2.0 ▄▄▄▄▄▄▄▄▄▄▄▄▄▄  334M
        ! gone


        q quit  / filter  Enter look  s sort
    "#]],
    );
}

#[test]
fn the_list_at_200_by_60() {
    check(
        &mut view(),
        200,
        60,
        &expect![[r#"
        miharu top  abydos                                                                                                                                          every 3 s  4 instances  08:00:00 UTC  by cpu
        CPU 394.0% of 800.0%   Memory 336M of 16G   Disk/s 0B read 10K written   Network/s 2.4M received 999B sent
        NAME         PROJECT     TYPE RUNTIME   CPU% CPU                                              MEM  MEM% MEMORY                                          READ/s WRIT/s RECV/s SENT/s  PROC  DISK   UPTIME
        web-1        docker/shop ct   lxc      342.0 ▃▃▃▄▄▄▄▄▄▄▄▄▅▅▅▅▅▅▅▅▆▆▆▆▆▆▆▆▆▇▇▇▇▇▇▇▇█████████  1.8M   0.2 ▃▃▃▃▄▄▄▄▄▄▄▄▄▅▅▅▅▅▅▅▅▆▆▆▆▆▆▆▆▆▇▇▇▇▇▇▇▇█████████     0B    10K   2.4M   999B    17  4.7G    1d 2h
        a�[2J�b�     default     ct   lxc       50.0 ▃▃▃▄▄▄▄▄▄▄▄▄▅▅▅▅▅▅▅▅▆▆▆▆▆▆▆▆▆▇▇▇▇▇▇▇▇█████████  1.0K       ▃▃▃▃▄▄▄▄▄▄▄▄▄▅▅▅▅▅▅▅▅▆▆▆▆▆▆▆▆▆▇▇▇▇▇▇▇▇█████████                                            1d 2h
        監視サーバ   default     vm   incus      2.0 ▂▂▂▂▂▂▂▂▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄  334M  87.5 ▃▃▃▃▄▄▄▄▄▄▄▄▄▅▅▅▅▅▅▅▅▆▆▆▆▆▆▆▆▆▇▇▇▇▇▇▇▇█████████                                            1d 2h
        ! gone       shop        ct   lxc




















































        q quit  / filter  Enter look  s sort  r reverse  p pause  ? help
    "#]],
    );
}

#[test]
fn an_instance_at_80_by_24() {
    let mut view = view();
    view.marked = Some(key(&view.usage.instances[0]));
    view.page = Page::Instance;
    view.history = Some((view.marked.clone().unwrap(), Ok(history())));
    check(
        &mut view,
        80,
        24,
        &expect![[r#"
        miharu top  abydos                  every 3 s  4 instances  08:00:00 UTC  by cpu
        web-1  in project docker/shop
        container, run by lxc, up 1d 2h, figures from cgroup2
        The last hour, and its peak
        CPU                       342.0%  ▇▇▇▇▇▇▇▇▇▇▇█████████████████       peak 342.0%
          limit                   400.0%
          throttled                30.0%
        Memory                   1.80MiB  ▇▇▇▇▇▇▇▇▇▇▇█████████████████      peak 1.80MiB
          limit                953.67MiB
        Disk read                   0B/s
        Disk written          10.00KiB/s
        Network received       2.38MiB/s
        Network sent              999B/s
        Root file system         4.66GiB
          size                   9.31GiB
        Processes                     17







        q back  < > others  p pause  ? help
    "#]],
    );
}

#[test]
fn an_instance_without_a_history_and_one_that_is_gone() {
    let mut view = view();
    view.glyphs = Glyphs::Ascii;
    view.marked = Some(key(&view.usage.instances[1]));
    view.page = Page::Instance;
    view.history = Some((view.marked.clone().unwrap(), Err("the server is away\nlook at it".to_owned())));
    check(
        &mut view,
        60,
        9,
        &expect![[r#"
        miharu top  abydos      every 3 s  4 instances  08:00:00 UTC
        ?????  in project default
        virtual-machine, run by incus, up 1d 2h, figures from cgrou~
        No history: the server is away
        CPU                         2.0%
        Memory                 333.79MiB
          limit                381.47MiB

        q back  < > others  p pause  ? help
    "#]],
    );
    view.usage.instances.clear();
    check(
        &mut view,
        60,
        4,
        &expect![[r#"
        miharu top  abydos      every 3 s  0 instances  08:00:00 UTC
        It is gone, or no longer among those that are shown.

        q back  < > others  p pause  ? help
    "#]],
    );
}

#[test]
fn the_help_at_80_by_24() {
    let mut view = view();
    view.page = Page::Help;
    check(
        &mut view,
        80,
        24,
        &expect![[r#"
            miharu top  abydos                  every 3 s  4 instances  08:00:00 UTC  by cpu
            Keys
              up down, j k  move the mark; Page Up, Page Down, Home and End too
              Enter         look at the marked instance: all figures, and their last hour
              /             filter by a part of a name, project or runtime, or by KEY=VALUE
              s, < >        sort by the next column, by the one on the left or right
              c m d w t n   sort by CPU, memory, disk, written bytes, CPU time, name
              r             sort the other way around; so does the same letter again
              p, Space      pause, and go on
              R, F5         read anew at once
              + -           read less often, more often
              Ctrl-L        draw all of it anew
              ?, h, F1      this page
              q, Esc        back, and from the list: end; Ctrl-C ends everywhere

            Figures
              CPU%          percent of one CPU, without idle, iowait and steal
              MEM           without what can be dropped at once; MEM% of what it may use
              yellow, red   much, too much of what it may use
              ! NAME        its figures cannot be read: `miharu info NAME` says why
              blank         not known; a reading alone makes no rate


            q back
        "#]],
    );
}

#[test]
fn a_server_that_is_away_and_a_slip_are_told() {
    let mut away = view();
    away.trouble = Some("miharud is not running: \u{1b}[31mno socket\nStart it".to_owned());
    assert!(
        picture(&mut away, 80, 24)
            .ends_with("figures of 1m 15s ago: miharud is not running: �[31mno socket\n")
    );
    let mut partly = view();
    partly.missing = vec!["m2: it is away\nlook".to_owned(), "m3: too".to_owned()];
    assert!(picture(&mut partly, 80, 24).ends_with("\nm2: it is away (2 members do not answer)\n"));
    let mut typing = view();
    typing.page = Page::Typing;
    typing.words = Words::new("runtime=dokcer");
    let last = picture(&mut typing, 100, 24).lines().last().unwrap().to_owned();
    assert!(
        last.starts_with("/runtime=dokcer   there is no runtime 'dokcer', only incus, lxd, lxc"),
        "{last}"
    );
    typing.words = Words::new(&"x".repeat(100));
    assert_eq!(picture(&mut typing, 20, 3).lines().last(), Some("/xxxxxxxxxxxxxxxxxx"));
}

#[test]
fn the_mark_is_never_out_of_sight() {
    let mut view = view();
    view.usage.instances = (0..50).map(|at| instance(&format!("i{at:02}"), "p", &[])).collect();
    for (row, height) in [(49, 10), (0, 10), (25, 24), (26, 4), (49, 60)] {
        view.marked = Some(key(&view.usage.instances[row]));
        let shown = picture(&mut view, 80, height);
        assert!(shown.contains(&format!("i{row:02}")), "{row} at {height}:\n{shown}");
    }
    assert!(picture(&mut view, 80, 60).contains("i00"));
}

#[test]
fn load_has_colours_unless_there_are_none() {
    let colours = |colours| {
        let terminal = terminal(&mut view(), 80, 24, colours);
        let cells = terminal.backend().buffer().content().to_vec();
        cells.iter().map(|cell| cell.fg).filter(|colour| *colour != Color::Reset).collect::<Vec<_>>()
    };
    // 3.42 of 4 CPUs is much; 350 of 400 MB as well.
    assert!(colours(Colours::On).contains(&Color::Yellow));
    assert!(colours(Colours::Off).is_empty());
}

#[test]
fn nothing_is_written_where_nothing_has_changed() {
    let mut view = view();
    let mut terminal = terminal(&mut view, 80, 24, Colours::On);
    let before = terminal.backend().buffer().clone();
    view.sort = super::super::columns::Sort::parse("cpu").unwrap();
    terminal.draw(|frame| draw(&mut view, frame, Colours::On, Instant::now())).unwrap();
    assert!(before.diff(terminal.backend().buffer()).is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn no_name_and_no_size_breaks_the_screen(
        names in prop::collection::vec(any::<String>(), 0..6),
        project in any::<String>(),
        words in any::<String>(),
        figure in any::<f64>(),
        width in 0_u16..130,
        height in 0_u16..40,
        page in 0_usize..4,
        ascii in any::<bool>(),
    ) {
        let mut view = view();
        view.usage.server = project.clone();
        view.usage.time = figure;
        for name in &names {
            view.usage.instances.push(instance(name, &project, &[("cpu", figure), ("memory", figure)]));
        }
        view.marked = view.usage.instances.last().map(key);
        view.history = view.marked.clone().map(|marked| (marked, Ok(history())));
        view.words = Words::new(if page == 1 { &words } else { "" });
        view.trouble = (page == 3).then(|| words.clone());
        view.page = [Page::List, Page::Typing, Page::Instance, Page::Help][page];
        view.glyphs = if ascii { Glyphs::Ascii } else { Glyphs::Unicode };
        let terminal = terminal(&mut view, width, height, Colours::On);
        for cell in terminal.backend().buffer().content() {
            let shown = crate::text::printable(cell.symbol());
            prop_assert_eq!(shown, cell.symbol());
            prop_assert!(!ascii || cell.symbol().is_ascii());
        }
    }
}
