//! The typed figures of an instance, the one list of metric families, and the encoders of both exposition formats.
//!
//! Nothing here reads a file or knows a runtime: figures come in typed, with absent ones absent, and go out as text.
#![forbid(unsafe_code)]

pub mod encode;
pub mod families;
pub mod figures;
pub mod reference;
mod sample;
pub mod selection;
pub mod server;

pub use encode::{Format, Prefix, Scope, ServerWide, encode};
pub use families::{FAMILIES, Family, MetricType};
pub use figures::{Figures, InstanceFigures, InstanceType};
pub use selection::{FamilySet, Part, Wanted};
pub use server::ServerFigures;

/// Everything one collection found: what an exposition is made of.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// The instances, sorted by project, name and type, without duplicates (see [`Snapshot::new`]).
    pub instances: Vec<InstanceFigures>,
    /// The figures of the server itself and of the host.
    pub server: ServerFigures,
}

impl Snapshot {
    /// Puts instances and their own rows in their stable order and leaves out what would be a duplicate series.
    ///
    /// The caller is expected to have seen and reported duplicate instances before; this is the last line of defence,
    /// as Prometheus refuses a whole scrape for one series that shows twice.
    #[must_use]
    pub fn new(mut instances: Vec<InstanceFigures>, server: ServerFigures) -> Self {
        instances.sort_by(|a, b| a.key().cmp(&b.key()));
        instances.dedup_by(|later, first| later.key() == first.key());
        for instance in &mut instances {
            instance.figures.normalise();
        }
        Self { instances, server }
    }
}
