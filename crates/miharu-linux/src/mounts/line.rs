//! One line of mountinfo, without a copy of its text.

use std::borrow::Cow;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use memchr::memchr;

use super::tree::Node;
use super::{Device, Mount, select};
use crate::read::number;

/// One line of mountinfo, its fields as they stand there: blanks, tabs, newlines and backslashes are escaped, always in the
/// same way, so that what is the same mounted is the same written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'t> {
    /// The mount's number.
    pub id: u64,
    /// The mount that it is mounted on.
    pub parent: u64,
    /// The device number of its file system.
    pub device: Device,
    /// The directory (or file) of the file system that is mounted.
    pub root: &'t [u8],
    /// Where it is mounted.
    pub mountpoint: &'t [u8],
    /// The type.
    pub fstype: &'t [u8],
    /// What was mounted.
    pub source: &'t [u8],
    /// The options of the file system.
    pub super_options: &'t [u8],
}

/// Parses at most `limit` lines of mountinfo; a line that is none is skipped.
#[must_use]
pub fn parse(text: &[u8], limit: usize) -> Vec<Line<'_>> {
    // Hardly any line is shorter than this, so that one allocation does.
    let mut found = Vec::with_capacity((text.len() / 48).min(limit));
    let mut rest = Some(text);
    while let Some(text) = rest.filter(|_| found.len() < limit) {
        let (line, after) = divide(text, b'\n');
        found.extend(Line::parse(line));
        rest = after;
    }
    found
}

impl<'t> Line<'t> {
    fn parse(line: &'t [u8]) -> Option<Self> {
        let mut fields = Fields { rest: Some(line) };
        let id = number(fields.next()?)?;
        let parent = number(fields.next()?)?;
        let device = Device::parse(fields.next()?)?;
        let root = fields.next()?;
        let mountpoint = fields.next()?;
        let _options = fields.next()?;
        // Any number of optional fields, closed by a single hyphen.
        while fields.next()? != b"-" {}
        let fstype = fields.next()?;
        let source = fields.next()?;
        let super_options = fields.next().unwrap_or_default();
        if fstype.is_empty() || !mountpoint.starts_with(b"/") {
            return None;
        }
        Some(Self { id, parent, device, root, mountpoint, fstype, source, super_options })
    }

    /// A copy with the escapes decoded.
    #[must_use]
    pub fn to_mount(&self) -> Mount {
        Mount {
            id: self.id,
            parent: self.parent,
            device: self.device,
            root: path(self.root),
            mountpoint: path(self.mountpoint),
            fstype: text(self.fstype),
            source: text(self.source),
            super_options: self.super_options.to_vec(),
        }
    }
}

impl Node for Line<'_> {
    fn id(&self) -> u64 {
        self.id
    }

    fn parent(&self) -> u64 {
        self.parent
    }

    fn mountpoint(&self) -> &[u8] {
        self.mountpoint
    }

    fn is_remote(&self) -> bool {
        select::is_remote(self.fstype)
    }
}

/// The fields of a line. A single blank divides them, so that an empty source stays a field.
struct Fields<'t> {
    rest: Option<&'t [u8]>,
}

impl<'t> Fields<'t> {
    fn next(&mut self) -> Option<&'t [u8]> {
        let (field, rest) = divide(self.rest?, b' ');
        self.rest = rest;
        Some(field)
    }
}

/// What stands before the first `byte`, and what after it where there is one.
fn divide(text: &[u8], byte: u8) -> (&[u8], Option<&[u8]>) {
    match memchr(byte, text).and_then(|at| text.split_at_checked(at)) {
        Some((before, after)) => (before, after.get(1..)),
        None => (text, None),
    }
}

/// A field as a path.
pub(super) fn path(field: &[u8]) -> PathBuf {
    PathBuf::from(OsString::from_vec(unescape(field).into_owned()))
}

fn text(field: &[u8]) -> String {
    String::from_utf8_lossy(&unescape(field)).into_owned()
}

/// Decodes `\ooo`, by which the kernel writes blanks, tabs, newlines and backslashes; a backslash that begins no such
/// escape stays what it is.
#[must_use]
pub fn unescape(field: &[u8]) -> Cow<'_, [u8]> {
    if memchr(b'\\', field).is_none() {
        return Cow::Borrowed(field);
    }
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let octal = |at: usize| tail.get(at).map(|b| b.wrapping_sub(b'0')).filter(|digit| *digit < 8);
        if let (b'\\', Some(a @ 0..=3), Some(b), Some(c)) = (*first, octal(0), octal(1), octal(2)) {
            out.push(a << 6 | b << 3 | c);
            rest = tail.get(3..).unwrap_or_default();
        } else {
            out.push(*first);
            rest = tail;
        }
    }
    Cow::Owned(out)
}
