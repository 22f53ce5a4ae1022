use std::time::Duration;

use miharu_api::usage::FIGURES;
use miharu_metrics::Figures;
use miharu_metrics::figures::{CpuMode, CpuTimes, Disk, Filesystem, Info, Interface, Traffic};
use proptest::prelude::*;

use super::*;
use crate::usage::reading::Figure;
use crate::usage::{RECENT_SLOTS, SLOTS};

/// An instance that has used so much CPU time and read so many bytes.
fn instance(name: &str, cpu: f64, read: u64) -> InstanceFigures {
    let info = Info { runtime: "lxc".to_owned(), source: "cgroup2", id: name.to_owned() };
    let time = Duration::try_from_secs_f64(cpu).unwrap();
    let lo = Interface { device: "lo".to_owned(), receive: bytes(1 << 40), ..Interface::default() };
    let eth0 = Interface { device: "eth0".to_owned(), receive: bytes(read), ..Interface::default() };
    let idle = CpuTimes::new(1).with(CpuMode::Idle, Duration::from_secs(read)).with(CpuMode::System, time);
    let mut figures = Figures {
        boot_time_seconds: Some(1000.0),
        cpus: vec![CpuTimes::new(0).with(CpuMode::User, time), idle],
        disks: vec![Disk { device: "sda".to_owned(), read_bytes: Some(read), ..Disk::default() }],
        interfaces: vec![lo, eth0],
        procs: Some(3),
        info: Some(info),
        ..Figures::default()
    };
    figures.memory.working_set = Some(1 << 20);
    InstanceFigures {
        project: "p".to_owned(),
        name: name.to_owned(),
        instance_type: InstanceType::Container,
        figures,
    }
}

fn bytes(count: u64) -> Traffic {
    Traffic { bytes: Some(count), ..Traffic::default() }
}

fn figures(change: impl FnOnce(&mut Figures)) -> InstanceFigures {
    let mut instance = instance("a", 30.0, 3000);
    change(&mut instance.figures);
    instance
}

/// A book, and the moment at which it was opened.
fn book() -> (Book, Moment) {
    let opened = Moment::now();
    (Book::new(opened), opened)
}

fn after(opened: Moment, seconds: u64) -> Moment {
    opened + Duration::from_secs(seconds)
}

/// The history of `a`, slots 0 to `end`.
fn slots(book: &Book, figure: &str, end: u64) -> Vec<Option<f32>> {
    let Recorded::History(rings) = book.recorded(("p", "a", InstanceType::Container)) else {
        return Vec::new();
    };
    let count = usize::try_from(end).unwrap() + 1;
    rings.series(end, count).find(|(name, _)| *name == figure).map(|(_, values)| values).unwrap_or_default()
}

#[test]
fn figures_have_the_order_of_their_names() {
    let places = [
        (Figure::Cpu, "cpu"),
        (Figure::CpuThrottled, "cpu_throttled"),
        (Figure::MemoryLimit, "memory_limit"),
        (Figure::DiskWrites, "disk_writes"),
        (Figure::NetworkErrors, "network_errors"),
        (Figure::FilesystemSize, "filesystem_size"),
        (Figure::PressureIo, "pressure_io"),
        (Figure::OomKills, "oom_kills"),
    ];
    for (figure, name) in places {
        assert_eq!(FIGURES[figure as usize].0, name);
    }
}

#[test]
fn rates_are_over_the_time_between_two_collections() {
    let (mut book, opened) = book();
    book.enter_at(&[instance("a", 10.0, 1000)], opened, Keep::Rates);
    let values = book.values(&instance("a", 10.0, 1000));
    assert_eq!((values.get(Figure::Cpu), values.get(Figure::Processes)), (None, Some(3.0)));
    assert_eq!(book.interval(), None);

    // What came so soon that it says nothing is passed over, and asked twice is answered twice the same.
    book.enter_at(&[instance("a", 99.0, 9999)], opened + Duration::from_millis(300), Keep::Rates);
    for _ in 0..2 {
        let now = instance("a", 15.0, 3000);
        book.enter_at(std::slice::from_ref(&now), after(opened, 10), Keep::Rates);
        let values = book.values(&now);
        assert_eq!(book.interval(), Some(10.0));
        // Both of its CPUs, without the time that one was idle.
        assert_eq!(values.get(Figure::Cpu), Some(1.0));
        assert_eq!(values.get(Figure::CpuUser), Some(0.5));
        assert_eq!(values.get(Figure::DiskRead), Some(200.0));
        // Without what went over `lo`.
        assert_eq!(values.get(Figure::NetworkReceived), Some(200.0));
        assert_eq!(values.get(Figure::Memory), Some(f64::from(1 << 20)));
        assert_eq!((values.get(Figure::DiskWritten), values.get(Figure::Swap)), (None, None));
    }
}

#[test]
fn a_counter_that_is_not_the_same_any_more_gives_no_rate() {
    type Case = (&'static str, InstanceFigures, &'static [Figure]);
    let cpu = CpuTimes::new(2).with(CpuMode::User, Duration::from_secs(50));
    let all = &[Figure::Cpu, Figure::DiskRead, Figure::NetworkReceived][..];
    let cases: [Case; 7] = [
        ("restarted", figures(|figures| figures.boot_time_seconds = Some(1002.0)), all),
        ("not known to be the same", figures(|figures| figures.boot_time_seconds = None), all),
        ("another teller", figures(|figures| figures.info.as_mut().unwrap().source = "agent"), all),
        ("went back", instance("a", 1.0, 1), all),
        ("a CPU more", figures(|figures| figures.cpus.push(cpu)), &[Figure::Cpu]),
        ("another disk", figures(|figures| figures.disks[0].device = "sdb".to_owned()), &[Figure::DiskRead]),
        ("no interface", figures(|figures| figures.interfaces.truncate(1)), &[Figure::NetworkReceived]),
    ];
    for (what, now, without) in cases {
        let (mut book, opened) = book();
        book.enter_at(&[instance("a", 10.0, 1000)], opened, Keep::Rates);
        book.enter_at(std::slice::from_ref(&now), after(opened, 10), Keep::Rates);
        let values = book.values(&now);
        for figure in all {
            assert_eq!(values.get(*figure).is_none(), without.contains(figure), "{what}: {figure:?}");
        }
    }
    // The kernel's own word on when a process started moves with the clock.
    let (mut book, opened) = book();
    let now = figures(|figures| figures.boot_time_seconds = Some(1001.0));
    book.enter_at(&[instance("a", 10.0, 1000)], opened, Keep::Rates);
    book.enter_at(std::slice::from_ref(&now), after(opened, 10), Keep::Rates);
    assert_eq!(book.values(&now).get(Figure::Cpu), Some(4.0));
}

#[test]
fn an_instance_that_was_away_has_no_rate_at_first() {
    let (mut book, opened) = book();
    let (a, b) = (instance("a", 10.0, 1000), instance("b", 0.0, 0));
    book.enter_at(&[a.clone(), b.clone()], opened, Keep::Rates);
    book.enter_at(std::slice::from_ref(&b), after(opened, 10), Keep::Rates);
    book.enter_at(&[a.clone(), b.clone()], after(opened, 20), Keep::Rates);
    assert_eq!(book.values(&a).get(Figure::Cpu), None);
    assert_eq!(book.values(&b).get(Figure::Cpu), Some(0.0));
    // Nor has one whose figures could not be read.
    let failed = InstanceFigures { figures: Figures::default(), ..a.clone() };
    book.enter_at(&[failed], after(opened, 30), Keep::Rates);
    book.enter_at(std::slice::from_ref(&a), after(opened, 40), Keep::Rates);
    assert_eq!(book.values(&a).get(Figure::Cpu), None);
    book.enter_at(std::slice::from_ref(&a), after(opened, 50), Keep::Rates);
    assert_eq!(book.values(&a).get(Figure::Cpu), Some(0.0));
}

#[test]
fn time_used_is_without_time_of_waiting() {
    assert_eq!(crate::usage::cpu_seconds(&instance("a", 10.0, 1000).figures), Some(20.0));
    assert_eq!(crate::usage::cpu_seconds(&Figures::default()), None);
}

#[test]
fn what_is_throttled_is_a_share_of_the_periods() {
    let (mut book, opened) = book();
    let with = |periods, throttled| {
        figures(|figures| {
            figures.throttling.periods = Some(periods);
            figures.throttling.throttled_periods = Some(throttled);
        })
    };
    let steps = [(100, 10, None), (200, 60, Some(0.5)), (200, 60, Some(0.0))];
    for (at, (periods, throttled, share)) in (0..).zip(steps) {
        let now = with(periods, throttled);
        book.enter_at(std::slice::from_ref(&now), after(opened, at * 10), Keep::Rates);
        assert_eq!(book.values(&now).get(Figure::CpuThrottled), share);
    }
}

#[test]
fn memory_is_what_could_not_be_given_away() {
    let of = |change: fn(&mut Figures)| {
        let now = figures(|figures| {
            figures.memory.working_set = None;
            change(figures);
        });
        let (mut book, opened) = book();
        book.enter_at(std::slice::from_ref(&now), opened, Keep::Rates);
        let values = book.values(&now);
        (values.get(Figure::Memory), values.get(Figure::MemoryLimit))
    };
    assert_eq!(of(|_| {}), (None, None));
    let guest = of(|figures| {
        let memory = &mut figures.memory;
        (memory.mem_total, memory.mem_available, memory.mem_free) = (Some(100), Some(70), Some(50));
    });
    assert_eq!(guest, (Some(30.0), Some(100.0)));
    let root = |mountpoint: &str, size| Filesystem {
        mountpoint: mountpoint.to_owned(),
        size_bytes: Some(size),
        free_bytes: Some(1),
        ..Filesystem::default()
    };
    let now = figures(|figures| figures.filesystems = vec![root("/", 10), root("/srv", 20)]);
    let (mut book, opened) = book();
    book.enter_at(std::slice::from_ref(&now), opened, Keep::Rates);
    let values = book.values(&now);
    assert_eq!(
        (values.get(Figure::FilesystemUsed), values.get(Figure::FilesystemSize)),
        (Some(9.0), Some(10.0))
    );
}

#[test]
fn a_slot_holds_the_mean_of_its_time() {
    let (mut book, opened) = book();
    let mut enter = |at, cpu| book.enter_at(&[instance("a", cpu, 0)], after(opened, at), Keep::History);
    // On both CPUs: 0.4 for 10 s, then 0.2 for the 5 s after that.
    enter(0, 0.0);
    enter(10, 2.0);
    enter(15, 2.5);
    // A slot on: 1 for 20 s.
    enter(35, 12.5);
    let cpu = slots(&book, "cpu", 1);
    let near = |value: Option<f32>, expected: f32| (value.unwrap() - expected).abs() < expected / 100.0;
    assert!(near(cpu[0], 1.0 / 3.0), "{cpu:?}");
    assert!(near(cpu[1], 1.0), "{cpu:?}");
    assert_eq!(slots(&book, "processes", 1), [Some(3.0), Some(3.0)]);
    assert!(slots(&book, "disk_written", 1).is_empty(), "no ring for what was never known");
}

#[test]
fn the_keepers_own_collections_leave_no_holes_and_longer_times_do() {
    let (mut book, opened) = book();
    for (at, cpu) in [(0, 0.0), (65, 6.5), (130, 13.0), (195, 19.5), (1000, 100.0)] {
        book.enter_at(&[instance("a", cpu, 0)], after(opened, at), Keep::History);
    }
    let cpu = slots(&book, "cpu", 33);
    let known: Vec<bool> = cpu.iter().map(Option::is_some).collect();
    let nothing = [false; 26];
    assert_eq!(known, [&[false], &[true; 6][..], &nothing, &[true]].concat());
    assert!(cpu.iter().flatten().all(|cpu| (cpu - 0.2).abs() < 0.001), "{cpu:?}");
    assert_eq!(slots(&book, "processes", 6), [Some(3.0); 7]);
    assert_eq!(slots(&book, "processes", 33)[7..33], [None; 26]);
}

#[test]
fn an_hour_later_nothing_is_left_of_it() {
    let (mut book, opened) = book();
    let quarter = 15 * 60;
    for minute in 0..90 {
        let cpu = f64::from(minute);
        book.enter_at(&[instance("a", cpu, 0)], after(opened, u64::from(minute as u16) * 60), Keep::History);
    }
    let last = book.slot(after(opened, 89 * 60));
    let kept = slots(&book, "cpu", last);
    assert_eq!(kept.iter().flatten().count(), SLOTS);
    assert!(kept[..kept.len() - SLOTS].iter().all(Option::is_none));
    // A quarter of an hour after its end a quarter is gone, though nobody wrote over it.
    let Recorded::History(rings) = book.recorded(("p", "a", InstanceType::Container)) else { panic!() };
    let (_, recent) = rings.series(last + quarter / 30, RECENT_SLOTS).next().unwrap();
    assert_eq!(recent.len(), RECENT_SLOTS);
    assert_eq!(recent.iter().flatten().count(), RECENT_SLOTS - usize::try_from(quarter / 30).unwrap());
}

#[test]
fn who_is_gone_is_forgotten_after_a_while_and_who_came_first_stays() {
    let (mut book, opened) = book();
    let all: Vec<_> = (0..LIMIT + 5).map(|n| instance(&format!("i{n:05}"), 0.0, 0)).collect();
    book.enter_at(&all, opened, Keep::History);
    let state = |book: &Book, n: usize| match book.recorded(all[n].key()) {
        Recorded::History(_) => "history",
        Recorded::Full => "full",
        Recorded::Nothing => "nothing",
    };
    assert_eq!((state(&book, LIMIT - 1), state(&book, LIMIT)), ("history", "full"));
    // The first ten are gone: for five minutes they may come back, then others have their place.
    let rest = &all[10..];
    for (at, first, beyond) in
        [(240, "history", "full"), (310, "nothing", "nothing"), (340, "nothing", "history")]
    {
        book.enter_at(rest, after(opened, at), Keep::History);
        assert_eq!((state(&book, 0), state(&book, LIMIT)), (first, beyond), "{at}");
    }
    assert_eq!(book.recorded, LIMIT - 5);
    book.asked(after(opened, 345));
    book.rest(after(opened, 350), FORGOTTEN);
    assert_eq!((book.recorded, state(&book, 20)), (0, "nothing"));
    assert!(!book.tracks.is_empty(), "somebody has looked of late");
    book.rest(after(opened, 3500), FORGOTTEN);
    assert!(book.tracks.is_empty());
}

#[test]
fn five_hundred_histories_take_less_than_four_megabytes() {
    let (mut book, opened) = book();
    let full = |n: usize, step: u64| {
        let mut instance =
            instance(&format!("a-container-with-a-long-name-{n:03}"), step as f64, step * 1000);
        let figures = &mut instance.figures;
        let time = Some(Duration::from_secs(step));
        (figures.pressure.cpu_waiting, figures.pressure.memory_waiting, figures.pressure.io_waiting) =
            (time, time, time);
        figures.throttling.periods = Some(step);
        figures.throttling.throttled_periods = Some(step);
        figures.cpu_limit_cores = Some(2.0);
        let memory = &mut figures.memory;
        (memory.mem_total, memory.cached, memory.swap, memory.oom_kills) =
            (Some(9), Some(1), Some(1), Some(step));
        figures.disks[0].written_bytes = Some(step);
        figures.disks[0].reads_completed = Some(step);
        figures.disks[0].writes_completed = Some(step);
        figures.interfaces[1].transmit = Traffic { errs: Some(step), ..bytes(step) };
        figures.filesystems = vec![Filesystem {
            mountpoint: "/".to_owned(),
            size_bytes: Some(9),
            free_bytes: Some(1),
            ..Filesystem::default()
        }];
        instance
    };
    for step in 0..130 {
        let all: Vec<_> = (0..500).map(|n| full(n, step)).collect();
        book.enter_at(&all, after(opened, step * 30), Keep::History);
    }
    let Recorded::History(rings) = book.recorded(full(7, 0).key()) else { panic!() };
    assert_eq!(rings.series(129, 1).count(), FIGURES.len(), "every figure is known");
    let bytes = book.bytes();
    assert!(bytes < 4_000_000, "{bytes} bytes");
    assert!(bytes / 500 < 6_500, "{} bytes an instance", bytes / 500);
}

proptest! {
    /// Whatever counters do, no rate is negative, and no more than the counter's growth over the time.
    #[test]
    fn no_rate_is_negative_or_made_up(steps in proptest::collection::vec((1_u64..200, 0_u64..1 << 50, any::<bool>()), 1..20)) {
        let (mut book, opened) = book();
        let (mut at, mut last) = (0, None::<u64>);
        for (pause, read, is_there) in steps {
            at += pause;
            let now = instance("a", (read % 1000) as f64, read);
            let entered = if is_there { vec![now.clone()] } else { Vec::new() };
            book.enter_at(&entered, after(opened, at), Keep::History);
            let rate = book.values(&now).get(Figure::DiskRead);
            if is_there {
                let grown = last.and_then(|last| read.checked_sub(last)).map(|grown| grown as f64 / pause as f64);
                prop_assert_eq!(rate, grown);
            }
            last = is_there.then_some(read);
            let end = book.slot(after(opened, at));
            prop_assert!(slots(&book, "disk_read", end).iter().flatten().all(|value| *value >= 0.0));
        }
    }
}
