//! A container's figures: its cgroups, its network namespace, its mounts.

use std::time::Instant;

use miharu_linux::cgroup::{self, Ancestors};
use miharu_linux::read::Buffer;
use miharu_linux::zfs::{self, Datasets};
use miharu_metrics::{Part, Wanted};

use super::{Found, GROUPS, Group, Question, View, read, reasons};
use crate::container::whose;
use crate::filesystems::{self, Choice};
use crate::{SharedFilesystems, cgroups};

pub(super) fn groups(
    question: &Question<'_>,
    view: &View,
    buffer: &mut Buffer,
) -> miharu_linux::Result<Vec<Group>> {
    let mut groups = vec![question.start(view, buffer)?];
    for (part, what) in GROUPS {
        let found = match part {
            // A virtual machine's alone.
            Part::Hypervisor => continue,
            Part::Network => network(question, view, buffer)?,
            Part::Filesystems => file_systems(question, view, buffer)?,
            Part::Disks => disks(question, view, buffer)?,
            Part::Gpus => Found::from("NVIDIA's management library, by the processes in its cgroup"),
            part => of_cgroups(*part, question, view, buffer)?,
        };
        groups.push(question.of_part(*part, what, found));
    }
    Ok(groups)
}

/// Reads what the cgroups tell of one part, and nothing else.
fn of_cgroups(
    part: Part,
    question: &Question<'_>,
    view: &View,
    buffer: &mut Buffer,
) -> miharu_linux::Result<Found> {
    let Some(hierarchies) = &view.hierarchies else {
        return Ok(Found::lacking("no cgroup hierarchy of this host can be seen"));
    };
    let figures = cgroup::read(
        hierarchies,
        &question.instance.cgroup,
        &view.facts,
        cgroups::parts(Wanted::only(part)),
        &mut Ancestors::default(),
        &mut cgroup::Kept::default(),
        buffer,
    )?;
    let looks = buffer.take_looks();
    let mut from: Vec<String> = read(&looks).collect();
    if part == Part::Memory {
        // An instance never has more than the host.
        from.extend(view.file("/meminfo"));
    }
    let reasons = reasons::of(part, hierarchies, question.instance, &figures, &looks);
    Ok(Found { from, reasons })
}

/// Block I/O: that of the cgroup, or that of its datasets where its root is on ZFS.
fn disks(question: &Question<'_>, view: &View, buffer: &mut Buffer) -> miharu_linux::Result<Found> {
    let datasets = if zfs::is_there(question.roots) {
        let found = choose(question, view, buffer)?;
        let _ = buffer.take_looks();
        found.datasets()
    } else {
        Vec::new()
    };
    if datasets.is_empty() {
        return of_cgroups(Part::Disks, question, view, buffer);
    }
    let mut known = Datasets::new(question.roots);
    for root in &datasets {
        let _ = known.below(root, Instant::now(), buffer);
    }
    let from = read(&buffer.take_looks()).collect();
    Ok(Found { from, reasons: vec!["ZFS keeps no such counter of a dataset".to_owned()] })
}

fn choose(
    question: &Question<'_>,
    view: &View,
    buffer: &mut Buffer,
) -> miharu_linux::Result<filesystems::Found> {
    let Question { instance, options, .. } = question;
    let choice = &mut Choice::default();
    let (directory, remote) = (&instance.directory, options.remote_filesystems);
    filesystems::find(&instance.init, whose(instance), directory, &view.mounts, remote, choice, buffer)
}

/// Sizes of file systems. They are not asked for here, as that may hang: those that the last collection has were.
fn file_systems(question: &Question<'_>, view: &View, buffer: &mut Buffer) -> miharu_linux::Result<Found> {
    let Question { instance, options, figures, .. } = question;
    let mut found = Found::default();
    match choose(question, view, buffer) {
        Ok(_) => {}
        Err(error) if error.is_gone() => return Err(error),
        Err(error) => found.reasons.push(error.to_string()),
    }
    found.from = read(&buffer.take_looks()).collect();
    let not_all =
        view.mounts_left_out.iter().map(|left_out| format!("the host's mounts, not all: {left_out}"));
    found.from.extend(not_all);
    let rows = figures.map(|figures| figures.figures.filesystems.as_slice()).unwrap_or_default();
    let root = instance.init.path().join("root");
    found.from.extend(rows.iter().map(|row| format!("statfs of {}{}", root.display(), row.mountpoint)));
    if options.shared_filesystems == SharedFilesystems::LeaveOut {
        found.reasons.push(
            "a file system that is shared with others is left out (metrics.shared_filesystems)".to_owned(),
        );
    }
    if !options.excluded.filesystems.is_empty() {
        found.reasons.push("metrics.devices.exclude leaves some out".to_owned());
    }
    if rows.is_empty() && found.reasons.is_empty() {
        found.reasons.push("none of its mounts has a size that could be read".to_owned());
    }
    Ok(found)
}

/// The counters of interfaces, which are the network namespace's.
fn network(question: &Question<'_>, view: &View, buffer: &mut Buffer) -> miharu_linux::Result<Found> {
    let init = &question.instance.init;
    let own = match init.network() {
        Ok(own) => own,
        Err(error) if error.is_gone() => return Err(error),
        Err(error) => return Ok(Found::lacking(error.to_string())),
    };
    let Some(host) = view.network else {
        return Ok(Found::lacking(
            "the host's own network namespace may not be looked at (CAP_SYS_PTRACE), and this could be it",
        ));
    };
    if own == host {
        return Ok(Found::lacking("it is in the host's own network, whose interfaces are no instance's"));
    }
    init.net_dev(buffer)?;
    let mut found = Found { from: read(&buffer.take_looks()).collect(), reasons: Vec::new() };
    let sharing: Vec<String> = question
        .all
        .iter()
        .filter(|other| other.incarnation != question.instance.incarnation)
        .filter(|other| other.init.network().is_ok_and(|other| other == own))
        .map(|other| format!("{}/{}", other.project, other.name))
        .collect();
    if !sharing.is_empty() {
        let others = sharing.join(", ");
        found.reasons.push(format!("its network is shared with {others}, and reported on one of them alone"));
    }
    if !question.options.excluded.interfaces.is_empty() {
        found.reasons.push("metrics.devices.exclude leaves some out".to_owned());
    }
    if found.reasons.is_empty() {
        found.reasons.push("its network has no interface".to_owned());
    }
    Ok(found)
}
