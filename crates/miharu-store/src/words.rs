//! Lists of words: which of a known set are meant, and names of users.

use crate::globs::split;

/// The longest name of a user, in bytes; `useradd` takes 32, directories of users elsewhere may have longer ones.
const USER_LIMIT: usize = 256;

/// Which words of a known set are meant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Selected {
    /// Every one.
    #[default]
    All,
    /// These alone.
    Only(Vec<String>),
    /// Every one but these.
    AllBut(Vec<String>),
}

impl Selected {
    /// Reads words with commas between them, of those that are `known`: each is one that is meant, or, with a `-` before
    /// it, one that is not. Nothing at all means every one.
    ///
    /// # Errors
    /// Which word is not known, or that both ways to say it are mixed.
    pub fn parse(list: &str, known: &[&str]) -> Result<Self, String> {
        let (mut named, mut left_out) = (Vec::new(), Vec::new());
        for entry in split(list) {
            let (words, word) = match entry.strip_prefix('-') {
                Some(word) => (&mut left_out, word.trim_start()),
                None => (&mut named, entry),
            };
            if !known.contains(&word) {
                return Err(format!("'{}' is none of {}", shortened(word), known.join(", ")));
            }
            if !words.iter().any(|seen| seen == word) {
                words.push(word.to_owned());
            }
        }
        match (named.is_empty(), left_out.is_empty()) {
            (true, true) => Ok(Self::All),
            (false, true) => Ok(Self::Only(named)),
            (true, false) => Ok(Self::AllBut(left_out)),
            (false, false) => {
                Err("names those that are meant or, each with a '-' before it, those that are not, but \
                                   not both"
                    .to_owned())
            }
        }
    }

    /// Whether this word is meant.
    #[must_use]
    pub fn has(&self, word: &str) -> bool {
        let names = |words: &[String]| words.iter().any(|named| named == word);
        match self {
            Self::All => true,
            Self::Only(words) => names(words),
            Self::AllBut(words) => !names(words),
        }
    }
}

/// Reads names of users with commas between them, each once.
///
/// # Errors
/// Which of them cannot be a user's name.
pub fn users(list: &str) -> Result<Vec<String>, String> {
    let mut users: Vec<String> = Vec::new();
    for name in split(list) {
        // passwd(5) has a colon after the name, and a slash would make it a path's part in a project's name.
        let is_name = name.len() <= USER_LIMIT
            && !name.starts_with(['-', '~', '+'])
            && !name.contains(|c: char| c.is_whitespace() || c.is_control() || matches!(c, ':' | '/' | '@'));
        if !is_name {
            return Err(format!("'{}' is no user's name", shortened(name)));
        }
        if !users.iter().any(|seen| seen == name) {
            users.push(name.to_owned());
        }
    }
    Ok(users)
}

/// As much of what somebody typed as an error shows.
fn shortened(text: &str) -> String {
    text.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KNOWN: &[&str] = &["lxc", "podman", "libvirt-lxc"];

    fn meant(list: &str) -> Result<Vec<&'static str>, String> {
        let selected = Selected::parse(list, KNOWN)?;
        Ok(KNOWN.iter().copied().filter(|word| selected.has(word)).collect())
    }

    #[test]
    fn words_are_named_or_left_out() {
        assert_eq!(meant("").unwrap(), KNOWN);
        assert_eq!(meant("podman, lxc,podman,").unwrap(), ["lxc", "podman"]);
        assert_eq!(meant("-libvirt-lxc , - podman").unwrap(), ["lxc"]);
        assert_eq!(meant("-lxc,-podman,-libvirt-lxc").unwrap(), [""; 0]);
    }

    #[test]
    fn slips_are_told() {
        assert_eq!(meant("lxc,podmann").unwrap_err(), "'podmann' is none of lxc, podman, libvirt-lxc");
        assert_eq!(meant("-").unwrap_err(), "'' is none of lxc, podman, libvirt-lxc");
        assert_eq!(meant("LXC").unwrap_err(), "'LXC' is none of lxc, podman, libvirt-lxc");
        assert!(meant("lxc,-podman").unwrap_err().ends_with("but not both"));
        assert!(meant(&"x".repeat(5000)).unwrap_err().len() < 100);
    }

    #[test]
    fn users_have_names() {
        assert_eq!(users("alice, bob,alice").unwrap(), ["alice", "bob"]);
        assert_eq!(users("svc.web,user$").unwrap(), ["svc.web", "user$"]);
        for wrong in ["a b", "a:b", "a/b", "-a", "a,../b", "a@b"] {
            assert!(users(wrong).unwrap_err().ends_with("is no user's name"), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(list in ".{0,60}") {
            let _ = Selected::parse(&list, KNOWN);
            let _ = users(&list);
        }
    }
}
