//! What can be wrong, and how bad that is.

use miharu_collect::{InstanceName, WarningKind};
use miharu_instances::Warning as ScanWarning;

use crate::routes::instance_path_of;

/// The kinds of things that can be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Listener,
    InstanceUnresponsive,
    StuckFilesystem,
    SourceSilent,
    InstancesCollide,
    InstanceLeftOut,
    NameUnknown,
    TooManyCgroups,
    Denied,
    OutOfTime,
    Incomplete,
    Descriptors,
    Copy,
    CertificateExpires,
    CertificateExpired,
    Authority,
    ClusterRemoved,
    ClusterOutOfStep,
    ClusterCertificate,
    ClusterKey,
}

/// Which server counts a problem: what all members of a cluster share is counted by one of them, so that sums over members
/// are right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Counted {
    #[default]
    Here,
    Elsewhere,
}

impl Kind {
    /// All of them, in the order of docs/reference/warnings.md.
    #[cfg(test)]
    const ALL: [Self; 20] = [
        Self::Listener,
        Self::OutOfTime,
        Self::Descriptors,
        Self::CertificateExpired,
        Self::Authority,
        Self::ClusterRemoved,
        Self::CertificateExpires,
        Self::Copy,
        Self::ClusterOutOfStep,
        Self::ClusterCertificate,
        Self::ClusterKey,
        Self::InstanceUnresponsive,
        Self::StuckFilesystem,
        Self::SourceSilent,
        Self::InstancesCollide,
        Self::InstanceLeftOut,
        Self::NameUnknown,
        Self::Denied,
        Self::TooManyCgroups,
        Self::Incomplete,
    ];

    /// What it is called in a list.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Listener => "Listener cannot be opened",
            Self::InstanceUnresponsive => "Instance does not answer",
            Self::StuckFilesystem => "File system does not answer",
            Self::SourceSilent => "Source of figures does not answer",
            Self::InstancesCollide => "Two instances have one name",
            Self::InstanceLeftOut => "Instance is not served",
            Self::NameUnknown => "Name cannot be learned",
            Self::TooManyCgroups => "Too many cgroups",
            Self::Denied => "Not allowed to read",
            Self::OutOfTime => "Not enough time to collect",
            Self::Incomplete => "Figures are missing",
            Self::Descriptors => "File descriptors run out",
            Self::Copy => "Database cannot be copied",
            Self::CertificateExpires => "Certificate expires soon",
            Self::CertificateExpired => "Certificate has expired",
            Self::Authority => "Certificate authority in disorder",
            Self::ClusterRemoved => "Removed from the cluster",
            Self::ClusterOutOfStep => "Cluster out of step",
            Self::ClusterCertificate => "Cluster knows another certificate",
            Self::ClusterKey => "Cluster key cannot be read",
        }
    }

    /// `high` is for what takes figures of everything away, or soon will; `low` for what takes a few of one instance.
    pub(crate) fn severity(self) -> &'static str {
        match self {
            Self::Listener
            | Self::OutOfTime
            | Self::Descriptors
            | Self::CertificateExpired
            | Self::Authority
            | Self::ClusterRemoved => "high",
            Self::InstanceUnresponsive
            | Self::StuckFilesystem
            | Self::SourceSilent
            | Self::InstancesCollide
            | Self::InstanceLeftOut
            | Self::NameUnknown
            | Self::TooManyCgroups
            | Self::Denied
            | Self::ClusterOutOfStep
            | Self::ClusterCertificate
            | Self::ClusterKey
            | Self::Copy
            | Self::CertificateExpires => "moderate",
            Self::Incomplete => "low",
        }
    }
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) kind: Kind,
    /// What tells it from others of its kind. It stays the same for as long as the same thing is wrong.
    pub(crate) cause: String,
    pub(crate) project: Option<String>,
    /// The path of what it is about, or empty.
    pub(crate) entity: String,
    /// What happened, to what, and what to do.
    pub(crate) message: String,
    /// Whose count it is in.
    pub(crate) counted: Counted,
}

impl Problem {
    /// One of the server's, which belongs to no project.
    pub(crate) fn of_server(kind: Kind, cause: &str, message: String) -> Self {
        Self {
            kind,
            cause: cause.to_owned(),
            project: None,
            entity: String::new(),
            message,
            counted: Counted::Here,
        }
    }

    /// The same, counted by another server.
    pub(crate) fn elsewhere(self) -> Self {
        Self { counted: Counted::Elsewhere, ..self }
    }

    fn of_instance(kind: Kind, instance: &InstanceName, detail: &str, message: String) -> Self {
        let InstanceName { project, name } = instance;
        Self {
            kind,
            // Neither a project's nor an instance's name has such a character.
            cause: format!("{project}\0{name}\0{detail}"),
            project: Some(project.clone()),
            entity: instance_path_of(project, name),
            message,
            counted: Counted::Here,
        }
    }
}

impl From<&miharu_collect::Warning> for Problem {
    fn from(warning: &miharu_collect::Warning) -> Self {
        let kind = match warning.kind {
            WarningKind::Unresponsive => Kind::InstanceUnresponsive,
            WarningKind::StuckFilesystem => Kind::StuckFilesystem,
            WarningKind::SourceSilent => Kind::SourceSilent,
            WarningKind::Denied => Kind::Denied,
            WarningKind::OutOfTime => Kind::OutOfTime,
            WarningKind::Incomplete => Kind::Incomplete,
        };
        let detail = match kind {
            // An instance does not answer in more than one way, but it is one thing that is wrong.
            Kind::InstanceUnresponsive | Kind::OutOfTime => "",
            _ => &warning.message,
        };
        match &warning.instance {
            Some(instance) => Self::of_instance(kind, instance, detail, warning.to_string()),
            None => Self::of_server(kind, detail, warning.to_string()),
        }
    }
}

impl From<&ScanWarning> for Problem {
    fn from(warning: &ScanWarning) -> Self {
        let message = warning.to_string();
        match warning {
            ScanWarning::Duplicate { project, name, .. } => {
                let instance = InstanceName { project: project.clone(), name: name.clone() };
                Self::of_instance(Kind::InstancesCollide, &instance, "", message)
            }
            ScanWarning::Doubtful { cgroup, .. } => {
                Self::of_server(Kind::InstanceLeftOut, &cgroup.display().to_string(), message)
            }
            ScanWarning::Unreadable { what, .. } | ScanWarning::Refused { what, .. } => {
                Self::of_server(Kind::InstanceLeftOut, what, message)
            }
            ScanWarning::LeftOut(_) => Self::of_server(Kind::InstanceLeftOut, "more", message),
            ScanWarning::Unlisted { directory, .. } => {
                Self::of_server(Kind::InstanceLeftOut, &directory.display().to_string(), message)
            }
            ScanWarning::Unnamed { project, name, .. } => {
                let instance = InstanceName { project: project.clone(), name: name.clone() };
                Self::of_instance(Kind::NameUnknown, &instance, "", message)
            }
            ScanWarning::TooManyCgroups => Self::of_server(Kind::TooManyCgroups, "", message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collected(kind: WarningKind, message: &str) -> Problem {
        let instance = InstanceName { project: "docker/shop".to_owned(), name: "web".to_owned() };
        let message = message.to_owned();
        Problem::from(&miharu_collect::Warning { kind, instance: Some(instance), message })
    }

    #[test]
    fn the_pages_list_every_kind() {
        let pages = [
            include_str!("../../../../docs/reference/warnings.md"),
            include_str!("../../../../docs/reference/warnings.ja.md"),
        ];
        for page in pages {
            let rows = page.lines().filter(|line| {
                line.contains("| high |") || line.contains("| moderate |") || line.contains("| low |")
            });
            let listed: Vec<String> =
                rows.filter_map(|row| row.split('|').nth(1)).map(|name| name.trim().to_owned()).collect();
            assert_eq!(listed, Kind::ALL.map(|kind| kind.name().to_owned()));
            for kind in Kind::ALL {
                let row = format!("| {} | {} |", kind.name(), kind.severity());
                assert!(page.contains(&row), "{row}");
            }
        }
    }

    #[test]
    fn an_instance_that_does_not_answer_is_one_problem_in_whatever_way() {
        let late = collected(WarningKind::Unresponsive, "could not be read in time");
        let left_alone = collected(WarningKind::Unresponsive, "is left alone for a while");
        assert_eq!(late.cause, left_alone.cause);
        assert_eq!(late.entity, "/1.0/instances/web?project=docker%2Fshop");
        assert_eq!(late.message, "instance docker/shop/web: could not be read in time");
        let one = collected(WarningKind::StuckFilesystem, "/a hangs");
        assert_ne!(one.cause, collected(WarningKind::StuckFilesystem, "/b hangs").cause);
    }

    #[test]
    fn a_name_that_two_instances_have_is_one_problem_whoever_they_are() {
        let duplicate = |left_out| {
            let (project, name) = ("lxc".to_owned(), "u1".to_owned());
            Problem::from(&ScanWarning::Duplicate { project, name, kept: 1, left_out })
        };
        assert_eq!(duplicate(2).cause, duplicate(3).cause);
        assert_eq!(duplicate(2).project.as_deref(), Some("lxc"));
    }
}
