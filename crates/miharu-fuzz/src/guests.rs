//! What guests, their agents and their monitors say.

use miharu_agent::protocol::Lines;
use miharu_collect::fuzzing;

use crate::cursor::Cursor;
use crate::figures;

pub(crate) fn agent(bytes: &[u8]) {
    figures::check(fuzzing::agent(bytes));
}

pub(crate) fn guest_agent(bytes: &[u8]) {
    figures::check(fuzzing::guest_agent(bytes));
}

pub(crate) fn monitor(bytes: &[u8]) {
    figures::check(fuzzing::monitor(bytes));
}

pub(crate) fn libvirt(bytes: &[u8]) {
    figures::check(fuzzing::libvirt(bytes));
}

pub(crate) fn daemons(bytes: &[u8]) {
    figures::check_runtime(fuzzing::daemon(bytes));
}

/// However a request is cut, the last whole one of it is the one that is answered.
pub(crate) fn request(bytes: &[u8]) {
    let mut cursor = Cursor(bytes);
    let cut = usize::from(cursor.byte()).max(1);
    let mut whole = Lines::default();
    let at_once = whole.push(cursor.0);
    let mut lines = Lines::default();
    let mut last = None;
    for piece in cursor.0.chunks(cut) {
        last = lines.push(piece).or(last);
    }
    assert_eq!(last, at_once);
}
