//! The few messages of libvirt's RPC that are needed, in XDR (RFC 4506).
//!
//! libvirt's `docs/kbase/internals/rpc.rst` describes the frame, `src/remote/*_protocol.x` the messages: a length that counts
//! itself, six numbers, then arguments or results. All is big-endian and padded to four bytes.

use super::bounds::MAX_ROWS;

/// The program of most calls, and that of calls that only QEMU's driver knows.
pub(crate) const REMOTE: u32 = 0x2000_8086;
pub(crate) const QEMU: u32 = 0x2000_8087;

/// Calls of [`REMOTE`].
pub(crate) const CONNECT_OPEN: u32 = 1;
pub(crate) const DOMAIN_LOOKUP_BY_NAME: u32 = 23;
pub(crate) const AUTH_LIST: u32 = 66;
pub(crate) const ALL_DOMAIN_STATS: u32 = 344;

/// The call of [`QEMU`] that puts a command to a guest agent.
pub(crate) const AGENT_COMMAND: u32 = 3;

/// Which figures are asked for: the balloon's and those of block devices.
const STATS_BALLOON: u32 = 1 << 2;
const STATS_BLOCK: u32 = 1 << 5;
/// A domain that is busy is told of without waiting for it.
const STATS_NOWAIT: u32 = 1 << 29;

const VERSION: u32 = 1;
const CALL: u32 = 0;
const REPLY: u32 = 1;
const STATUS_OK: u32 = 0;

/// Length and header of a message, bytes.
pub(crate) const LENGTH: usize = 4;
const HEADER: usize = 24;

/// The longest string that is read, bytes.
const MAX_STRING: usize = super::bounds::MAX_ANSWER;

/// The most parameters of a domain's figures.
const MAX_PARAMETERS: usize = 64 * MAX_ROWS;

/// A domain, as libvirt names one on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Domain {
    pub(crate) name: String,
    pub(crate) uuid: [u8; 16],
    pub(crate) id: u32,
}

/// A named figure.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Number(u64),
    Text(String),
    /// Of a kind that is not needed.
    Other,
}

/// A whole call.
pub(crate) fn call(program: u32, procedure: u32, serial: u32, arguments: &[u8]) -> Vec<u8> {
    let length = u32::try_from(LENGTH + HEADER + arguments.len()).unwrap_or(u32::MAX);
    let mut bytes = Vec::with_capacity(LENGTH + HEADER + arguments.len());
    for number in [length, program, VERSION, procedure, CALL, serial, STATUS_OK] {
        bytes.extend(number.to_be_bytes());
    }
    bytes.extend(arguments);
    bytes
}

/// The arguments of [`CONNECT_OPEN`].
pub(crate) fn open(uri: &str) -> Vec<u8> {
    let mut bytes = 1u32.to_be_bytes().to_vec();
    put_string(&mut bytes, uri);
    bytes.extend(0u32.to_be_bytes());
    bytes
}

/// The arguments of [`DOMAIN_LOOKUP_BY_NAME`].
pub(crate) fn lookup(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_string(&mut bytes, name);
    bytes
}

/// The arguments of [`AGENT_COMMAND`]; libvirt waits for so many seconds.
pub(crate) fn agent_command(domain: &Domain, command: &str, seconds: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_domain(&mut bytes, domain);
    put_string(&mut bytes, command);
    bytes.extend(seconds.to_be_bytes());
    bytes.extend(0u32.to_be_bytes());
    bytes
}

/// The arguments of [`ALL_DOMAIN_STATS`] for one domain.
pub(crate) fn statistics_of(domain: &Domain) -> Vec<u8> {
    let mut bytes = 1u32.to_be_bytes().to_vec();
    put_domain(&mut bytes, domain);
    bytes.extend((STATS_BALLOON | STATS_BLOCK).to_be_bytes());
    bytes.extend(STATS_NOWAIT.to_be_bytes());
    bytes
}

fn put_string(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend(u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
    bytes.extend(text.as_bytes());
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

fn put_domain(bytes: &mut Vec<u8>, domain: &Domain) {
    put_string(bytes, &domain.name);
    bytes.extend(domain.uuid);
    bytes.extend(domain.id.to_be_bytes());
}

/// The answer to a call: its results, or libvirt's error.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Reply<'a> {
    pub(crate) serial: u32,
    pub(crate) result: Result<&'a [u8], String>,
}

/// How many bytes follow a message's length.
pub(crate) fn following(length: [u8; LENGTH]) -> Option<usize> {
    let length = usize::try_from(u32::from_be_bytes(length)).ok()?;
    length.checked_sub(LENGTH).filter(|rest| (HEADER..=2 * MAX_STRING).contains(rest))
}

/// Reads a message without its length; nothing where it is no answer (an event, a stream's data).
pub(crate) fn reply(message: &[u8]) -> Option<Reply<'_>> {
    let mut read = Reader(message);
    let (_program, _version, _procedure) = (read.number()?, read.number()?, read.number()?);
    let (kind, serial, status) = (read.number()?, read.number()?, read.number()?);
    if kind != REPLY {
        return None;
    }
    if status == STATUS_OK {
        return Some(Reply { serial, result: Ok(read.0) });
    }
    let (_code, _domain) = (read.number()?, read.number()?);
    let message = read.optional_string()?.unwrap_or_default();
    Some(Reply { serial, result: Err(message.chars().take(200).collect()) })
}

/// The result of [`DOMAIN_LOOKUP_BY_NAME`].
pub(crate) fn domain(result: &[u8]) -> Option<Domain> {
    Reader(result).domain()
}

/// The result of [`AGENT_COMMAND`]: the agent's own answer.
pub(crate) fn agent_answer(result: &[u8]) -> Option<String> {
    Reader(result).optional_string()?
}

/// The result of [`ALL_DOMAIN_STATS`] for one domain: names and values.
pub(crate) fn statistics(result: &[u8]) -> Option<Vec<(String, Value)>> {
    let mut read = Reader(result);
    if read.number()? == 0 {
        return Some(Vec::new());
    }
    read.domain()?;
    let count = read.number()? as usize;
    let mut values = Vec::new();
    for _ in 0..count.min(MAX_PARAMETERS) {
        let name = read.string()?;
        let value = match read.number()? {
            1 | 2 | 6 => Value::Number(u64::from(read.number()?)),
            3 | 4 => Value::Number(read.long()?),
            5 => {
                read.long()?;
                Value::Other
            }
            7 => Value::Text(read.string()?),
            _ => return None,
        };
        values.push((name, value));
    }
    Some(values)
}

/// Reads one value after the other.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(count)?;
        self.0 = tail;
        Some(head)
    }

    fn number(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.bytes(4)?.try_into().ok()?))
    }

    fn long(&mut self) -> Option<u64> {
        Some(u64::from_be_bytes(self.bytes(8)?.try_into().ok()?))
    }

    fn string(&mut self) -> Option<String> {
        let length = usize::try_from(self.number()?).ok().filter(|length| *length <= MAX_STRING)?;
        let text = self.bytes(length)?;
        self.bytes(length.next_multiple_of(4) - length)?;
        Some(String::from_utf8_lossy(text).into_owned())
    }

    /// `Some(None)` for a string that is there as absent.
    #[expect(clippy::option_option, reason = "what cannot be read is not what is absent")]
    fn optional_string(&mut self) -> Option<Option<String>> {
        match self.number()? {
            0 => Some(None),
            _ => Some(Some(self.string()?)),
        }
    }

    fn domain(&mut self) -> Option<Domain> {
        let name = self.string()?;
        let uuid = self.bytes(16)?.try_into().ok()?;
        Some(Domain { name, uuid, id: self.number()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn vm() -> Domain {
        Domain { name: "vm\"1,".to_owned(), uuid: *b"0123456789abcdef", id: 7 }
    }

    #[test]
    fn a_call_is_framed() {
        let bytes = call(REMOTE, CONNECT_OPEN, 2, &open("qemu:///system"));
        let expected: Vec<u8> = [
            [0, 0, 0, 56].as_slice(),
            &[0x20, 0, 0x80, 0x86],
            &[0, 0, 0, 1],
            &[0, 0, 0, 1],
            &[0, 0, 0, 0],
            &[0, 0, 0, 2],
            &[0, 0, 0, 0],
            &[0, 0, 0, 1],
            &[0, 0, 0, 14],
            b"qemu:///system\0\0",
            &[0, 0, 0, 0],
        ]
        .concat();
        assert_eq!(bytes, expected);
    }

    fn answered(kind: u32, status: u32, payload: &[u8]) -> Vec<u8> {
        let numbers = [REMOTE, VERSION, 1, kind, 9, status];
        numbers.into_iter().flat_map(u32::to_be_bytes).chain(payload.iter().copied()).collect()
    }

    #[test]
    fn answers_are_told_from_events_and_errors() {
        assert_eq!(reply(&answered(REPLY, 0, b"abcd")), Some(Reply { serial: 9, result: Ok(b"abcd") }));
        assert_eq!(reply(&answered(2, 0, b"abcd")), None);
        let mut error = [38u32, 10, 1].into_iter().flat_map(u32::to_be_bytes).collect::<Vec<u8>>();
        put_string(&mut error, "not connected");
        assert_eq!(
            reply(&answered(REPLY, 1, &error)),
            Some(Reply { serial: 9, result: Err("not connected".to_owned()) })
        );
        assert_eq!(reply(b""), None);
    }

    #[test]
    fn lengths_are_bounded() {
        assert_eq!(following([0, 0, 0, 28]), Some(24));
        assert_eq!(following([0, 0, 0, 27]), None);
        assert_eq!(following([0, 0, 0, 0]), None);
        assert_eq!(following([0xff; 4]), None);
    }

    #[test]
    fn domains_and_answers_are_read_as_written() {
        let mut bytes = Vec::new();
        put_domain(&mut bytes, &vm());
        assert_eq!(bytes.len(), 4 + 8 + 16 + 4);
        assert_eq!(domain(&bytes), Some(vm()));
        let mut answer = 1u32.to_be_bytes().to_vec();
        put_string(&mut answer, "{\"return\":{}}");
        assert_eq!(agent_answer(&answer).as_deref(), Some("{\"return\":{}}"));
        assert_eq!(agent_answer(&[0; 4]), None);
    }

    #[test]
    fn figures_of_all_kinds_are_read() {
        let mut bytes = 1u32.to_be_bytes().to_vec();
        put_domain(&mut bytes, &vm());
        bytes.extend(4u32.to_be_bytes());
        put_string(&mut bytes, "block.count");
        bytes.extend([0, 0, 0, 2, 0, 0, 0, 1]);
        put_string(&mut bytes, "block.0.name");
        bytes.extend([0, 0, 0, 7]);
        put_string(&mut bytes, "vda");
        put_string(&mut bytes, "block.0.rd.bytes");
        bytes.extend([0, 0, 0, 4, 0, 0, 0, 1, 0, 0, 0, 0]);
        put_string(&mut bytes, "x");
        bytes.extend([0, 0, 0, 5, 1, 2, 3, 4, 5, 6, 7, 8]);
        let expected = [
            ("block.count".to_owned(), Value::Number(1)),
            ("block.0.name".to_owned(), Value::Text("vda".to_owned())),
            ("block.0.rd.bytes".to_owned(), Value::Number(1 << 32)),
            ("x".to_owned(), Value::Other),
        ];
        assert_eq!(statistics(&bytes).unwrap(), expected);
        assert_eq!(statistics(&[0; 4]), Some(Vec::new()));
    }

    proptest! {
        #[test]
        fn no_bytes_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = (reply(&bytes), domain(&bytes), agent_answer(&bytes), statistics(&bytes));
        }

        #[test]
        fn strings_come_back(text in ".{0,80}") {
            let mut bytes = Vec::new();
            put_string(&mut bytes, &text);
            prop_assert_eq!(bytes.len() % 4, 0);
            prop_assert_eq!(Reader(&bytes).string(), Some(text));
        }
    }
}
