//! A container that has made a thousand cgroups below its own.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use miharu_e2e::scratch::{Entry, Note};
use miharu_e2e::{cgroup, interrupt};

use crate::book::Book;
use crate::crowd::Crowd;
use crate::subject::Subject;

/// Cgroups in a slice, itself included.
const IN_A_SLICE: usize = 30;

pub(crate) fn run(book: &mut Book) -> Result<()> {
    let mut crowd = Crowd::new(1)?;
    crowd.grow(10)?;
    let mut subject = Subject::start()?;
    book.note("10 containers, none nested", subject.measure()?)?;
    let payload = crowd.first_cgroup()?;
    let count = book.scaled(1000);
    let nested = make(&payload, count)?;
    book.note(&format!("{count} nested in one of them"), subject.measure()?)?;
    let mut subject = Subject::start()?;
    book.note(&format!("{count} nested, a daemon that starts then"), subject.measure()?)?;
    drop(nested);
    book.note("they are gone again, the same daemon", subject.measure()?)
}

/// Makes cgroups below one, in every hierarchy that it is in; they are removed when the note is dropped.
fn make(parent: &str, count: usize) -> Result<Note> {
    let top = format!("{parent}/growth");
    let note = Entry::Cgroup(&top).note()?;
    for hierarchy in cgroup::hierarchies() {
        let top = hierarchy.join(top.trim_start_matches('/'));
        if !top.parent().is_some_and(Path::is_dir) {
            continue;
        }
        // Tens in a slice and slices side by side, as systemd makes them, rather than one long list.
        for number in 0..count.saturating_sub(1) {
            interrupt::check()?;
            let slice = top.join(format!("s{}", number / IN_A_SLICE));
            let path = if number % IN_A_SLICE == 0 { slice } else { slice.join(number.to_string()) };
            fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
        }
    }
    Ok(note)
}
