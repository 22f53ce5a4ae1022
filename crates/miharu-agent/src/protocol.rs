//! What goes over the wire: lines of JSON, one for a request and one for its answer.
//!
//! The host sends `{"request":"metrics","id":7}` and a newline, the agent answers `{"id":7,"metrics":{…}}` and a newline. Both ends
//! begin their first line with a newline of its own, so that what an earlier run of either left half-written ends there. Blank
//! lines, and lines that are no request, mean nothing. Of several requests that have come the last one is answered: the others' time
//! is over.

use miharu_api::report::{Answer, MAX_LINE, Request};

use crate::report::Reporter;

/// The longest request, in bytes.
const MAX_REQUEST: usize = 4096;

/// Lines as they come in, in pieces of any size.
#[derive(Debug, Default)]
pub struct Lines {
    pending: Vec<u8>,
    /// Whether the line is too long already, so that all up to its end is passed over.
    is_too_long: bool,
}

impl Lines {
    /// Takes what was read, and gives the newest request that is complete with it.
    pub fn push(&mut self, bytes: &[u8]) -> Option<Request> {
        let mut newest = None;
        let mut pieces = bytes.split(|b| *b == b'\n');
        // What follows the last newline is the beginning of a line.
        let rest = pieces.next_back().unwrap_or_default();
        for piece in pieces {
            self.extend(piece);
            let line = std::mem::take(&mut self.pending);
            if !std::mem::take(&mut self.is_too_long)
                && let Ok(request) = serde_json::from_slice(&line)
            {
                newest = Some(request);
            }
        }
        self.extend(rest);
        newest
    }

    fn extend(&mut self, piece: &[u8]) {
        if self.is_too_long || self.pending.len().saturating_add(piece.len()) > MAX_REQUEST {
            self.is_too_long = true;
            self.pending.clear();
        } else {
            self.pending.extend(piece);
        }
    }
}

/// The line that answers a request.
#[must_use]
pub fn answer(request: &Request, reporter: &Reporter) -> Vec<u8> {
    if request.request != "metrics" {
        return failure(request.id, "unknown request");
    }
    let answer = Answer { id: request.id, metrics: Some(reporter.report()), error: None };
    match line(&answer) {
        Some(line) if line.len() <= MAX_LINE => line,
        _ => failure(request.id, "the report is too long"),
    }
}

fn failure(id: u64, why: &str) -> Vec<u8> {
    line(&Answer { id, metrics: None, error: Some(why.to_owned()) }).unwrap_or_default()
}

fn line(answer: &Answer) -> Option<Vec<u8>> {
    let mut line = serde_json::to_vec(answer).ok()?;
    line.push(b'\n');
    Some(line)
}

#[cfg(test)]
mod tests {
    use miharu_linux::Roots;
    use proptest::prelude::*;

    use super::*;

    fn request(id: u64) -> Request {
        Request { request: "metrics".to_owned(), id }
    }

    #[test]
    fn requests_in_pieces_and_several_at_once() {
        let mut lines = Lines::default();
        assert_eq!(lines.push(b"\n{\"request\":\"met"), None);
        assert_eq!(lines.push(b"rics\",\"id\":1}"), None);
        assert_eq!(lines.push(b"\n"), Some(request(1)));
        assert_eq!(
            lines.push(b"{\"request\":\"metrics\",\"id\":2}\nnoise\n{\"request\":\"metrics\",\"id\":3,\"x\":1}\n{\"re"),
            Some(request(3))
        );
        assert_eq!(lines.push(b"\n\n"), None, "half a request that a new line ended");
    }

    #[test]
    fn a_line_without_end_is_passed_over() {
        let mut lines = Lines::default();
        for _ in 0..100 {
            assert_eq!(lines.push(&[b'x'; 1000]), None);
            assert!(lines.pending.len() <= MAX_REQUEST);
        }
        assert_eq!(lines.push(b"{\"request\":\"metrics\",\"id\":4}\n"), None, "it is the end of that line");
        assert_eq!(lines.push(b"{\"request\":\"metrics\",\"id\":5}\n"), Some(request(5)));
    }

    #[test]
    fn answers_are_one_line_with_the_requests_number() {
        let reporter = Reporter::new(Roots::default());
        let line = answer(&request(7), &reporter);
        assert_eq!(line.iter().filter(|b| **b == b'\n').count(), 1);
        let read: Answer = serde_json::from_slice(&line).unwrap();
        assert_eq!(read.id, 7);
        assert!(read.metrics.unwrap().procs_total.is_some());
        let line = answer(&Request { request: "format".to_owned(), id: 8 }, &reporter);
        assert_eq!(line, b"{\"id\":8,\"error\":\"unknown request\"}\n");
    }

    proptest! {
        #[test]
        fn nothing_panics_and_requests_survive_any_noise(noise in proptest::collection::vec(any::<u8>(), 0..6000), cut in 0usize..6000) {
            let mut lines = Lines::default();
            let mut text = noise;
            text.extend(b"\n{\"request\":\"metrics\",\"id\":9}\n");
            let (first, second) = text.split_at(cut.min(text.len() - 1));
            lines.push(first);
            prop_assert_eq!(lines.push(second), Some(request(9)));
        }
    }
}
