//! The encoders of both exposition formats: Prometheus' text form as Incus writes it, and OpenMetrics 1.0.0.

use std::collections::BTreeSet;

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
    /// `name="…",project="…"`, between which no other label can come.
    name_and_project: Vec<u8>,
    /// `type="…"`.
    instance_type: Vec<u8>,
}

impl InstanceLabels {
    fn new(instance: &InstanceFigures) -> Self {
        let mut name_and_project = Vec::new();
        name_and_project.extend_from_slice(b"name=\"");
        escape(&mut name_and_project, &instance.name);
        name_and_project.extend_from_slice(b"\",project=\"");
        escape(&mut name_and_project, &instance.project);
        name_and_project.push(b'"');
        let instance_type = format!("type=\"{}\"", instance.instance_type.as_str()).into_bytes();
        Self { name_and_project, instance_type }
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
    fn new(out: &'a mut Vec<u8>, family: &'a Family, format: Format, prefix: Prefix) -> Self {
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
        self.head();
        self.out.extend_from_slice(self.name.as_bytes());
        self.write_labels(own);
        self.out.push(b' ');
        value.write(self.out);
        self.out.push(b'\n');
    }

    fn write_labels(&mut self, own: &[Label<'_>]) {
        if own.is_empty() && self.labels.is_none() {
            return;
        }
        let mut open = b'{';
        let mut separate = |out: &mut Vec<u8>| {
            out.push(open);
            open = b',';
        };
        let mut own = own.iter().peekable();
        if let Some(labels) = self.labels {
            for (shared, name) in [(&labels.name_and_project, "name"), (&labels.instance_type, "type")] {
                while let Some(label) = own.next_if(|label| label.name() < name) {
                    separate(self.out);
                    label.write(self.out);
                }
                separate(self.out);
                self.out.extend_from_slice(shared);
            }
        }
        for label in own {
            separate(self.out);
            label.write(self.out);
        }
        self.out.push(b'}');
    }

    fn head(&mut self) {
        if self.headed {
            return;
        }
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
