//! What the screen of `miharu top` knows and shows, and what keys do to it. Neither terminal nor server is known here.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use miharu_api::{History, InstanceUsage, Usage};
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::columns::{COLUMNS, Column, Order, Sort};
use super::graph::Glyphs;
use super::source::Reading;
use super::words::Words;
use crate::filter::{Chosen, Filter};

/// The shortest and the longest pause between two readings that keys set.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));

/// What tells an instance from all others.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    /// The cluster member that it runs on.
    pub(super) location: String,
    /// Its project.
    pub(super) project: String,
    /// Its name.
    pub(super) name: String,
    /// `container` or `virtual-machine`.
    pub(super) kind: String,
}

/// The state of the screen.
#[derive(Debug)]
pub(super) struct View {
    /// What was read last.
    pub(super) usage: Usage,
    /// When that was.
    pub(super) read_at: Instant,
    /// Members of the cluster that did not answer, and why.
    pub(super) missing: Vec<String>,
    /// Why there is nothing newer.
    pub(super) trouble: Option<String>,
    /// Instances that the command line asked for.
    pub(super) filters: Vec<Filter>,
    /// What was typed after `/`.
    pub(super) words: Words,
    /// The columns, as far as there is room.
    pub(super) columns: Vec<&'static Column>,
    /// What the rows are sorted by.
    pub(super) sort: Sort,
    /// The pause between two readings.
    pub(super) pause: Duration,
    /// Whether new readings are asked for.
    pub(super) flow: Flow,
    /// What is on the screen.
    pub(super) page: Page,
    /// The instance that is marked.
    pub(super) marked: Option<Key>,
    /// The first row of the list, and of the page that lies over it, that is on the screen.
    pub(super) top: usize,
    /// As [`top`](Self::top), of the page of one instance and of the help.
    pub(super) inner_top: usize,
    /// How many rows the screen had room for when it was drawn last.
    pub(super) room: usize,
    /// The last hour of the instance that is looked at.
    pub(super) history: Option<(Key, Result<History, String>)>,
    /// What can be shown.
    pub(super) glyphs: Glyphs,
    /// The graphs of each instance, which are not asked for at each reading.
    recent: BTreeMap<Key, BTreeMap<String, Vec<Option<f32>>>>,
}

/// Whether new readings are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    /// They are.
    Live,
    /// `p` was pressed.
    Paused,
}

/// What is on the screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Page {
    /// All instances.
    List,
    /// All instances, and a line to type what they are filtered by.
    Typing,
    /// One instance.
    Instance,
    /// What keys do.
    Help,
}

/// What a key asks of those who know terminal and server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// Nothing.
    Nothing,
    /// To be drawn with what has changed.
    Draw,
    /// To be drawn anew.
    Redraw,
    /// A new reading at once.
    Read,
    /// The history of the marked instance.
    History,
    /// To be stopped, as Ctrl-Z does.
    Suspend,
    /// To end.
    Quit,
}

/// What tells this instance from all others.
pub(super) fn key(instance: &InstanceUsage) -> Key {
    Key {
        location: instance.location.clone(),
        project: instance.project.clone(),
        name: instance.name.clone(),
        kind: instance.instance_type.clone(),
    }
}

impl View {
    /// A screen of all instances.
    pub(super) fn new(columns: Vec<&'static Column>, sort: Sort, pause: Duration, glyphs: Glyphs) -> Self {
        Self {
            usage: Usage::default(),
            read_at: Instant::now(),
            missing: Vec::new(),
            trouble: None,
            filters: Vec::new(),
            words: Words::default(),
            columns,
            sort,
            pause,
            flow: Flow::Live,
            page: Page::List,
            marked: None,
            top: 0,
            inner_top: 0,
            room: 0,
            history: None,
            glyphs,
            recent: BTreeMap::new(),
        }
    }

    /// Takes a new reading. Graphs that it brings are kept; without, the former ones stay, of instances that still run.
    pub(super) fn read(&mut self, reading: Reading, at: Instant) {
        let Reading { mut usage, missing } = reading;
        let mut recent = BTreeMap::new();
        for instance in &mut usage.instances {
            let key = key(instance);
            let graphs = std::mem::take(&mut instance.recent);
            let graphs = if graphs.is_empty() { self.recent.remove(&key) } else { Some(graphs) };
            recent.extend(graphs.map(|graphs| (key, graphs)));
        }
        self.recent = recent;
        self.usage = usage;
        self.missing = missing;
        self.read_at = at;
        self.trouble = None;
    }

    /// The graph of a figure of an instance.
    pub(super) fn recent(&self, instance: &InstanceUsage, figure: &str) -> &[Option<f32>] {
        self.recent.get(&key(instance)).and_then(|graphs| graphs.get(figure)).map_or(&[], Vec::as_slice)
    }

    /// The instances that are meant, sorted.
    pub(super) fn rows(&self) -> Vec<&InstanceUsage> {
        let meant = |instance: &&InstanceUsage| {
            let chosen: &dyn Chosen = *instance;
            self.filters.iter().all(|filter| filter.passes(chosen)) && self.words.pass(instance)
        };
        let mut rows: Vec<_> = self.usage.instances.iter().filter(meant).collect();
        self.sort.apply(&mut rows, self.usage.time);
        rows
    }

    /// The instance that is marked, and its row.
    pub(super) fn marked<'a>(&self, rows: &[&'a InstanceUsage]) -> Option<(usize, &'a InstanceUsage)> {
        let marked = self.marked.as_ref()?;
        let is_it = |i: &&InstanceUsage| {
            (&i.name, &i.project, &i.instance_type, &i.location)
                == (&marked.name, &marked.project, &marked.kind, &marked.location)
        };
        let row = rows.iter().position(is_it)?;
        rows.get(row).map(|instance| (row, *instance))
    }

    /// What a key does.
    pub(super) fn press(&mut self, pressed: KeyEvent) -> Wish {
        let control = pressed.modifiers.contains(KeyModifiers::CONTROL);
        match pressed.code {
            KeyCode::Char('c' | 'C') if control => return Wish::Quit,
            KeyCode::Char('z' | 'Z') if control => return Wish::Suspend,
            // What a terminal shows may be damaged by others that write to it.
            KeyCode::Char('l' | 'L') if control => return Wish::Redraw,
            KeyCode::Char(_) if control && self.page != Page::Typing => return Wish::Nothing,
            _ => {}
        }
        match self.page {
            Page::Typing => self.press_typing(pressed.code, pressed.modifiers),
            Page::List => self.press_list(pressed.code),
            Page::Instance => self.press_instance(pressed.code),
            Page::Help => self.press_help(pressed.code),
        }
    }

    fn press_typing(&mut self, code: KeyCode, modifiers: KeyModifiers) -> Wish {
        match code {
            KeyCode::Enter => self.page = Page::List,
            KeyCode::Esc => {
                self.words = Words::default();
                self.page = Page::List;
            }
            KeyCode::Backspace => self.words.take(),
            KeyCode::Char('u') if modifiers.contains(KeyModifiers::CONTROL) => self.words = Words::default(),
            KeyCode::Char(c) if !modifiers.intersects(KeyModifiers::CONTROL | KeyModifiers::ALT) => {
                self.words.add(c)
            }
            KeyCode::Up | KeyCode::Down | KeyCode::PageUp | KeyCode::PageDown => return self.walk(code),
            _ => return Wish::Nothing,
        }
        self.top = 0;
        Wish::Draw
    }

    fn press_list(&mut self, code: KeyCode) -> Wish {
        match code {
            KeyCode::Char('q') => return Wish::Quit,
            KeyCode::Esc if self.words.is_empty() => return Wish::Quit,
            KeyCode::Esc => self.words = Words::default(),
            KeyCode::Char('/') => self.page = Page::Typing,
            KeyCode::Enter => return self.look_at_marked(),
            KeyCode::Char('<') | KeyCode::Left => self.sort_by_neighbour(Order::Reversed),
            KeyCode::Char('>' | 's') | KeyCode::Right => self.sort_by_neighbour(Order::Usual),
            KeyCode::Char('r') => self.sort.order = self.sort.order.reversed(),
            // The letters of top, htop and lxc-top.
            KeyCode::Char('c' | 'P') => self.sort_by("cpu"),
            KeyCode::Char('m' | 'M') => self.sort_by("memory"),
            KeyCode::Char('n' | 'N' | 'a') => self.sort_by("name"),
            KeyCode::Char('d') => self.sort_by("disk"),
            KeyCode::Char('w') => self.sort_by("written"),
            KeyCode::Char('t' | 'T') => self.sort_by("cpu-time"),
            code => return self.press_anywhere(code),
        }
        Wish::Draw
    }

    fn press_instance(&mut self, code: KeyCode) -> Wish {
        match code {
            KeyCode::Char('q') | KeyCode::Esc | KeyCode::Enter | KeyCode::Backspace => self.page = Page::List,
            KeyCode::Left | KeyCode::Char('<') => return self.look_at_neighbour(KeyCode::Up),
            KeyCode::Right | KeyCode::Char('>') => return self.look_at_neighbour(KeyCode::Down),
            code => return self.press_anywhere(code),
        }
        Wish::Draw
    }

    fn press_help(&mut self, code: KeyCode) -> Wish {
        match code {
            KeyCode::Char('q' | '?' | 'h') | KeyCode::Esc | KeyCode::Enter | KeyCode::F(1) => {
                self.page = Page::List
            }
            code => return self.press_anywhere(code),
        }
        Wish::Draw
    }

    /// Keys that do the same on every page but the one where text is typed.
    fn press_anywhere(&mut self, code: KeyCode) -> Wish {
        match code {
            KeyCode::Char('p' | ' ') => {
                self.flow = match self.flow {
                    Flow::Live => Flow::Paused,
                    Flow::Paused => Flow::Live,
                };
                return if self.flow == Flow::Live { Wish::Read } else { Wish::Draw };
            }
            KeyCode::Char('+' | '=') => self.pause = longer(self.pause),
            KeyCode::Char('-') => self.pause = shorter(self.pause),
            KeyCode::Char('R') | KeyCode::F(5) => return Wish::Read,
            KeyCode::Char('?' | 'h') | KeyCode::F(1) => {
                self.page = Page::Help;
                self.inner_top = 0;
            }
            code => return self.walk(code),
        }
        Wish::Draw
    }

    /// Moves the mark through the list, or scrolls the page that lies over it.
    fn walk(&mut self, code: KeyCode) -> Wish {
        let page = self.room.saturating_sub(1).max(1);
        let step = |from: usize| match code {
            KeyCode::Up | KeyCode::Char('k') => Some(from.saturating_sub(1)),
            KeyCode::Down | KeyCode::Char('j') => Some(from.saturating_add(1)),
            KeyCode::PageUp => Some(from.saturating_sub(page)),
            KeyCode::PageDown => Some(from.saturating_add(page)),
            KeyCode::Home | KeyCode::Char('g') => Some(0),
            KeyCode::End | KeyCode::Char('G') => Some(usize::MAX),
            _ => None,
        };
        if matches!(self.page, Page::Instance | Page::Help) {
            let Some(to) = step(self.inner_top) else { return Wish::Nothing };
            self.inner_top = to;
            return Wish::Draw;
        }
        let rows = self.rows();
        let Some(to) = step(self.marked(&rows).map_or(0, |(row, _)| row)) else { return Wish::Nothing };
        let marked = rows.get(to.min(rows.len().saturating_sub(1))).map(|instance| key(instance));
        // The first key only shows where the mark is.
        self.marked = match (self.marked(&rows), code) {
            (None, KeyCode::Down | KeyCode::Char('j')) => rows.first().map(|instance| key(instance)),
            _ => marked,
        };
        Wish::Draw
    }

    fn look_at_marked(&mut self) -> Wish {
        let rows = self.rows();
        let Some(instance) = self.marked(&rows).map(|(_, i)| i).or_else(|| rows.first().copied()) else {
            return Wish::Nothing;
        };
        self.marked = Some(key(instance));
        self.page = Page::Instance;
        self.inner_top = 0;
        Wish::History
    }

    fn look_at_neighbour(&mut self, towards: KeyCode) -> Wish {
        self.page = Page::List;
        self.walk(towards);
        self.look_at_marked()
    }

    /// Sorts by a column; by the same one again, the other way around.
    fn sort_by(&mut self, key: &str) {
        let Some(column) = COLUMNS.iter().find(|column| column.key == key) else { return };
        let order = if self.sort.column.key == key { self.sort.order.reversed() } else { Order::Usual };
        self.sort = Sort { column, order };
        self.top = 0;
    }

    /// Sorts by the column beside the one that was sorted by.
    fn sort_by_neighbour(&mut self, towards: Order) {
        let sortable: Vec<_> = self.columns.iter().filter(|column| column.is_sortable()).collect();
        let now = sortable.iter().position(|column| column.key == self.sort.column.key);
        let next = match (now, towards) {
            (None, _) => 0,
            (Some(now), Order::Usual) => now + 1,
            (Some(now), Order::Reversed) => now + sortable.len() - 1,
        };
        if let Some(column) = sortable.get(next % sortable.len().max(1)) {
            self.sort = Sort { column, order: Order::Usual };
            self.top = 0;
        }
    }
}

fn longer(pause: Duration) -> Duration {
    let step = if pause < Duration::from_secs(10) { 1 } else { 5 };
    (pause + Duration::from_secs(step)).min(PAUSES.1)
}

fn shorter(pause: Duration) -> Duration {
    let step = if pause <= Duration::from_secs(10) { 1 } else { 5 };
    pause.saturating_sub(Duration::from_secs(step)).max(PAUSES.0)
}
