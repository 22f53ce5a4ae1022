//! Limits for what a guest or its monitor says: rows of a list, and the length of what becomes a label.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// The longest answer that is taken, in bytes.
pub(crate) const MAX_ANSWER: usize = 1 << 20;

/// The most rows of one list that are taken: CPUs, devices, file systems, interfaces.
pub(crate) const MAX_ROWS: usize = 512;

/// The longest name of a device, an interface or a file system's type, in bytes.
const MAX_NAME: usize = 255;

/// The longest mount point, in bytes: the kernel's PATH_MAX is longer than a label is good for.
const MAX_PATH: usize = 1024;

/// A name that can be a label, or nothing: a cut one could be another's.
pub(crate) fn name(name: String) -> Option<String> {
    (!name.is_empty() && name.len() <= MAX_NAME).then_some(name)
}

/// A path that can be a label.
pub(crate) fn path(path: String) -> Option<String> {
    (!path.is_empty() && path.len() <= MAX_PATH).then_some(path)
}

/// A list of which no more than [`MAX_ROWS`] are kept, and of these only those that are what they should be.
#[derive(Debug)]
pub(crate) struct Rows<T>(pub(crate) Vec<T>);

impl<T> Default for Rows<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Rows<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(Bounded(PhantomData))
    }
}

struct Bounded<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Bounded<T> {
    type Value = Rows<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut rows = Vec::new();
        while rows.len() < MAX_ROWS {
            let Some(row) = list.next_element::<&'de RawValue>()? else { return Ok(Rows(rows)) };
            // A number that cannot be, such as -1 for one that is not known, costs its own row.
            rows.extend(serde_json::from_str(row.get()).ok());
        }
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Rows(rows))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_list_is_cut_and_read_to_its_end() {
        let text = format!("[{}]", vec!["7"; 10_000].join(","));
        assert_eq!(serde_json::from_str::<Rows<u32>>(&text).unwrap().0.len(), MAX_ROWS);
        assert!(serde_json::from_str::<Rows<u32>>("[1,2").is_err());
        assert!(serde_json::from_str::<Rows<u32>>(r#"{"a":1}"#).is_err());
    }

    #[test]
    fn what_is_too_long_or_empty_is_no_label() {
        assert_eq!(name("vda".to_owned()).as_deref(), Some("vda"));
        assert_eq!(name(String::new()), None);
        assert_eq!(name("x".repeat(256)), None);
        assert_eq!(path("/".to_owned()).as_deref(), Some("/"));
        assert_eq!(path("/".repeat(1025)), None);
    }
}
