//! The `filter` parameter: `name=u1`, or `type eq container and not name eq u2`.
//!
//! A part that compares a field that miharu does not know is an error rather than silently true. As in Incus a value is a regular
//! expression that has to match the whole of the field, in capitals or not, and one that is none is taken as it stands.

use miharu_metrics::InstanceType;
use regex::{Regex, RegexBuilder};

use crate::cache::Found;

/// The longest filter, in bytes.
const LENGTH_LIMIT: usize = 4096;
/// The most comparisons of a filter: each may cost milliseconds and [`REGEX_LIMIT`].
const COMPARISONS_LIMIT: usize = 64;
/// The most memory that a value's regular expression may take, in bytes.
const REGEX_LIMIT: usize = 256 << 10;
/// What clients may ask of an instance of theirs, such as `config.user.x`; empty with miharu.
const UNKNOWN_TABLES: [&str; 4] = ["config.", "expanded_config.", "devices.", "expanded_devices."];

/// A filter: any of its groups, of each group all comparisons.
#[derive(Debug, Default)]
pub(crate) struct Filter(Vec<Vec<Comparison>>);

#[derive(Debug)]
struct Comparison {
    field: Field,
    value: Value,
    /// Whether the field is to be the value, or anything else.
    wanted: Wanted,
}

/// What a field is compared with.
#[derive(Debug)]
struct Value {
    text: String,
    /// Nothing where the text is no regular expression, or none that could match anything but itself.
    pattern: Option<Regex>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Equal,
    Different,
}

#[derive(Debug, Clone, Copy)]
enum Field {
    Name,
    Project,
    Type,
    Status,
    Runtime,
    Location,
    Architecture,
    Id,
    /// Ephemeral and the like, which nothing is that miharu sees.
    Never,
    /// Configuration and the like, of which miharu knows nothing.
    Unknown,
}

impl Filter {
    /// Reads a filter; an empty one matches everything.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text.len() > LENGTH_LIMIT {
            return Err("the filter is too long".to_owned());
        }
        let mut words = text.split_whitespace().peekable();
        if words.peek().is_none() {
            return Ok(Self::default());
        }
        let mut groups = vec![Vec::new()];
        for _ in 0..COMPARISONS_LIMIT {
            let comparison = comparison(&mut words)?;
            if let Some(group) = groups.last_mut() {
                group.push(comparison);
            }
            match words.next() {
                None => return Ok(Self(groups)),
                Some("and") => {}
                Some("or") => groups.push(Vec::new()),
                Some(word) => return Err(format!("invalid filter: expected 'and' or 'or', not '{word}'")),
            }
        }
        Err(format!("the filter has more than {COMPARISONS_LIMIT} comparisons"))
    }

    pub(crate) fn matches(&self, instance: &Found) -> bool {
        self.0.is_empty() || self.0.iter().any(|group| group.iter().all(|part| part.matches(instance)))
    }
}

fn comparison<'a>(words: &mut impl Iterator<Item = &'a str>) -> Result<Comparison, String> {
    let ends = "invalid filter: it ends after 'and', 'or' or 'not'";
    let mut first = words.next().ok_or(ends)?;
    let mut is_negated = false;
    while first == "not" {
        is_negated = !is_negated;
        first = words.next().ok_or(ends)?;
    }
    let (field, wanted, value) = match first.split_once('=') {
        Some((field, value)) => (field, Wanted::Equal, value),
        None => {
            let wanted = match words.next() {
                Some("eq") => Wanted::Equal,
                Some("ne") => Wanted::Different,
                Some(word) => return Err(format!("invalid filter: expected 'eq' or 'ne', not '{word}'")),
                None => return Err(format!("invalid filter: nothing follows '{first}'")),
            };
            (first, wanted, words.next().ok_or_else(|| format!("invalid filter: no value for '{first}'"))?)
        }
    };
    let field = match field {
        "name" => Field::Name,
        "project" => Field::Project,
        "type" => Field::Type,
        "status" => Field::Status,
        "runtime" => Field::Runtime,
        "location" => Field::Location,
        "architecture" => Field::Architecture,
        "id" => Field::Id,
        "ephemeral" | "stateful" => Field::Never,
        "description" => Field::Unknown,
        key if UNKNOWN_TABLES.iter().any(|table| key.starts_with(table)) => Field::Unknown,
        unknown => return Err(format!("invalid filter: unknown field '{unknown}'")),
    };
    let wanted = match (wanted, is_negated) {
        (Wanted::Equal, false) | (Wanted::Different, true) => Wanted::Equal,
        (Wanted::Equal, true) | (Wanted::Different, false) => Wanted::Different,
    };
    Ok(Comparison { field, value: Value::new(value.trim_matches(['"', '\''])), wanted })
}

impl Value {
    fn new(text: &str) -> Self {
        let is_plain = regex::escape(text) == text;
        // Incus leaves one alone that says itself where it begins or ends.
        let anchored = if text.contains(['^', '$']) { text.to_owned() } else { format!("^(?:{text})$") };
        let pattern = RegexBuilder::new(&anchored).case_insensitive(true).size_limit(REGEX_LIMIT).build();
        Self { text: text.to_owned(), pattern: pattern.ok().filter(|_| !is_plain) }
    }

    fn matches(&self, field: &str) -> bool {
        match &self.pattern {
            Some(pattern) => pattern.is_match(field),
            None => field.eq_ignore_ascii_case(&self.text),
        }
    }
}

impl Comparison {
    fn matches(&self, instance: &Found) -> bool {
        let field = match self.field {
            Field::Name => instance.name.as_str(),
            Field::Project => instance.project.as_str(),
            Field::Type => match instance.instance_type {
                InstanceType::Container => "container",
                InstanceType::VirtualMachine => "virtual-machine",
            },
            Field::Status => super::RUNNING.0,
            Field::Runtime => instance.runtime.as_str(),
            Field::Location => "none",
            Field::Architecture => std::env::consts::ARCH,
            Field::Id => instance.id.as_str(),
            Field::Never => "false",
            Field::Unknown => "",
        };
        self.value.matches(field) == (self.wanted == Wanted::Equal)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_comparison_and_its_opposite_never_both_match(name in "[a-z0-9]{1,8}", value in "[a-z0-9\"'=]{1,8}") {
            let matches = |text: &str| Filter::parse(text).map(|filter| filter.matches(&found(&name, "lxc")));
            let (equal, different) =
                (matches(&format!("name eq {value}")), matches(&format!("name ne {value}")));
            prop_assert_ne!(equal.unwrap(), different.unwrap());
        }

        #[test]
        fn any_text_is_a_filter_or_refused(text in "(name|type|=| |eq|ne|and|or|u1|\"|x){0,12}") {
            let blank = text.trim().is_empty();
            prop_assert!(Filter::parse(&text).is_ok_and(|filter| filter.0.is_empty() == blank) || !blank);
        }
    }

    fn found(name: &str, project: &str) -> Found {
        Found {
            project: project.to_owned(),
            name: name.to_owned(),
            instance_type: InstanceType::Container,
            runtime: "lxc".to_owned(),
            id: String::new(),
            image: None,
            pid: None,
        }
    }

    #[test]
    fn comparisons_are_joined_as_written() {
        let cases = [
            ("", true),
            ("name=u1", true),
            ("name=u2", false),
            ("name eq u1 and type eq container", true),
            ("name ne u1", false),
            ("name=u2 or status=running", true),
            ("name=u1 and project=x or name=\"u1\"", true),
            ("not name eq u1", false),
            ("type eq container and not name eq u2", true),
            ("not not name=u1", true),
            ("config.user.x=y", false),
            ("config.user.x ne y and ephemeral=false", true),
            // These are what the real Incus says of a project called `u1`.
            ("name eq u.*", true),
            ("name eq u", false),
            ("name eq ^u", true),
            ("name eq .*1$", true),
            ("name eq U1", true),
            ("name ne u.*", false),
            ("name eq [", false),
            ("name eq u2|u1", true),
            ("runtime=lxc|podman and type eq virtual.*", false),
        ];
        for (text, expected) in cases {
            assert_eq!(Filter::parse(text).unwrap().matches(&found("u1", "lxc")), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        for text in ["name", "name eq", "name like u1", "name=u1 name=u2", "name=u1 and", "not", "colour=red"]
        {
            assert!(Filter::parse(text).is_err(), "{text}");
        }
        let most = vec!["name=u1"; COMPARISONS_LIMIT];
        assert!(Filter::parse(&most.join(" or ")).is_ok());
        assert!(Filter::parse(&[most.join(" or "), "name=u1".to_owned()].join(" and ")).is_err());
    }
}
