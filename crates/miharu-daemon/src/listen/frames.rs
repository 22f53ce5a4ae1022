//! Where HTTP/2's frames begin and end in what a client sends (RFC 9113), looked at from outside: hyper has no deadline for a head
//! that is sent byte by byte, and takes any number of frames that ask for nothing.

use tokio::time::Instant;

/// What a connection begins with, RFC 9113 section 3.4.
const PREFACE: usize = 24;
/// Length, type, flags and stream.
const HEADER: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PUSH_PROMISE: u8 = 5;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

/// Frames beside requests that may come at once, and how many a second are forgiven. Clients send a handful at the beginning of a
/// connection and one now and then.
const TALK: f64 = 200.0;
const TALK_A_SECOND: f64 = 20.0;
/// A client that reads an answer says so for each piece of it: a frame for so many bytes that were sent to it is no talk.
const WINDOW_BYTES: f64 = 256.0;
/// What was sent counts up to so many frames, so that it cannot be saved up for later.
const WINDOWS: f64 = 65_536.0;

/// The client talks too much.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many HTTP/2 frames that ask for nothing")]
pub(crate) struct TooMuch;

/// The reader's place in the stream of frames.
#[derive(Debug)]
pub(crate) struct Frames {
    place: Place,
    /// Whether a head was begun and its last frame has not come.
    in_head: bool,
    talk: f64,
    talk_at: Instant,
    windows: f64,
}

#[derive(Debug)]
enum Place {
    /// Bytes of the preface that are to come.
    Preface(usize),
    /// What has come of a frame's header.
    Header([u8; HEADER], usize),
    /// Bytes of a frame that are to come.
    Payload(usize),
}

impl Frames {
    pub(crate) fn new(now: Instant) -> Self {
        Self { place: Place::Preface(PREFACE), in_head: false, talk: TALK, talk_at: now, windows: TALK }
    }

    /// Whether the client has begun something and owes the rest.
    pub(crate) fn is_partial(&self) -> bool {
        self.in_head || !matches!(self.place, Place::Header(_, 0))
    }

    /// So many bytes were sent to the client.
    pub(crate) fn wrote(&mut self, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.windows = (self.windows + f64::from(bytes) / WINDOW_BYTES).min(WINDOWS);
    }

    /// The client sent these bytes.
    pub(crate) fn read(&mut self, mut bytes: &[u8], now: Instant) -> Result<(), TooMuch> {
        while let Some((first, rest)) = bytes.split_first() {
            match &mut self.place {
                Place::Preface(left) | Place::Payload(left) => {
                    let step = (*left).min(bytes.len());
                    *left -= step;
                    if *left == 0 {
                        self.place = Place::Header([0; HEADER], 0);
                    }
                    bytes = bytes.get(step..).unwrap_or_default();
                }
                Place::Header(header, filled) => {
                    if let Some(byte) = header.get_mut(*filled) {
                        *byte = *first;
                    }
                    *filled += 1;
                    bytes = rest;
                    if *filled == HEADER {
                        let [high, middle, low, kind, flags, ..] = *header;
                        let length = u32::from_be_bytes([0, high, middle, low]);
                        let length = usize::try_from(length).unwrap_or(usize::MAX);
                        self.place = match length {
                            0 => Place::Header([0; HEADER], 0),
                            length => Place::Payload(length),
                        };
                        self.frame(kind, flags, length, now)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn frame(&mut self, kind: u8, flags: u8, length: usize, now: Instant) -> Result<(), TooMuch> {
        match kind {
            HEADERS | PUSH_PROMISE | CONTINUATION => self.in_head = flags & END_HEADERS == 0,
            _ => {}
        }
        match kind {
            HEADERS => return Ok(()),
            DATA if length > 0 => return Ok(()),
            WINDOW_UPDATE if self.windows >= 1.0 => {
                self.windows -= 1.0;
                return Ok(());
            }
            _ => {}
        }
        let won = now.saturating_duration_since(self.talk_at).as_secs_f64() * TALK_A_SECOND;
        self.talk = (self.talk + won).min(TALK) - 1.0;
        self.talk_at = now;
        if self.talk < 0.0 { Err(TooMuch) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const PREFACE_TEXT: &[u8; PREFACE] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    fn begun(now: Instant) -> Frames {
        let mut frames = Frames::new(now);
        assert!(frames.is_partial());
        frames.read(PREFACE_TEXT, now).unwrap();
        assert!(!frames.is_partial());
        frames
    }

    #[test]
    fn a_head_is_partial_until_its_last_byte_however_it_is_cut() {
        let now = Instant::now();
        let head =
            [frame(HEADERS, 0, b"abc"), frame(CONTINUATION, 0, b""), frame(CONTINUATION, END_HEADERS, b"d")];
        let bytes = head.concat();
        for cut in 1..bytes.len() {
            let mut frames = begun(now);
            frames.read(&bytes[..cut], now).unwrap();
            assert!(frames.is_partial(), "{cut}");
            frames.read(&bytes[cut..], now).unwrap();
            assert!(!frames.is_partial(), "{cut}");
        }
    }

    #[test]
    fn talk_has_a_rate() {
        for kind in [2, 3, 4, 6, WINDOW_UPDATE, CONTINUATION, 77] {
            let now = Instant::now();
            let one = frame(kind, END_HEADERS, b"12345678");
            let mut frames = begun(now);
            let first = (0..1000).take_while(|_| frames.read(&one, now).is_ok()).count();
            assert!((200..=400).contains(&first), "{kind}: {first}");
            let mut frames = begun(now);
            let at = |number: u32| now + Duration::from_millis(50) * number;
            assert!(
                (0..1000).all(|number| frames.read(&one, at(number)).is_ok()),
                "{kind}: 20 a second are fine"
            );
        }
        let now = Instant::now();
        let mut frames = begun(now);
        let empty = frame(DATA, 0, b"");
        assert!((0..300).any(|_| frames.read(&empty, now).is_err()));
    }

    #[test]
    fn requests_and_their_answers_are_no_talk() {
        let now = Instant::now();
        let mut frames = begun(now);
        for _ in 0..10_000 {
            frames.read(&frame(HEADERS, END_HEADERS, b"get"), now).unwrap();
            frames.read(&frame(DATA, 0, b"body"), now).unwrap();
            frames.wrote(16_384);
            frames.read(&frame(WINDOW_UPDATE, 0, b"1234").repeat(8), now).unwrap();
        }
    }

    proptest! {
        #[test]
        fn any_bytes_cut_anywhere_are_read_alike(
            bytes in prop::collection::vec(any::<u8>(), 0..300), at in any::<prop::sample::Index>()
        ) {
            let now = Instant::now();
            let (mut whole, mut cut) = (Frames::new(now), Frames::new(now));
            let at = at.index(bytes.len() + 1);
            prop_assert_eq!(whole.read(&bytes, now), cut.read(&bytes[..at], now).and_then(|()| cut.read(&bytes[at..], now)));
            prop_assert_eq!(whole.is_partial(), cut.is_partial());
        }
    }
}
