//! What an operator should know of a collection.

use std::fmt;

/// One thing that went wrong in a collection.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Warning {
    /// What kind of thing.
    pub kind: WarningKind,
    /// The instance that it is about, if it is about one.
    pub instance: Option<InstanceName>,
    /// What happened, to what, and what to do.
    pub message: String,
}

/// The kinds of things that go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WarningKind {
    /// An instance, or its guest, did not answer in time.
    Unresponsive,
    /// A file system does not answer.
    StuckFilesystem,
    /// Something may not be read.
    Denied,
    /// There was not enough time for all.
    OutOfTime,
    /// What figures are asked of, a daemon or a library, does not answer.
    SourceSilent,
    /// Some figures are missing, or wrong and left out.
    Incomplete,
}

/// Which instance.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceName {
    /// Its project.
    pub project: String,
    /// Its name within the project.
    pub name: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.instance {
            Some(InstanceName { project, name }) => {
                write!(f, "instance {project}/{name}: {}", self.message)
            }
            None => f.write_str(&self.message),
        }
    }
}
