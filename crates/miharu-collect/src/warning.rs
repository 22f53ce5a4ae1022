//! What an operator should know of a collection.

use std::fmt;

/// One thing that went wrong in a collection, or in finding the instances for it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Warning {
    /// The instance that it is about, as `project/name`, if it is about one.
    pub instance: Option<String>,
    /// What happened, to what, and what to do.
    pub message: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.instance {
            Some(instance) => write!(f, "instance {instance}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}
