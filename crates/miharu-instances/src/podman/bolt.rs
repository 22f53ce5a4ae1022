//! podman's database where it is a Bolt file (`libpod/bolt_state.db`, podman before 5.0, and later on hosts that were
//! upgraded): as much of the format as it takes to get one value.
//!
//! A Bolt file is pages of a B+tree that is never changed in place: a writer puts new pages where nobody looks, and then
//! one of two meta pages that says where the new root is. So what one meta page leads to is consistent for as long as
//! that page is the newest. go.etcd.io/bbolt, `page.go` and `db.go`, has the layout.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Bolt's magic number, in the meta pages.
const MAGIC: u32 = 0xED0C_DAED;

/// The one version of the format.
const VERSION: u32 = 2;

/// Bytes of a page's header: id, flags, count, overflow.
const HEADER: usize = 16;

/// Bytes of an element of a page.
const ELEMENT: usize = 16;

/// Flags of a page.
const BRANCH: u16 = 1;
const LEAF: u16 = 2;

/// The longest page with its overflow, bytes: a container's configuration is one value.
const MAX_PAGE: usize = 16 << 20;

/// The most pages on the way to a key.
const MAX_DEPTH: usize = 32;

/// How often it is tried anew because a writer was quicker.
const TRIES: usize = 4;

/// The value of the last of these keys; those before it are buckets. `None` where there is none.
///
/// # Errors
/// Where the file cannot be read or is no Bolt database.
pub(crate) fn get(file: &File, keys: &[&[u8]]) -> io::Result<Option<Vec<u8>>> {
    for _ in 0..TRIES {
        let meta = Meta::newest(file)?;
        let value = Reader { file, page_size: meta.page_size }.get(meta.root, keys);
        if Meta::newest(file)?.transaction == meta.transaction {
            return value;
        }
    }
    Err(unusable("it is changed all the time"))
}

fn unusable(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// What a meta page says.
#[derive(Debug, Clone, Copy)]
struct Meta {
    page_size: usize,
    root: u64,
    transaction: u64,
}

impl Meta {
    fn newest(file: &File) -> io::Result<Self> {
        let first = Self::at(file, 0);
        // The second page begins after the first, whatever a page is; where the first is broken that has to be guessed.
        let sizes =
            first.as_ref().map_or_else(|_| vec![4096, 16 << 10, 64 << 10], |meta| vec![meta.page_size]);
        let second = sizes.into_iter().find_map(|size| Self::at(file, size).ok());
        match (first, second) {
            (Ok(first), Some(second)) if second.transaction > first.transaction => Ok(second),
            (Err(_), Some(second)) => Ok(second),
            (first, _) => first,
        }
    }

    fn at(file: &File, place: usize) -> io::Result<Self> {
        let mut page = [0; HEADER + 64];
        file.read_exact_at(&mut page, place as u64)?;
        Self::parse(page.get(HEADER..).unwrap_or_default()).ok_or_else(|| unusable("it is no Bolt database"))
    }

    /// Magic, version, page size, flags, root bucket (page, sequence), free list, high water mark, transaction, checksum.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let checked = bytes.get(..56)?;
        let is_valid =
            u32_at(bytes, 0)? == MAGIC && u32_at(bytes, 4)? == VERSION && u64_at(bytes, 56)? == fnv(checked);
        let page_size = usize::try_from(u32_at(bytes, 8)?).ok()?;
        let is_sane = page_size.is_power_of_two() && (1024..=1 << 20).contains(&page_size);
        (is_valid && is_sane).then_some(Self {
            page_size,
            root: u64_at(bytes, 16)?,
            transaction: u64_at(bytes, 48)?,
        })
    }
}

/// FNV-1a of 64 bits, the checksum of meta pages.
pub(crate) fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

struct Reader<'f> {
    file: &'f File,
    page_size: usize,
}

/// What a key leads to.
enum Found {
    Value(Vec<u8>),
    Bucket(Vec<u8>),
}

impl Reader<'_> {
    fn get(&self, root: u64, keys: &[&[u8]]) -> io::Result<Option<Vec<u8>>> {
        let mut page = self.page(root)?;
        let mut keys = keys.iter().peekable();
        while let Some(key) = keys.next() {
            match (self.find(page, key)?, keys.peek()) {
                (Some(Found::Value(value)), None) => return Ok(Some(value)),
                (Some(Found::Bucket(bucket)), Some(_)) => page = self.bucket(&bucket)?,
                _ => return Ok(None),
            }
        }
        Ok(None)
    }

    /// The first page of a bucket: of its own, or within the bucket's value where the bucket is small.
    fn bucket(&self, value: &[u8]) -> io::Result<Vec<u8>> {
        match u64_at(value, 0) {
            Some(0) => value.get(16..).map(<[u8]>::to_vec).ok_or_else(|| unusable("a bucket is cut off")),
            Some(root) => self.page(root),
            None => Err(unusable("a bucket is cut off")),
        }
    }

    fn page(&self, id: u64) -> io::Result<Vec<u8>> {
        let place = id.checked_mul(self.page_size as u64).ok_or_else(|| unusable("a page is nowhere"))?;
        let mut header = [0; HEADER];
        self.file.read_exact_at(&mut header, place)?;
        let overflow = u32_at(&header, 12).and_then(|pages| usize::try_from(pages).ok()).unwrap_or(0);
        let size = overflow.saturating_add(1).saturating_mul(self.page_size);
        if size > MAX_PAGE || u64_at(&header, 0) != Some(id) {
            return Err(unusable("a page is not what it should be"));
        }
        let mut page = vec![0; size];
        self.file.read_exact_at(&mut page, place)?;
        Ok(page)
    }

    /// Walks down from this page to a key.
    fn find(&self, mut page: Vec<u8>, key: &[u8]) -> io::Result<Option<Found>> {
        let broken = || unusable("a page is cut off");
        for _ in 0..MAX_DEPTH {
            let flags = u16_at(&page, 8).ok_or_else(broken)?;
            let count = u16_at(&page, 10).map(usize::from).ok_or_else(broken)?;
            match flags {
                BRANCH => {
                    // The last child whose first key is not past the one that is looked for.
                    let mut child = None;
                    for index in 0..count {
                        let element = branch(&page, index).ok_or_else(broken)?;
                        if index > 0 && element.0 > key {
                            break;
                        }
                        child = Some(element.1);
                    }
                    page = self.page(child.ok_or_else(broken)?)?;
                }
                LEAF => {
                    for index in 0..count {
                        let (flags, found, value) = leaf(&page, index).ok_or_else(broken)?;
                        if found == key {
                            let value = value.to_vec();
                            return Ok(Some(if flags & 1 == 1 {
                                Found::Bucket(value)
                            } else {
                                Found::Value(value)
                            }));
                        }
                    }
                    return Ok(None);
                }
                _ => return Err(broken()),
            }
        }
        Err(unusable("its tree is too deep"))
    }
}

/// The first key below a child, and the child's page: offset of the key from here, its size, page.
fn branch(page: &[u8], index: usize) -> Option<(&[u8], u64)> {
    let at = HEADER + index * ELEMENT;
    let key = part(page, at.checked_add(usize_at(page, at)?)?, usize_at(page, at + 4)?)?;
    Some((key, u64_at(page, at + 8)?))
}

/// Flags, key and value: flags, offset of the key from here, its size, size of the value, which follows the key.
fn leaf(page: &[u8], index: usize) -> Option<(u32, &[u8], &[u8])> {
    let at = HEADER + index * ELEMENT;
    let start = at.checked_add(usize_at(page, at + 4)?)?;
    let key = part(page, start, usize_at(page, at + 8)?)?;
    let value = part(page, start.checked_add(key.len())?, usize_at(page, at + 12)?)?;
    Some((u32_at(page, at)?, key, value))
}

fn part(bytes: &[u8], start: usize, length: usize) -> Option<&[u8]> {
    bytes.get(start..start.checked_add(length)?)
}

fn usize_at(bytes: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u32_at(bytes, at)?).ok()
}

/// Bolt writes numbers as the machine does.
fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(part(bytes, at, 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(part(bytes, at, 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(part(bytes, at, 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    const PAGE: usize = 1024;

    /// A page with these elements, or the inside of a bucket that is kept in its value.
    fn leaf_page(id: u64, entries: &[(u32, &[u8], Vec<u8>)]) -> Vec<u8> {
        let mut page = header(id, LEAF, entries.len());
        let mut data: Vec<u8> = Vec::new();
        for (index, (flags, key, value)) in entries.iter().enumerate() {
            let place = (entries.len() - index) * ELEMENT + data.len();
            let numbers = [*flags, place as u32, key.len() as u32, value.len() as u32];
            page.extend(numbers.iter().flat_map(|number| number.to_ne_bytes()));
            data.extend(key.iter().chain(value));
        }
        page.extend(data);
        page
    }

    fn branch_page(id: u64, children: &[(&[u8], u64)]) -> Vec<u8> {
        let mut page = header(id, BRANCH, children.len());
        let mut keys: Vec<u8> = Vec::new();
        for (index, (key, child)) in children.iter().enumerate() {
            let place = (children.len() - index) * ELEMENT + keys.len();
            page.extend([place as u32, key.len() as u32].iter().flat_map(|number| number.to_ne_bytes()));
            page.extend(child.to_ne_bytes());
            keys.extend(*key);
        }
        page.extend(keys);
        page
    }

    fn header(id: u64, flags: u16, count: usize) -> Vec<u8> {
        let mut page = id.to_ne_bytes().to_vec();
        page.extend(flags.to_ne_bytes());
        page.extend((count as u16).to_ne_bytes());
        page.extend(0_u32.to_ne_bytes());
        page
    }

    fn meta_page(id: u64, root: u64, transaction: u64) -> Vec<u8> {
        let mut meta = Vec::new();
        meta.extend([MAGIC, VERSION, PAGE as u32, 0].iter().flat_map(|number| number.to_ne_bytes()));
        meta.extend([root, 0, 9, 99, transaction].iter().flat_map(|number| number.to_ne_bytes()));
        meta.extend(fnv(&meta).to_ne_bytes());
        let mut page = header(id, 4, 0);
        page.extend(meta);
        page
    }

    /// The value of a bucket: its page, or 0 and what is in it.
    fn bucket(page: u64, inside: &[u8]) -> Vec<u8> {
        [&page.to_ne_bytes()[..], &[0; 8], inside].concat()
    }

    /// `ctr` is a tree of two leaves, in which each container is a bucket in its value; `pod` is on a page of its own.
    fn database() -> Vec<u8> {
        let config =
            |text: &str| bucket(0, &leaf_page(0, &[(0, b"config", text.into()), (0, b"state", vec![7; 9])]));
        let pages = [
            meta_page(0, 2, 6),
            meta_page(1, 3, 5),
            leaf_page(
                2,
                &[(1, b"ctr", bucket(4, &[])), (0, b"empty", Vec::new()), (1, b"pod", bucket(7, &[]))],
            ),
            leaf_page(3, &[]),
            branch_page(4, &[(b"a", 5), (b"c", 6)]),
            leaf_page(5, &[(1, b"a", config("A")), (1, b"b", config("B"))]),
            leaf_page(6, &[(1, b"c", config("C"))]),
            leaf_page(7, &[(1, b"p", config("P"))]),
        ];
        pages
            .into_iter()
            .flat_map(|mut page| {
                page.resize(PAGE, 0);
                page
            })
            .collect()
    }

    fn look(bytes: &[u8], keys: &[&str]) -> io::Result<Option<Vec<u8>>> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        let keys: Vec<&[u8]> = keys.iter().map(|key| key.as_bytes()).collect();
        get(&file, &keys)
    }

    #[test]
    fn values_in_buckets() {
        let database = database();
        for (keys, value) in [
            (["ctr", "a", "config"], Some("A")),
            (["ctr", "b", "config"], Some("B")),
            (["ctr", "c", "config"], Some("C")),
            (["pod", "p", "config"], Some("P")),
            (["ctr", "d", "config"], None),
            (["ctr", "0", "config"], None),
            (["ctr", "a", "none"], None),
            (["pod", "a", "config"], None),
            (["empty", "a", "config"], None),
            (["ctr", "a", "config2"], None),
        ] {
            let found = look(&database, &keys).unwrap();
            assert_eq!(found.as_deref(), value.map(str::as_bytes), "{keys:?}");
        }
        assert_eq!(look(&database, &["ctr", "a"]).unwrap(), None, "a bucket is no value");
    }

    #[test]
    fn the_newest_meta_page_that_is_whole_holds() {
        let mut newer = database();
        newer.splice(PAGE..PAGE + meta_page(1, 3, 7).len(), meta_page(1, 3, 7)).count();
        assert_eq!(look(&newer, &["ctr", "a", "config"]).unwrap(), None, "an empty root");
        newer[PAGE + 40] ^= 1;
        assert!(look(&newer, &["ctr", "a", "config"]).unwrap().is_some(), "the second is half written");
        newer[40] ^= 1;
        assert!(look(&newer, &["ctr", "a", "config"]).is_err());
        assert!(look(b"", &["ctr"]).is_err());
        assert!(look(&[0; 9999], &["ctr"]).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]
        #[test]
        fn nothing_panics(changes in proptest::collection::vec((2 * PAGE..8 * PAGE, any::<u8>()), 1..20)) {
            let mut database = database();
            for (place, byte) in changes {
                database[place] = byte;
            }
            for keys in [["ctr", "a", "config"], ["ctr", "c", "state"], ["pod", "p", "config"]] {
                let _ = look(&database, &keys);
            }
        }
    }
}
