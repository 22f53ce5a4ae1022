//! The pieces that kernel files are made of: lines, fields, numbers. All of it is written for text of a few hundred bytes
//! that is read thousands of times a minute, and none of it can panic.

use memchr::memchr;

/// The lines of a file without their newlines; empty ones, and so the piece after the last newline, are left out.
pub fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = text;
    std::iter::from_fn(move || {
        while !rest.is_empty() {
            let (line, after) = line(rest);
            rest = after;
            if !line.is_empty() {
                return Some(line);
            }
        }
        None
    })
}

/// The fields of a line that blanks divide, empty ones left out.
pub fn fields(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = line;
    std::iter::from_fn(move || {
        rest = after_blanks(rest);
        let end = rest.iter().position(|byte| matches!(byte, b' ' | b'\t')).unwrap_or(rest.len());
        let (field, after) = rest.split_at_checked(end)?;
        rest = after;
        (!field.is_empty()).then_some(field)
    })
}

/// The key and the value of each line `key value` of a flat keyed file; a value is absent when it is no number.
pub fn pairs(text: &[u8]) -> impl Iterator<Item = (&[u8], Option<u64>)> {
    let mut rest = text;
    std::iter::from_fn(move || {
        // Whatever stands between the value of one line and the key of the next.
        let start = rest.iter().position(|byte| !is_space(*byte))?;
        let from_key = rest.get(start..)?;
        let (key, after_key) = from_key.split_at_checked(word_end(from_key))?;
        let (value, after_value) = leading_number(after_key);
        rest = match after_value {
            [b'\n', after @ ..] => after,
            more => line(more).1,
        };
        Some((key, value))
    })
}

/// The number that a text begins with, blanks before it left out, and what stands after that field. The number is absent
/// when the field is none, or when there is no field before the line ends.
#[must_use]
#[inline]
pub fn leading_number(text: &[u8]) -> (Option<u64>, &[u8]) {
    let field = after_blanks(text);
    let (mut rest, mut sum, mut digits) = (field, 0u64, 0u32);
    while let [digit @ b'0'..=b'9', after @ ..] = rest {
        // Wrong only for more digits than are taken below.
        sum = sum.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'));
        digits += 1;
        rest = after;
    }
    let is_whole = rest.first().is_none_or(|byte| is_space(*byte));
    if is_whole && digits <= SAFE_DIGITS {
        return ((digits > 0).then_some(sum), rest);
    }
    unusual_number(field)
}

/// As [`leading_number`], of a field that is no number or a very long one.
#[cold]
fn unusual_number(text: &[u8]) -> (Option<u64>, &[u8]) {
    match text.split_at_checked(word_end(text)) {
        Some((field, after)) => (number(field), after),
        None => (None, b""),
    }
}

/// So many decimal digits always fit into 64 bits.
const SAFE_DIGITS: u32 = 19;

/// A decimal number of `u64`'s range that fills the whole field.
#[must_use]
pub fn number(field: &[u8]) -> Option<u64> {
    if field.is_empty() {
        return None;
    }
    field.iter().try_fold(0u64, |sum, digit| {
        let digit = digit.checked_sub(b'0').filter(|d| *d < 10)?;
        sum.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

/// The number that makes up a whole file, blanks around it left out.
#[must_use]
pub fn number_file(text: &[u8]) -> Option<u64> {
    number(text.trim_ascii())
}

/// The value of `key` in a flat keyed file (`key value` a line), as `cpu.stat` and `memory.stat` are.
#[must_use]
pub fn keyed(text: &[u8], key: &str) -> Option<u64> {
    pairs(text).find_map(|(found, value)| value.filter(|_| found == key.as_bytes()))
}

/// The first line, and what stands after its newline.
fn line(text: &[u8]) -> (&[u8], &[u8]) {
    match memchr(b'\n', text).and_then(|end| text.split_at_checked(end)) {
        Some((line, after)) => (line, after.get(1..).unwrap_or_default()),
        None => (text, b""),
    }
}

/// Where the first blank or newline is, or else the end. Most words are long enough for looking at eight bytes at once to
/// pay.
fn word_end(text: &[u8]) -> usize {
    let (mut seen, mut rest) = (0, text);
    while let Some((bytes, after)) = rest.split_first_chunk::<8>() {
        let word = u64::from_le_bytes(*bytes);
        // The top bit of each byte below `!`; a borrow can only spoil bytes after the first such one.
        let spaces = word.wrapping_sub(EACH * 0x21) & !word & (EACH * 0x80);
        if spaces != 0 {
            return seen + spaces.trailing_zeros() as usize / 8;
        }
        (seen, rest) = (seen + bytes.len(), after);
    }
    seen + rest.iter().position(|byte| is_space(*byte)).unwrap_or(rest.len())
}

/// A 1 in each byte of a word.
const EACH: u64 = u64::MAX / 0xff;

fn after_blanks(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', after @ ..] = text {
        text = after;
    }
    text
}

/// A blank or the end of a line; control characters, which the kernel writes nowhere here, count as blanks.
fn is_space(byte: u8) -> bool {
    byte <= b' '
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pairs_of_a_file_with_odd_lines() {
        let text = b"a 1\n\n  b\t2 3\nc\nd x\ne 18446744073709551616\nf 1x\ng \nh 18446744073709551615\ni 7";
        let found: Vec<_> = pairs(text).collect();
        let expected: [(&[u8], Option<u64>); 9] = [
            (b"a", Some(1)),
            (b"b", Some(2)),
            (b"c", None),
            (b"d", None),
            (b"e", None),
            (b"f", None),
            (b"g", None),
            (b"h", Some(u64::MAX)),
            (b"i", Some(7)),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_value_with_leading_zeros_is_a_number() {
        assert_eq!(leading_number(b" 000000000000000000000000042 x"), (Some(42), b" x".as_slice()));
        assert_eq!(leading_number(b"\n5"), (None, b"\n5".as_slice()), "of another line");
    }

    proptest! {
        /// The quick way and the plain one agree, on text made of what such files are made of.
        #[test]
        fn pairs_are_the_first_two_fields_of_each_line(
            pieces in proptest::collection::vec("(ab|c|[0-9]{1,22}|x1|1x| |\t|\n)", 0..60)
        ) {
            let text = pieces.concat();
            let plain = text.lines().filter_map(|line| {
                let mut fields = line.split([' ', '\t']).filter(|field| !field.is_empty());
                Some((fields.next()?, fields.next().and_then(|field| field.parse::<u64>().ok())))
            });
            let quick = pairs(text.as_bytes()).map(|(key, value)| (std::str::from_utf8(key).unwrap(), value));
            prop_assert_eq!(quick.collect::<Vec<_>>(), plain.collect::<Vec<_>>());
        }

        #[test]
        fn lines_and_fields_are_what_stands_between(text in "[ab \t\n]{0,40}") {
            let plain: Vec<Vec<&str>> = text
                .split('\n')
                .filter(|line| !line.is_empty())
                .map(|line| line.split([' ', '\t']).filter(|field| !field.is_empty()).collect())
                .collect();
            let found: Vec<Vec<&str>> = lines(text.as_bytes())
                .map(|line| fields(line).map(|field| std::str::from_utf8(field).unwrap()).collect())
                .collect();
            prop_assert_eq!(found, plain);
        }

        #[test]
        fn a_word_ends_at_the_first_blank(text in proptest::collection::vec(any::<u8>(), 0..40)) {
            let plain = text.iter().position(|byte| *byte <= b' ').unwrap_or(text.len());
            prop_assert_eq!(word_end(&text), plain);
        }

        #[test]
        fn no_text_makes_them_panic(text in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = (lines(&text).count(), fields(&text).count(), pairs(&text).count());
            let _ = (leading_number(&text), number_file(&text), keyed(&text, "a"));
        }
    }
}
