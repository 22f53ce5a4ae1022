//! The daemons as they behave, well and badly; the real ones are met in `miharu-e2e`.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};

use miharu_metrics::FamilySet;
use miharu_metrics::server::{Limit, Resource};

use super::*;

const PROJECTS: &str = r#"[{"name":"default","used_by":["/1.0/images/a","/1.0/profiles/default"]}]"#;
const STATE: &str = r#"{"resources":{"containers":{"Limit":-1,"Usage":4},"cpu":{"Limit":8,"Usage":3}}}"#;
const POOLS: &str = r#"[{"name":"fast","driver":"zfs"},{"name":"lost","driver":"ceph"}]"#;
const SPACE: &str = r#"{"space":{"total":100,"used":30},"inodes":{"total":0,"used":0}}"#;

const ALONE: &str = r#"{"environment":{"server_clustered":false,"server_name":"n1"}}"#;
const LEADER: &str = r#"{"environment":{"server_clustered":true,"server_name":"n1"}}"#;
const FOLLOWER: &str = r#"{"environment":{"server_clustered":true,"server_name":"n2"}}"#;
const MEMBERS: &str = r#"[{"server_name":"n1","roles":["database-leader","database"]},{"server_name":"n2","roles":["database"]}]"#;

/// A host on which daemons run.
struct Host {
    base: tempfile::TempDir,
    asked: Arc<Mutex<Vec<String>>>,
    /// What the daemons that run listen on for their guests.
    of_guests: Mutex<Vec<UnixListener>>,
}

impl Host {
    fn new() -> Self {
        let base = tempfile::tempdir().unwrap();
        fs::create_dir_all(base.path().join("proc/1/net")).unwrap();
        Self { base, asked: Arc::default(), of_guests: Mutex::default() }
    }

    fn roots(&self) -> Roots {
        Roots::at(self.base.path())
    }

    /// Says that only these daemons run.
    fn runs(&self, guests_sockets: &[&str]) {
        let line = |path: &&str| format!("0: 00000002 00000000 00010000 0001 01 1 {path}\n");
        let table: String = guests_sockets.iter().map(line).collect();
        fs::write(self.base.path().join("proc/1/net/unix"), table).unwrap();
        let listen = |path: &&str| {
            let place = self.base.path().join(path.trim_start_matches('/'));
            fs::create_dir_all(place.parent().unwrap()).unwrap();
            let _ = fs::remove_file(&place);
            UnixListener::bind(place).unwrap()
        };
        *lock(&self.of_guests) = guests_sockets.iter().map(listen).collect();
    }

    fn listen(&self, directory: &str) -> UnixListener {
        let directory = self.base.path().join(directory);
        fs::create_dir_all(&directory).unwrap();
        UnixListener::bind(directory.join("unix.socket")).unwrap()
    }

    /// Has a daemon answer there.
    fn serve(&self, directory: &str) {
        self.serve_as(directory, ALONE);
    }

    /// Has a daemon answer there, which says this of itself.
    fn serve_as(&self, directory: &str, about: &'static str) {
        let (listener, asked) = (self.listen(directory), Arc::clone(&self.asked));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let asked = Arc::clone(&asked);
                std::thread::spawn(move || answer(&stream, about, &asked));
            }
        });
    }
}

/// Answers one client until it has no more to ask.
fn answer(stream: &UnixStream, about: &str, asked: &Mutex<Vec<String>>) {
    let mut lines = BufReader::new(stream).lines();
    while let Some(Ok(request)) = lines.next() {
        let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
        while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
        let (status, metadata) = match path.as_str() {
            "/1.0" => ("200 OK", about),
            "/1.0/cluster/members?recursion=1" => ("200 OK", MEMBERS),
            "/1.0/projects?recursion=1" => ("200 OK", PROJECTS),
            "/1.0/projects/default/state" => ("200 OK", STATE),
            "/1.0/storage-pools?recursion=1" => ("200 OK", POOLS),
            "/1.0/storage-pools/fast/resources" => ("200 OK", SPACE),
            _ => ("500 Internal Server Error", "null"),
        };
        lock(asked).push(path);
        let body = format!(r#"{{"type":"sync","metadata":{metadata}}}"#);
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", body.len());
        let mut stream = stream;
        if stream.write_all((head + &body).as_bytes()).is_err() {
            return;
        }
    }
}

/// Waits for the end of the round that a look has begun, and looks once more.
fn after_a_round(runtimes: &Runtimes, wanted: Wanted) -> (Vec<Runtime>, Vec<Warning>) {
    lock(&runtimes.state).not_before = None;
    let _ = runtimes.figures(wanted);
    let until = Instant::now() + Duration::from_secs(20);
    while lock(&runtimes.state).asker.is_none() {
        assert!(Instant::now() < until, "the round does not end");
        std::thread::sleep(Duration::from_millis(5));
    }
    runtimes.figures(wanted)
}

fn without(excluded: &str) -> Wanted {
    Wanted::by(FamilySet::all().without(|name| name.starts_with(excluded)))
}

#[test]
fn a_daemon_tells_its_projects_and_pools_and_is_not_asked_at_every_look() {
    let host = Host::new();
    host.runs(&["/var/lib/incus/guestapi/sock"]);
    host.serve("var/lib/incus");
    let runtimes = Runtimes::new(host.roots());
    assert!(runtimes.figures(Wanted::all()).0.is_empty(), "nobody waits for the first round");
    let (told, warnings) = after_a_round(&runtimes, Wanted::all());
    let [incus] = &told[..] else { panic!("{told:?}") };
    assert_eq!((incus.runtime, &incus.server), ("incus", &None));
    let [project] = &incus.projects[..] else { panic!("{incus:?}") };
    assert_eq!((project.counts["images"], project.counts["containers"]), (1, 4));
    assert_eq!(project.resources["cpu"], Resource { limit: Limit::At(8), usage: Some(3) });
    let [pool] = &incus.pools[..] else { panic!("{incus:?}") };
    assert_eq!((pool.name.as_str(), pool.size_bytes, pool.used_bytes), ("fast", Some(100), Some(30)));
    let [warning] = &warnings[..] else { panic!("{warnings:?}") };
    assert!(warning.message.contains("storage pool lost does not tell its size"), "{warning}");
    let asked = lock(&host.asked).len();
    assert!(!runtimes.figures(Wanted::all()).0.is_empty());
    assert!(lock(&runtimes.state).asker.is_some(), "another round has begun");
    assert_eq!(lock(&host.asked).len(), asked);
    // The pool that failed is left alone.
    let (told, _) = after_a_round(&runtimes, Wanted::all());
    assert_eq!(told.len(), 1);
    let of_lost = lock(&host.asked).iter().filter(|path| path.contains("lost")).count();
    assert_eq!(of_lost, 1);
}

#[test]
fn of_a_cluster_one_member_tells_what_all_know() {
    for (about, has_projects) in [(LEADER, true), (FOLLOWER, false)] {
        let host = Host::new();
        host.runs(&["/var/lib/incus/guestapi/sock"]);
        host.serve_as("var/lib/incus", about);
        let runtimes = Runtimes::new(host.roots());
        let (told, warnings) = after_a_round(&runtimes, Wanted::all());
        let [incus] = &told[..] else { panic!("{told:?}") };
        assert_eq!(incus.projects.len(), usize::from(has_projects), "{incus:?}");
        assert_eq!(incus.pools.iter().map(|pool| pool.name.as_str()).collect::<Vec<_>>(), ["fast"]);
        // The ceph pool fails here, but only who speaks for all asks for its size.
        assert_eq!(warnings.len(), usize::from(has_projects), "{warnings:?}");
    }
}

#[test]
fn nobody_is_asked_for_what_nobody_wants() {
    let host = Host::new();
    host.runs(&["/var/lib/lxd/devlxd/sock"]);
    host.serve("var/lib/lxd");
    let runtimes = Runtimes::new(host.roots());
    let (told, _) = after_a_round(&runtimes, without("project_"));
    assert!(told[0].projects.is_empty() && !told[0].pools.is_empty());
    let is_wanted = |path: &String| path == "/1.0" || path.starts_with("/1.0/storage-pools");
    assert!(lock(&host.asked).iter().all(is_wanted));
    lock(&host.asked).clear();
    let (told, _) = after_a_round(&runtimes, without("storage_pool_"));
    assert!(!told[0].projects.is_empty() && told[0].pools.is_empty());
    let neither = Wanted::by(FamilySet::all().without(|name| !name.contains("memory_")));
    lock(&host.asked).clear();
    lock(&runtimes.state).not_before = None;
    assert!(runtimes.figures(neither).0.is_empty() && lock(&host.asked).is_empty());
}

#[test]
fn figures_that_are_too_old_are_withdrawn_and_a_daemon_that_ended_is_missed_for_a_while() {
    let host = Host::new();
    host.runs(&["/var/lib/lxd/devlxd/sock"]);
    host.serve("var/lib/lxd");
    let runtimes = Runtimes::new(host.roots());
    assert_eq!(after_a_round(&runtimes, Wanted::all()).0.len(), 1);
    host.runs(&[]);
    let (told, warnings) = after_a_round(&runtimes, Wanted::all());
    assert_eq!(told.len(), 1, "they are young");
    assert!(warnings[0].message.contains("the LXD daemon of /var/lib/lxd has ended"), "{warnings:?}");
    let later = Instant::now() + TOO_OLD;
    assert!(lock(&runtimes.state).figures(Wanted::all(), later).is_empty());
    let mut state = lock(&runtimes.state);
    for server in state.asker.as_mut().unwrap().servers.values_mut() {
        server.seen -= MISSED;
    }
    drop(state);
    let (told, warnings) = after_a_round(&runtimes, Wanted::all());
    assert!(told.is_empty() && warnings.is_empty());
}

#[test]
fn a_daemon_that_does_not_answer_costs_its_own_figures_alone() {
    let host = Host::new();
    host.runs(&["/var/lib/incus/guestapi/sock", "/var/lib/lxd/devlxd/sock"]);
    host.serve("var/lib/lxd");
    // It takes connections and drops them.
    let listener = host.listen("var/lib/incus");
    std::thread::spawn(move || listener.incoming().for_each(drop));
    let runtimes = Runtimes::new(host.roots());
    let (_, warnings) = after_a_round(&runtimes, Wanted::all());
    assert!(warnings.iter().all(|warning| !warning.message.contains("Incus")), "it may be starting");
    for server in lock(&runtimes.state).asker.as_mut().unwrap().servers.values_mut() {
        server.backoff = Backoff::default();
    }
    let (told, warnings) = after_a_round(&runtimes, Wanted::all());
    assert_eq!(told.len(), 1);
    // Whether the first one answers makes no difference to how the other's series are called.
    assert_eq!(told[0].server.as_deref(), Some("/var/lib/lxd"));
    let silent = |warning: &&Warning| warning.message.contains("the Incus daemon of /var/lib/incus does not");
    assert_eq!(warnings.iter().filter(silent).count(), 1, "{warnings:?}");
}

#[test]
fn a_daemon_whose_directory_does_not_answer_has_not_ended() {
    let host = Host::new();
    host.runs(&["/var/lib/lxd/devlxd/sock"]);
    host.serve("var/lib/lxd");
    let runtimes = Runtimes::new(host.roots());
    assert_eq!(after_a_round(&runtimes, Wanted::all()).0.len(), 1);
    let hang = |directory: &str| lock(&runtimes.state).asker.as_mut().unwrap().finder.hang(directory);
    let of_daemon = hang("/var/lib/lxd");
    let (told, warnings) = after_a_round(&runtimes, Wanted::all());
    assert_eq!(told.len(), 1, "what it told is young");
    let [warning] = &warnings[..] else { panic!("{warnings:?}") };
    let expected = "the directory /var/lib/lxd of the LXD daemon does not answer; what it told";
    assert!(warning.message.starts_with(expected), "{warning}");
    // Another one that never told anything is told beside it, in words of its own.
    let of_default = hang("/var/lib/incus");
    let (_, warnings) = after_a_round(&runtimes, Wanted::all());
    let messages: Vec<_> = warnings.iter().map(|warning| warning.message.as_str()).collect();
    assert!(messages.iter().any(|message| message.starts_with(expected)), "{messages:?}");
    let expected = "the directory /var/lib/incus of Incus or LXD does not answer: its projects";
    assert!(messages.iter().any(|message| message.starts_with(expected)), "{messages:?}");
    assert_eq!(messages.len(), 2, "{messages:?}");
    drop((of_daemon, of_default));
    lock(&host.asked).clear();
    let (told, _) = after_a_round(&runtimes, Wanted::all());
    assert_eq!(told.len(), 1);
    assert!(!lock(&host.asked).is_empty(), "it is asked again");
}

#[test]
fn the_first_of_several_is_the_same_whoever_is_seen_first() {
    let paths = ["/srv/a", "/var/snap/lxd/common/lxd", "/var/lib/lxd", "/var/lib/incus"];
    let mut sorted = paths.map(Path::new);
    sorted.sort_by_key(|path| (rank(path), *path));
    assert_eq!(sorted, [paths[3], paths[2], paths[1], paths[0]].map(Path::new));
}

#[test]
fn a_host_without_such_daemons_says_nothing() {
    let host = Host::new();
    let runtimes = Runtimes::new(host.roots());
    assert_eq!(after_a_round(&runtimes, Wanted::all()), Default::default(), "no table at all");
    host.runs(&["/run/docker.sock"]);
    assert_eq!(after_a_round(&runtimes, Wanted::all()), Default::default());
}
