//! The words that say which instances are meant: the start of a name, `KEY=VALUE`, `KEY~=REGEX`.

use miharu_api::instances::RUNTIMES;
use miharu_api::{InstanceFull, InstanceUsage};
use regex::Regex;

use crate::error::Failure;
use crate::remote;

/// What an instance can be chosen by.
pub(crate) trait Chosen {
    /// Its name.
    fn name(&self) -> &str;
    /// Its project.
    fn project(&self) -> &str;
    /// `container` or `virtual-machine`.
    fn kind(&self) -> &str;
    /// `Running`.
    fn status(&self) -> &str;
    /// What runs it.
    fn runtime(&self) -> &str;
    /// The cluster member that it runs on.
    fn location(&self) -> &str;
}

impl Chosen for InstanceFull {
    fn name(&self) -> &str {
        &self.instance.name
    }

    fn project(&self) -> &str {
        &self.instance.project
    }

    fn kind(&self) -> &str {
        &self.instance.instance_type
    }

    fn status(&self) -> &str {
        &self.instance.status
    }

    fn runtime(&self) -> &str {
        &self.instance.runtime
    }

    fn location(&self) -> &str {
        &self.instance.location
    }
}

impl Chosen for InstanceUsage {
    fn name(&self) -> &str {
        &self.name
    }

    fn project(&self) -> &str {
        &self.project
    }

    fn kind(&self) -> &str {
        &self.instance_type
    }

    /// Only what runs uses anything.
    fn status(&self) -> &'static str {
        "Running"
    }

    fn runtime(&self) -> &str {
        &self.runtime
    }

    fn location(&self) -> &str {
        &self.location
    }
}

/// What follows the command in a help text about [`Filter`].
macro_rules! filters_help {
    () => {
        "\
Filters, of which an instance must pass all:
  WORD        its name starts with WORD, or is matched as a whole by WORD as
              a regular expression
  KEY=VALUE   its name, project, type (container or virtual-machine), status,
              runtime or location is VALUE, or one of several with commas
              between
  KEY~=REGEX  a part of it is matched by the regular expression REGEX, in
              which ^ is its beginning and $ its end; capitals count
"
    };
}
pub(crate) use filters_help;

type Field = fn(&dyn Chosen) -> &str;

/// The keys that filters know.
const FIELDS: &[(&str, Field)] = &[
    ("name", |i| i.name()),
    ("project", |i| i.project()),
    ("type", |i| i.kind()),
    ("status", |i| i.status()),
    ("state", |i| i.status()),
    ("runtime", |i| i.runtime()),
    ("location", |i| i.location()),
];

/// What `type` can be; a slip would find nothing without a word.
const TYPES: &[&str] = &["container", "virtual-machine"];

/// What `status` can be: the API of Incus has more, and what miharu sees runs.
const STATUSES: &[&str] = &["running", "stopped", "frozen", "error"];

/// One of the words that limit a list.
#[derive(Debug)]
pub(crate) enum Filter {
    /// As in Incus: the start of a name, or a regular expression for the whole of it.
    Name(String, Option<Regex>),
    /// The field is one of these.
    Equals(Field, Vec<String>),
    /// A part of the field is matched.
    Matches(Field, Regex),
}

impl Filter {
    /// Reads what was typed.
    pub(crate) fn parse(word: &str) -> Result<Self, Failure> {
        let Some((key, value)) = word.split_once('=') else {
            let word = remote::strip(word)?;
            let whole = if word.contains(['^', '$']) { word.to_owned() } else { format!("^(?:{word})$") };
            return Ok(Self::Name(word.to_owned(), Regex::new(&whole).ok()));
        };
        let (key, is_regex) = key.strip_suffix('~').map_or((key, false), |key| (key, true));
        let Some((_, field)) = FIELDS.iter().find(|(known, _)| *known == key) else {
            return Err(Failure::usage(format!(
                "there is no filter '{key}': use name, project, type, status, runtime or location"
            )));
        };
        if is_regex {
            let regex = Regex::new(value).map_err(|error| {
                Failure::usage(format!(
                    "'{value}' is no regular expression: {}",
                    last_line(&error.to_string())
                ))
            })?;
            return Ok(Self::Matches(*field, regex));
        }
        let values: Vec<String> = value.split(',').map(str::to_owned).collect();
        let known = match key {
            "type" => TYPES,
            "runtime" => RUNTIMES,
            "status" | "state" => STATUSES,
            _ => return Ok(Self::Equals(*field, values)),
        };
        let slip = |value: &&String| !known.iter().any(|known| known.eq_ignore_ascii_case(value));
        match values.iter().find(slip) {
            Some(wrong) => Err(Failure::usage(format!("there is no {key} '{wrong}', only {}", all(known)))),
            None => Ok(Self::Equals(*field, values)),
        }
    }

    /// Reads several.
    pub(crate) fn parse_all(words: &[String]) -> Result<Vec<Self>, Failure> {
        words.iter().map(|word| Self::parse(word)).collect()
    }

    /// Whether the instance is meant.
    pub(crate) fn passes(&self, instance: &dyn Chosen) -> bool {
        match self {
            Self::Name(start, whole) => {
                let name = instance.name();
                name.starts_with(start.as_str()) || whole.as_ref().is_some_and(|whole| whole.is_match(name))
            }
            Self::Equals(field, values) => {
                values.iter().any(|value| value.eq_ignore_ascii_case(field(instance)))
            }
            Self::Matches(field, regex) => regex.is_match(field(instance)),
        }
    }
}

/// `a, b and c`.
fn all(words: &[&str]) -> String {
    match words {
        [first @ .., last] if !first.is_empty() => format!("{} and {last}", first.join(", ")),
        _ => words.concat(),
    }
}

/// What a regular expression's error comes to: it draws the pattern first.
fn last_line(error: &str) -> &str {
    error.lines().last().unwrap_or_default().trim_start_matches("error: ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(word: &str) -> String {
        Filter::parse(word).unwrap_err().to_string()
    }

    #[test]
    fn slips_are_told() {
        assert_eq!(told("name~=a("), "'a(' is no regular expression: unclosed group");
        assert_eq!(told("type=vm"), "there is no type 'vm', only container and virtual-machine");
        assert!(
            told("runtime=lxc,dokcer").starts_with("there is no runtime 'dokcer', only incus, lxd, lxc, ")
        );
        assert!(told("runtime=dokcer").ends_with("docker, containerd and kubernetes"));
        assert!(told("status=runing").starts_with("there is no status 'runing'"));
        assert!(told("colour~=red").starts_with("there is no filter 'colour'"));
        assert!(told("prod:c1").contains("no remote 'prod'"));
    }

    #[test]
    fn what_is_used_is_chosen_as_what_is_listed() {
        let usage = InstanceUsage {
            name: "web-1".to_owned(),
            project: "default".to_owned(),
            instance_type: "container".to_owned(),
            runtime: "docker".to_owned(),
            location: "none".to_owned(),
            ..InstanceUsage::default()
        };
        let passes = |word: &str| Filter::parse(word).unwrap().passes(&usage);
        for word in [
            "web",
            "web-[0-9]",
            "type=CONTAINER",
            "runtime=lxc,docker",
            "status=running",
            "location=none",
            "local:",
        ] {
            assert!(passes(word), "{word}");
        }
        for word in ["eb", "type=virtual-machine", "runtime=lxc", "project=shop", "name~=^eb"] {
            assert!(!passes(word), "{word}");
        }
    }
}
