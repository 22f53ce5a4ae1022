//! What is typed after `/` on the screen: words that an instance's name, project or runtime holds, or the filters of the
//! command line.

use miharu_api::InstanceUsage;

use crate::filter::Filter;

/// As long as a line may get.
const MAX: usize = 200;

/// The words.
#[derive(Debug, Default)]
pub(super) struct Words {
    typed: String,
    each: Vec<Word>,
    slip: Option<String>,
}

#[derive(Debug)]
enum Word {
    /// In small letters.
    Part(String),
    Filter(Filter),
}

impl Words {
    /// Words as they were typed.
    #[cfg(test)]
    pub(super) fn new(typed: &str) -> Self {
        let mut words = Self { typed: typed.chars().take(MAX).collect(), ..Self::default() };
        words.understand();
        words
    }

    /// What was typed.
    pub(super) fn typed(&self) -> &str {
        &self.typed
    }

    /// What cannot be meant, if something: such a word limits nothing.
    pub(super) fn slip(&self) -> Option<&str> {
        self.slip.as_deref()
    }

    /// Whether nothing was typed.
    pub(super) fn is_empty(&self) -> bool {
        self.typed.is_empty()
    }

    /// Adds a character.
    pub(super) fn add(&mut self, c: char) {
        if self.typed.chars().count() < MAX && !c.is_control() {
            self.typed.push(c);
            self.understand();
        }
    }

    /// Takes the last character away.
    pub(super) fn take(&mut self) {
        self.typed.pop();
        self.understand();
    }

    /// Whether the instance is meant.
    pub(super) fn pass(&self, instance: &InstanceUsage) -> bool {
        self.each.iter().all(|word| match word {
            Word::Filter(filter) => filter.passes(instance),
            Word::Part(part) => [&instance.name, &instance.project, &instance.runtime]
                .iter()
                .any(|text| text.to_lowercase().contains(part)),
        })
    }

    fn understand(&mut self) {
        self.each.clear();
        self.slip = None;
        for word in self.typed.split_whitespace() {
            if !word.contains('=') {
                self.each.push(Word::Part(word.to_lowercase()));
                continue;
            }
            match Filter::parse(word) {
                Ok(filter) => self.each.push(Word::Filter(filter)),
                Err(failure) => self.slip = Some(failure.to_string()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pass(typed: &str) -> bool {
        let instance = InstanceUsage {
            name: "Web-1".to_owned(),
            project: "shop".to_owned(),
            runtime: "docker".to_owned(),
            ..InstanceUsage::default()
        };
        Words::new(typed).pass(&instance)
    }

    #[test]
    fn words_are_parts_of_names_or_filters() {
        for typed in ["", "eb-", "WEB shop", "dock", "runtime=docker eb", "project=shop", "name~=^W"] {
            assert!(pass(typed), "{typed}");
        }
        for typed in ["db", "web db", "runtime=lxc", "name~=^w"] {
            assert!(!pass(typed), "{typed}");
        }
    }

    #[test]
    fn a_slip_is_told_and_limits_nothing() {
        let words = Words::new("runtime=dokcer");
        assert!(words.slip().unwrap().starts_with("there is no runtime 'dokcer'"));
        assert!(pass("runtime=dokcer"));
        let mut words = Words::default();
        "name~=(".chars().for_each(|c| words.add(c));
        assert!(words.slip().is_some());
        words.take();
        assert_eq!((words.typed(), words.slip()), ("name~=", None));
        (0..500).for_each(|_| words.add('x'));
        assert_eq!(words.typed().chars().count(), MAX);
    }
}
