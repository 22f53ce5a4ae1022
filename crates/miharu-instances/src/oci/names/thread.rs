//! The thread that asks, apart from all others: see [`Apart`].

use std::collections::HashMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use miharu_linux::apart::{self, Apart};
use miharu_linux::process::parse_stat;
use miharu_linux::read::Buffer;

use super::Renames;
use super::state::{Job, Mark, Shared};
use crate::Incarnation;
use crate::oci::sockets::Sockets;
use crate::tree;

/// Starts one.
///
/// # Errors
/// Where no thread can be started.
pub(super) fn start(shared: &Arc<Shared>) -> io::Result<()> {
    apart::spawn(Asks(Arc::clone(shared)))
}

/// Answers questions, and looks after what was answered.
struct Asks(Arc<Shared>);

impl Apart for Asks {
    const NAME: &'static str = "names";
    /// SQLite, and a conversation in HTTP/2.
    const STACK: usize = 2 << 20;

    /// Better asked in the table of all than not at all.
    fn run(self, _table: io::Result<()>) {
        work(&self.0);
    }
}

/// Counts a thread, also one that ends in a panic.
struct Presence<'s> {
    shared: &'s Shared,
    is_counted: bool,
}

impl Drop for Presence<'_> {
    fn drop(&mut self) {
        if self.is_counted {
            let mut state = self.shared.lock();
            state.threads = state.threads.saturating_sub(1);
        }
    }
}

/// Holds a place, as above.
struct Held<'s> {
    shared: &'s Shared,
    place: Arc<Path>,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.shared.lock().release(&self.place);
        self.shared.answered.notify_all();
        // Whoever was stuck here may end now; the one that stays sleeps and does not know what is left at this place.
        self.shared.work.notify_all();
    }
}

fn work(shared: &Shared) {
    let mut presence = Presence { shared, is_counted: true };
    let mut sockets = Sockets::default();
    let mut buffer = Buffer::new();
    let mut state = shared.lock();
    loop {
        let now = Instant::now();
        if state.dismiss(now) {
            presence.is_counted = false;
            return;
        }
        if let Some((place, job)) = state.take(now) {
            drop(state);
            let held = Held { shared, place };
            match job {
                Job::Ask(incarnation) => ask(shared, incarnation, &mut sockets, &mut buffer),
                Job::Look => look_after(shared, &held.place, &mut buffer),
            }
            drop(held);
            state = shared.lock();
            continue;
        }
        let waiting = match state.until_work(now) {
            Some(left) => {
                shared.work.wait_timeout(state, left).map(|(state, _)| state).map_err(|e| e.into_inner().0)
            }
            None => shared.work.wait(state).map_err(PoisonError::into_inner),
        };
        state = waiting.unwrap_or_else(|state| state);
    }
}

/// Asks a container's question, unless it is gone: many are by the time it is their turn.
fn ask(shared: &Shared, incarnation: Incarnation, sockets: &mut Sockets, buffer: &mut Buffer) {
    let mut state = shared.lock();
    let Some(entry) = state.entries.get_mut(&incarnation) else { return };
    let Some(mut question) = entry.question.take() else { return };
    let process = entry.process.clone();
    drop(state);
    let answer = is_running(&process, incarnation, buffer).then(|| {
        let mark = mark_of(&question.renames());
        (question.ask(sockets), mark)
    });
    let mut state = shared.lock();
    state.progress = Some(Instant::now());
    let Some((answer, mark)) = answer else { return state.forget(incarnation) };
    if let Some(entry) = state.entries.get_mut(&incarnation) {
        entry.question = Some(question);
        entry.mark = mark;
    }
    state.note(incarnation, answer);
}

/// Forgets the containers of a place that are gone, and queues those that may be called otherwise or are to be asked again.
fn look_after(shared: &Shared, place: &Arc<Path>, buffer: &mut Buffer) {
    let now = Instant::now();
    let state = shared.lock();
    let of_place = state.entries.iter().filter(|(_, entry)| entry.place == *place);
    let rows: Vec<_> = of_place
        .filter_map(|(incarnation, entry)| {
            let renames = entry.question.as_ref()?.renames();
            Some((*incarnation, entry.process.clone(), renames, entry.mark, entry.again))
        })
        .collect();
    drop(state);
    let mut marks: HashMap<Renames, Option<Mark>> = HashMap::new();
    let (mut gone, mut due) = (Vec::new(), Vec::new());
    for (incarnation, process, renames, before, again) in rows {
        if !is_running(&process, incarnation, buffer) {
            gone.push(incarnation);
            continue;
        }
        let is_due = match (again, renames) {
            (Some(again), _) => now >= again,
            (None, Renames::Never) => false,
            (None, Renames::Anybody) => true,
            (None, change) => *marks.entry(change).or_insert_with_key(mark_of) != before,
        };
        if is_due {
            due.push(incarnation);
        }
    }
    let mut state = shared.lock();
    for incarnation in gone {
        state.forget(incarnation);
    }
    for incarnation in due {
        state.queue(Arc::clone(place), incarnation);
    }
    if let Some(place) = state.places.get_mut(place) {
        place.looked = Some(Instant::now());
    }
}

/// Whether a container's init is still this one and alive. It is opened anew each time, as what others have opened is not open here.
fn is_running(process: &Path, incarnation: Incarnation, buffer: &mut Buffer) -> bool {
    let path = process.join("stat");
    match buffer.read(&path) {
        Ok(text) => parse_stat(text)
            .is_none_or(|stat| stat.starttime == incarnation.init_start && tree::is_alive(&stat)),
        // Any other error, such as that no descriptor is left, says nothing of the process.
        Err(error) => !error.is_gone(),
    }
}

/// The mark of the file that shows new names.
fn mark_of(renames: &Renames) -> Option<Mark> {
    let metadata = match renames {
        Renames::Change(path) => std::fs::symlink_metadata(path).ok()?,
        Renames::ChangeOfUsers(file) => file.metadata().ok()?,
        Renames::Never | Renames::Anybody => return None,
    };
    Some((metadata.ino(), metadata.modified().ok()?, metadata.len()))
}
