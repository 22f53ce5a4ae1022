//! `miharu top` as it runs: readings, keys, signals, and a picture where one of them has changed something.

use std::future::{Future, pending};
use std::io;
use std::pin::Pin;
use std::time::{Duration, Instant};

use miharu_api::History;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use super::draw::draw;
use super::screen::Screen;
use super::source::{Graphs, Reading, Source};
use super::view::{Flow, Key, Page, View, Wish};
use crate::colour::Colours;
use crate::error::Failure;

/// How often graphs are asked for: the server keeps a slot for so long.
const GRAPHS: Duration = Duration::from_secs(30);
/// The longest pause between two tries of a server that is away.
const LONGEST: Duration = Duration::from_secs(30);
/// How often a screen that gets no figures says how old they are.
const TICK: Duration = Duration::from_secs(1);

type Asked<'a> = Pin<Box<dyn Future<Output = Result<Reading, Failure>> + 'a>>;
type Past<'a> = Pin<Box<dyn Future<Output = (Key, Result<History, Failure>)> + 'a>>;

/// The signals that end or interrupt a program at a terminal.
struct Signals {
    ends: [(Signal, SignalKind); 4],
    stop: Signal,
    go_on: Signal,
}

/// What happened.
enum Happening {
    Key(Option<io::Result<Event>>),
    Read(Result<Reading, Failure>),
    Past((Key, Result<History, Failure>)),
    Due,
    Tick,
    End(SignalKind),
    Stop,
    GoOn,
}

/// When to ask next, and how often asking has failed.
struct Timing {
    next: Instant,
    graphs: Instant,
    failures: u32,
}

/// Runs until the user has seen enough.
pub(super) async fn run(
    source: &Source<'_>,
    view: &mut View,
    out: &mut dyn io::Write,
    colours: Colours,
) -> Result<(), Failure> {
    // Before the screen is taken: what is wrong from the start is said as every command says it.
    view.read(source.usage(Graphs::Wanted, view.pause).await?, Instant::now());
    let mut signals =
        Signals::catch().map_err(|error| Failure::request(format!("cannot catch signals: {error}")))?;
    let mut keys = keys();
    let mut screen = Screen::take(out).map_err(no_screen)?;
    let mut timing =
        Timing { next: Instant::now() + view.pause, graphs: Instant::now() + GRAPHS, failures: 0 };
    let mut reading: Option<Asked<'_>> = None;
    let mut past: Option<Past<'_>> = None;
    let mut changed = true;
    loop {
        if changed {
            screen.draw(|frame| draw(view, frame, colours, Instant::now())).map_err(no_screen)?;
        }
        let is_due = view.flow == Flow::Live && reading.is_none();
        let happening = tokio::select! {
            key = keys.recv() => Happening::Key(key),
            usage = of(&mut reading) => Happening::Read(usage),
            history = of(&mut past) => Happening::Past(history),
            () = tokio::time::sleep_until(timing.next.into()), if is_due => Happening::Due,
            () = tokio::time::sleep(TICK), if view.trouble.is_some() => Happening::Tick,
            kind = ended(&mut signals.ends) => Happening::End(kind),
            _ = signals.stop.recv() => Happening::Stop,
            _ = signals.go_on.recv() => Happening::GoOn,
        };
        // That something is asked for is not to be seen.
        changed = !matches!(happening, Happening::Due);
        let mut wish = Wish::Draw;
        match happening {
            Happening::Key(Some(Ok(event))) => wish = take(view, &event),
            // Nobody is there any more.
            Happening::Key(None | Some(Err(_))) => return Ok(()),
            Happening::Read(usage) => {
                reading = None;
                timing.took(view, usage);
                if view.page == Page::Instance && past.is_none() {
                    wish = Wish::History;
                }
            }
            Happening::Past((of, history)) => {
                past = None;
                view.history = Some((of, history.map_err(|failure| failure.to_string())));
            }
            Happening::Due => wish = Wish::Read,
            Happening::Tick => {}
            Happening::End(kind) => {
                screen.leave().map_err(no_screen)?;
                return if kind == SignalKind::interrupt() {
                    Ok(())
                } else {
                    Err(Failure::Signal(kind.as_raw_value()))
                };
            }
            Happening::Stop => wish = Wish::Suspend,
            Happening::GoOn => screen.enter().map_err(no_screen)?,
        }
        match wish {
            Wish::Nothing => changed = false,
            Wish::Draw => {}
            Wish::Read => reading = reading.or_else(|| Some(timing.ask(source, view.pause))),
            Wish::History => {
                if let Some(key) = view.marked.clone() {
                    past = Some(Box::pin(async move {
                        let history = source.history(&key).await;
                        (key, history)
                    }));
                }
            }
            Wish::Redraw => screen.forget().map_err(no_screen)?,
            Wish::Suspend => {
                screen.leave().map_err(no_screen)?;
                stop();
                screen.enter().map_err(no_screen)?;
            }
            Wish::Quit => return Ok(()),
        }
    }
}

impl Timing {
    fn ask<'a>(&mut self, source: &'a Source<'a>, pause: Duration) -> Asked<'a> {
        let now = Instant::now();
        let graphs = if now >= self.graphs || self.failures > 0 {
            self.graphs = now + GRAPHS;
            Graphs::Wanted
        } else {
            Graphs::Left
        };
        Box::pin(source.usage(graphs, pause))
    }

    /// Takes what came of it: a server that is away is asked less and less often.
    fn took(&mut self, view: &mut View, reading: Result<Reading, Failure>) {
        let now = Instant::now();
        match reading {
            Ok(reading) => {
                self.failures = 0;
                self.next = now + view.pause;
                view.read(reading, now);
            }
            Err(failure) => {
                let pause = Duration::from_secs(1 << self.failures.min(5)).min(LONGEST);
                self.failures = self.failures.saturating_add(1);
                self.next = now + pause;
                view.trouble = Some(failure.to_string());
            }
        }
    }
}

impl Signals {
    fn catch() -> io::Result<Self> {
        let end = |kind| signal(kind).map(|caught| (caught, kind));
        Ok(Self {
            ends: [
                end(SignalKind::terminate())?,
                end(SignalKind::hangup())?,
                end(SignalKind::interrupt())?,
                end(SignalKind::quit())?,
            ],
            stop: signal(SignalKind::from_raw(rustix::process::Signal::TSTP.as_raw()))?,
            go_on: signal(SignalKind::from_raw(rustix::process::Signal::CONT.as_raw()))?,
        })
    }
}

/// The signal that ends this.
async fn ended(signals: &mut [(Signal, SignalKind); 4]) -> SignalKind {
    let [(a, of_a), (b, of_b), (c, of_c), (d, of_d)] = signals;
    tokio::select! {
        _ = a.recv() => *of_a,
        _ = b.recv() => *of_b,
        _ = c.recv() => *of_c,
        _ = d.recv() => *of_d,
    }
}

/// Waits for what goes on, if anything does.
async fn of<T>(going_on: &mut Option<Pin<Box<dyn Future<Output = T> + '_>>>) -> T {
    match going_on {
        Some(future) => future.await,
        None => pending().await,
    }
}

/// Stops the process as Ctrl-Z does; it returns when the process goes on. What has been caught cannot stop it any more, so
/// that it is the signal that nobody can catch.
fn stop() {
    // It would only fail for a signal that there is not.
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::STOP);
}

fn take(view: &mut View, event: &Event) -> Wish {
    match event {
        Event::Key(key) if key.kind != KeyEventKind::Release => view.press(*key),
        Event::Resize(..) => Wish::Draw,
        _ => Wish::Nothing,
    }
}

/// Reads keys on a thread of its own, which ends with the process.
fn keys() -> mpsc::Receiver<io::Result<Event>> {
    let (send, receive) = mpsc::channel(64);
    std::thread::spawn(move || {
        loop {
            let event = event::read();
            let is_end = event.is_err();
            if send.blocking_send(event).is_err() || is_end {
                return;
            }
        }
    });
    receive
}

fn no_screen(error: io::Error) -> Failure {
    Failure::Output(error)
}
