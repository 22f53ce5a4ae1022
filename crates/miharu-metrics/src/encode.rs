//! The encoders of both exposition formats: Prometheus' text form as Incus writes it, and OpenMetrics 1.0.0.

use std::collections::BTreeSet;
use std::ops::Range;
use std::slice::SliceIndex;

use crate::Snapshot;
use crate::families::{Family, Producer};
use crate::figures::InstanceFigures;
use crate::sample::{Label, Value, escape};
use crate::selection::FamilySet;

/// The form of an exposition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Format {
    /// Prometheus' text form 0.0.4, counters typed under their full name and a closing `# EOF`, as Incus writes it.
    Text,
    /// Strict OpenMetrics 1.0.0.
    OpenMetrics,
}

impl Format {
    /// The Content-Type of an answer in this form.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// What stands before the name of every family but the `process_*` ones (`metrics.prefix`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Prefix {
    /// `incus_`, the default.
    #[default]
    Incus,
    /// `lxd_`.
    Lxd,
}

impl Prefix {
    /// The prefix without its underscore.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Incus => "incus",
            Self::Lxd => "lxd",
        }
    }
}

/// Whether the families of the server itself are part of an exposition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ServerWide {
    /// They are.
    Included,
    /// They are not: the reader may see only some projects.
    LeftOut,
}

/// The part of a snapshot that a reader asked for and may see.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scope {
    /// The projects whose instances are written, or all.
    pub projects: Option<BTreeSet<String>>,
    /// Whether the server's own families are written.
    pub server_wide: ServerWide,
    /// The families that are written at all.
    pub families: FamilySet,
}

impl Scope {
    /// Everything.
    #[must_use]
    pub fn all() -> Self {
        Self { projects: None, server_wide: ServerWide::Included, families: FamilySet::all() }
    }

    fn sees(&self, instance: &InstanceFigures) -> bool {
        self.projects.as_ref().is_none_or(|projects| projects.contains(&instance.project))
    }
}

/// Writes the part `scope` of `snapshot` as an exposition.
#[must_use]
pub fn encode(snapshot: &Snapshot, format: Format, prefix: Prefix, scope: &Scope) -> Vec<u8> {
    let instances: Vec<_> = snapshot.instances.iter().filter(|instance| scope.sees(instance)).collect();
    let labels: Vec<_> = instances.iter().map(|instance| InstanceLabels::new(instance)).collect();
    let mut out = Vec::with_capacity(4096 + instances.len() * 16384);
    for family in scope.families.iter() {
        let mut samples = Samples::new(&mut out, family, format, prefix);
        match family.producer {
            Producer::Instance(produce) => {
                for (instance, labels) in instances.iter().zip(&labels) {
                    samples.labels = Some(labels);
                    produce(instance, &mut samples);
                }
            }
            Producer::Instances(produce) => produce(&instances, &mut samples),
            Producer::Server(produce) if scope.server_wide == ServerWide::Included => {
                produce(snapshot, &mut samples);
            }
            Producer::Server(_) => {}
        }
    }
    out.extend_from_slice(b"# EOF\n");
    out
}

/// The labels that every sample of an instance carries, escaped once.
struct InstanceLabels {
    /// `{name="…",project="…",type="…"} `, all that stands between a name and a value where a sample has no other label.
    alone: Vec<u8>,
    /// `name="…",project="…"`, between which no other label can come, for a sample with one that comes after them.
    name_and_project: Range<usize>,
}

impl InstanceLabels {
    fn new(instance: &InstanceFigures) -> Self {
        let mut alone = Vec::with_capacity(instance.name.len() + instance.project.len() + 64);
        alone.extend_from_slice(b"{name=\"");
        escape(&mut alone, &instance.name);
        alone.extend_from_slice(b"\",project=\"");
        escape(&mut alone, &instance.project);
        alone.push(b'"');
        let end = alone.len();
        alone.extend_from_slice(b",type=\"");
        alone.extend_from_slice(instance.instance_type.as_str().as_bytes());
        alone.extend_from_slice(b"\"} ");
        Self { alone, name_and_project: 1..end }
    }

    fn piece(&self, range: impl SliceIndex<[u8], Output = [u8]>) -> &[u8] {
        self.alone.get(range).unwrap_or_default()
    }
}

/// Where a family's producer puts its samples.
pub(crate) struct Samples<'a> {
    out: &'a mut Vec<u8>,
    family: &'a Family,
    format: Format,
    prefix: Prefix,
    name: String,
    labels: Option<&'a InstanceLabels>,
    /// HELP and TYPE are written with the first sample: a family without one is not mentioned.
    headed: bool,
}

impl<'a> Samples<'a> {
    pub(crate) fn new(out: &'a mut Vec<u8>, family: &'a Family, format: Format, prefix: Prefix) -> Self {
        Self { out, family, format, prefix, name: family.name(prefix), labels: None, headed: false }
    }

    /// A sample without labels of its own, if there is a value.
    pub(crate) fn plain(&mut self, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.labelled(&[], value);
        }
    }

    /// A sample with labels of its own, which are given in alphabetical order.
    pub(crate) fn labelled(&mut self, own: &[Label<'_>], value: impl Into<Value>) {
        let value = value.into();
        if !value.is_sample() {
            return;
        }
        if !self.headed {
            self.head();
        }
        self.out.extend_from_slice(self.name.as_bytes());
        match self.labels {
            Some(labels) => write_labels(self.out, own, labels),
            None => write_own_labels(self.out, own),
        }
        value.write(self.out);
        self.out.push(b'\n');
    }

    fn head(&mut self) {
        self.headed = true;
        let family = self.family;
        let named = match self.format {
            Format::Text => self.name.clone(),
            Format::OpenMetrics => family.openmetrics_name(self.prefix),
        };
        let mut line = |word: &str, text: &str| {
            for part in ["# ", word, " ", &named, " ", text, "\n"] {
                self.out.extend_from_slice(part.as_bytes());
            }
        };
        line("HELP", family.help());
        line("TYPE", family.metric_type().as_str());
        if let (Format::OpenMetrics, Some(unit)) = (self.format, family.unit()) {
            line("UNIT", unit);
        }
    }
}

/// All labels of an instance's sample, in alphabetical order, and the blank after them.
fn write_labels(out: &mut Vec<u8>, own: &[Label<'_>], labels: &InstanceLabels) {
    let before = own.partition_point(|label| label.name() < "name");
    let Some((own, later)) = own.split_at_checked(before) else { return };
    if own.is_empty() && later.is_empty() {
        out.extend_from_slice(&labels.alone);
        return;
    }
    out.push(b'{');
    for label in own {
        label.write(out);
        out.push(b',');
    }
    if later.is_empty() {
        out.extend_from_slice(labels.piece(1..));
        return;
    }
    // What comes between `project` and `type`, which no label of ours comes after.
    out.extend_from_slice(labels.piece(labels.name_and_project.clone()));
    for label in later {
        out.push(b',');
        label.write(out);
    }
    out.extend_from_slice(labels.piece(labels.name_and_project.end..));
}

/// The labels of a sample that is of no one instance, and the blank after them.
fn write_own_labels(out: &mut Vec<u8>, own: &[Label<'_>]) {
    let mut open = b'{';
    for label in own {
        out.push(open);
        label.write(out);
        open = b',';
    }
    if !own.is_empty() {
        out.push(b'}');
    }
    out.push(b' ');
}
