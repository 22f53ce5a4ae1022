//! An instance's file systems: chosen from its mounts, asked for their sizes, told apart from shared ones.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::time::Instant;

use miharu_linux::mounts::{
    self, Device, FileSystem, HostMounts, Mount, RemoteFilesystems, SharedOn, Sharing,
};
use miharu_linux::process::ProcDir;
use miharu_linux::read::Buffer;
use miharu_linux::statfs::{Answer, Pool, Request, Sizes, Whose};
use miharu_metrics::figures;

/// Whether file systems that an instance only has a directory on are reported (`metrics.shared_filesystems`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SharedFilesystems {
    /// They are, marked as shared.
    #[default]
    Serve,
    /// They are left out, as Incus does.
    LeaveOut,
}

/// The file systems of one instance before their sizes are known.
#[derive(Debug, Default)]
pub(crate) struct Found {
    chosen: Vec<(FileSystem, Vec<Sharing>)>,
}

/// Chooses from the mounts of an instance whose directory on the host is called `directory`.
pub(crate) fn find(
    init: &ProcDir,
    directory: &OsStr,
    host: &HostMounts,
    remote: RemoteFilesystems,
    buffer: &mut Buffer,
) -> miharu_linux::Result<Found> {
    let mounts = mounts::parse(init.read(buffer, "mountinfo")?, mounts::MAX_MOUNTS);
    let chosen = mounts::select(&mounts, remote).into_iter().map(|file_system| {
        let sharing = file_system.mounts.iter().map(|mount| host.sharing(mount, directory)).collect();
        (file_system, sharing)
    });
    Ok(Found { chosen: chosen.collect() })
}

/// Asks for the sizes of all instances' file systems at once, each instance given with its view of the file tree, and
/// puts them together. What is not known by `deadline` is absent.
pub(crate) fn measure(
    found: Vec<(Whose, Found)>,
    pool: &Pool,
    shared: SharedFilesystems,
    deadline: Instant,
) -> Vec<Vec<figures::Filesystem>> {
    let mut requests = Vec::new();
    let mut of_host = Vec::new();
    let mut host_places: HashMap<Device, usize> = HashMap::new();
    for (whose, found) in &found {
        for (file_system, sharing) in &found.chosen {
            requests.push(Request::new(*whose, file_system));
            for on in sharing.iter().filter_map(shared_on) {
                host_places.entry(on.mount.device).or_insert_with(|| {
                    of_host.push(Request::host(&on.mount));
                    of_host.len() - 1
                });
            }
        }
    }
    let own = requests.len();
    requests.append(&mut of_host);
    let mut answers = pool.ask(requests, deadline);
    let host_answers = answers.split_off(own.min(answers.len()));
    let host_sizes = |mount: &Mount| {
        let answer = host_answers.get(*host_places.get(&mount.device)?)?;
        answer.map(|answer| answer.sizes)
    };
    let mut answers = answers.into_iter();
    let mut all = Vec::with_capacity(found.len());
    for (_, found) in &found {
        let mut rows = Vec::with_capacity(found.chosen.len());
        for (file_system, sharing) in &found.chosen {
            // One answer for each, whether or not it makes a row.
            let Some(answer) = answers.next().flatten() else { continue };
            rows.extend(row(file_system, sharing, answer, host_sizes, shared));
        }
        all.push(rows);
    }
    all
}

fn shared_on(sharing: &Sharing) -> Option<&SharedOn> {
    match sharing {
        Sharing::Own => None,
        Sharing::Shared(on) => Some(on),
    }
}

fn row(
    file_system: &FileSystem,
    sharing: &[Sharing],
    answer: Answer,
    host_sizes: impl Fn(&Mount) -> Option<Sizes>,
    shared: SharedFilesystems,
) -> Option<figures::Filesystem> {
    let mount = file_system.mounts.get(answer.mount)?;
    // A project quota on the instance's directory shows a size of its own: then nothing is shared.
    let on = sharing.get(answer.mount).and_then(shared_on);
    let on = on.filter(|on| host_sizes(&on.mount).is_none_or(|host| host.size == answer.sizes.size));
    if on.is_some() && shared == SharedFilesystems::LeaveOut {
        return None;
    }
    Some(figures::Filesystem {
        device: on.map_or_else(|| mount.source.clone(), |on| on.device.clone()),
        fstype: mount.fstype.clone(),
        mountpoint: mount.mountpoint.to_string_lossy().into_owned(),
        size_bytes: Some(answer.sizes.size),
        free_bytes: Some(answer.sizes.free),
        avail_bytes: Some(answer.sizes.avail),
        files: answer.sizes.files,
        files_free: answer.sizes.files_free,
        sharing: if on.is_some() { figures::Sharing::Shared } else { figures::Sharing::Own },
    })
}
