//! Questions about this very process, which is running, and about ones that are not.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use miharu_linux::Roots;
use miharu_linux::process::ProcDir;
use miharu_linux::read::Buffer;

use super::*;
use crate::Incarnation;
use crate::testing::{Process, Tree};

type Answer = Result<Identity, Unlearned>;

/// A question that a test answers, which counts how often it is asked.
struct Asked {
    answers: Receiver<Answer>,
    times: Arc<AtomicUsize>,
    renames: Renames,
    place: PathBuf,
}

impl Question for Asked {
    fn ask(&mut self, _sockets: &mut Sockets) -> Answer {
        self.times.fetch_add(1, Ordering::SeqCst);
        self.answers.recv().unwrap_or(Err(Unlearned("nobody is there".to_owned())))
    }

    fn project(&self) -> String {
        "podman".to_owned()
    }

    fn renames(&self) -> Renames {
        self.renames.clone()
    }

    fn place(&self) -> Option<&Path> {
        Some(&self.place)
    }
}

fn called(name: &str) -> Answer {
    let (project, name) = ("podman".to_owned(), name.to_owned());
    Ok(Identity { project, name, image: None, is_sandbox: false })
}

fn claim(inode: u64) -> Claim {
    Claim { path: "x".into(), directories: Vec::new(), inode }
}

/// This process, as the init of a container.
fn own() -> Found {
    let open = || ProcDir::open(&Roots::default(), std::process::id()).unwrap();
    let started = open().stat(&mut Buffer::new()).unwrap().starttime;
    let monitor = super::super::Monitor { process: open(), started, uid: 0, command_line: Vec::new() };
    Found { init: Arc::new(open()), started, memberships: Default::default(), monitor }
}

/// A container of this inode, and the one who answers for it.
struct Container {
    inode: u64,
    id: String,
    answer: Sender<Answer>,
    question: Option<Box<dyn Question>>,
    times: Arc<AtomicUsize>,
}

impl Container {
    fn new(inode: u64, renames: Renames) -> Self {
        Self::at("", inode, renames)
    }

    fn at(place: &str, inode: u64, renames: Renames) -> Self {
        let (answer, answers) = channel();
        let times = Arc::new(AtomicUsize::new(0));
        let question = Asked { answers, times: Arc::clone(&times), renames, place: place.into() };
        Self { inode, id: format!("{inode:064x}"), answer, question: Some(Box::new(question)), times }
    }

    fn learn(&mut self, names: &mut Names) -> Result<Identity, Unidentified> {
        let question = || self.question.take().unwrap();
        names.learn(&own(), &claim(self.inode), "podman", &self.id, question)
    }

    /// Its name, as soon as it has one.
    fn name(&mut self, names: &mut Names) -> String {
        for _ in 0..3000 {
            names.wait(Instant::now() + Duration::from_secs(10));
            match self.learn(names) {
                Ok(identity) => return identity.name,
                Err(Unidentified::Asked) => std::thread::sleep(Duration::from_millis(10)),
                Err(other) => panic!("{other}"),
            }
        }
        panic!("no name")
    }
}

fn is_asked(answer: Result<Identity, Unidentified>) -> bool {
    matches!(answer, Err(Unidentified::Asked))
}

/// Makes the thread look after its names as if time had passed.
fn let_time_pass(names: &Names) {
    let mut state = names.shared.lock();
    let passed = Instant::now().checked_sub(LAST_PAUSE * 2).unwrap();
    for entry in state.entries.values_mut() {
        entry.again = entry.again.map(|_| passed);
    }
    state.places.values_mut().for_each(|place| place.looked = None);
    drop(state);
    names.shared.work.notify_all();
}

#[test]
fn a_scan_waits_for_a_name_only_once_and_not_long() {
    let mut names = Names::default();
    let mut slow = Container::new(1, Renames::Never);
    assert!(is_asked(slow.learn(&mut names)));
    let begun = Instant::now();
    names.wait(begun + Duration::from_millis(50));
    assert!(begun.elapsed() >= Duration::from_millis(50));
    assert!(is_asked(slow.learn(&mut names)));
    let begun = Instant::now();
    names.wait(begun + Duration::from_secs(60));
    assert!(begun.elapsed() < Duration::from_secs(30), "it was waited for already");
    slow.answer.send(called("web")).unwrap();
    assert_eq!(slow.name(&mut names), "web");
    assert!(names.changes(&mut Vec::new()).is_empty(), "it never was called otherwise");
    // A name that comes in time is there in the same scan.
    let mut quick = Container::new(2, Renames::Never);
    quick.answer.send(called("db")).unwrap();
    assert!(is_asked(quick.learn(&mut names)));
    names.wait(Instant::now() + Duration::from_secs(60));
    assert_eq!(quick.learn(&mut names).unwrap().name, "db");
}

#[test]
fn what_cannot_be_learned_is_served_under_its_id_and_warned_of_until_it_is() {
    let mut names = Names::default();
    let mut container = Container::new(1, Renames::Never);
    container.answer.send(Err(Unlearned("no files".to_owned()))).unwrap();
    assert_eq!(container.name(&mut names), "000000000000");
    let mut warnings = Vec::new();
    assert!(names.changes(&mut warnings).is_empty());
    assert_eq!(
        warnings.iter().map(ToString::to_string).collect::<Vec<_>>(),
        [
            "podman container 000000000000 in project podman is served under its id, as its name could not be learned: \
          no files"
        ]
    );
    container.answer.send(called("web")).unwrap();
    let_time_pass(&names);
    let renamed = until(|| names.changes(&mut Vec::new()), |renamed| !renamed.is_empty());
    assert_eq!((renamed[0].incarnation.cgroup_inode, renamed[0].identity.name.as_str()), (1, "web"));
    let mut warnings = Vec::new();
    names.changes(&mut warnings);
    assert!(warnings.is_empty());
    assert_eq!(container.learn(&mut names).unwrap().name, "web");
}

fn until<T>(mut look: impl FnMut() -> T, is_it: impl Fn(&T) -> bool) -> T {
    for _ in 0..3000 {
        let found = look();
        if is_it(&found) {
            return found;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("it never came")
}

#[test]
fn a_new_name_shows_in_the_file() {
    let base = tempfile::tempdir().unwrap();
    let file = base.path().join("list");
    std::fs::write(&file, "a").unwrap();
    let mut names = Names::default();
    let mut container = Container::new(1, Renames::Change(file.clone()));
    container.answer.send(called("old")).unwrap();
    assert_eq!(container.name(&mut names), "old");
    let_time_pass(&names);
    until(|| names.shared.lock().places.values().all(|place| place.looked.is_some()), |is_so| *is_so);
    assert_eq!(container.times.load(Ordering::SeqCst), 1, "the file is as it was");
    std::fs::write(&file, "ab").unwrap();
    container.answer.send(called("new")).unwrap();
    let_time_pass(&names);
    let renamed = until(|| names.changes(&mut Vec::new()), |renamed| !renamed.is_empty());
    assert_eq!(renamed[0].identity.name, "new");
    // One that fails later keeps its name.
    std::fs::write(&file, "abc").unwrap();
    container.answer.send(Err(Unlearned("gone".to_owned()))).unwrap();
    let_time_pass(&names);
    until(|| container.times.load(Ordering::SeqCst), |times| *times == 3);
    let mut warnings = Vec::new();
    assert!(names.changes(&mut warnings).is_empty() && warnings.is_empty());
    assert_eq!(container.learn(&mut names).unwrap().name, "new");
}

#[test]
fn one_that_hangs_holds_up_no_scan_and_is_served_under_its_id_at_last() {
    let mut names = Names::default();
    let mut hung = Container::new(1, Renames::Never);
    let mut behind = Container::new(2, Renames::Never);
    behind.answer.send(called("web")).unwrap();
    assert!(is_asked(hung.learn(&mut names)) && is_asked(behind.learn(&mut names)));
    let begun = Instant::now();
    names.wait(begun + Duration::from_millis(50));
    assert!(is_asked(hung.learn(&mut names)) && is_asked(behind.learn(&mut names)));
    assert!(begun.elapsed() < Duration::from_secs(30));
    let mut state = names.shared.lock();
    for entry in state.entries.values_mut() {
        entry.asked = entry.asked.checked_sub(OVERDUE).unwrap();
    }
    // Others were answered not long ago: it is a long queue.
    state.progress = Some(begun);
    drop(state);
    assert!(is_asked(hung.learn(&mut names)));
    names.shared.lock().progress = Some(begun.checked_sub(OVERDUE).unwrap());
    assert_eq!(hung.learn(&mut names).unwrap().name, "000000000000");
    let mut warnings = Vec::new();
    names.changes(&mut warnings);
    assert_eq!(warnings.len(), 1);
    // The thread comes back to life.
    hung.answer.send(called("late")).unwrap();
    let renamed = until(|| names.changes(&mut Vec::new()), |renamed| !renamed.is_empty());
    assert_eq!(renamed[0].identity.name, "late");
    assert_eq!(behind.name(&mut names), "web");
}

#[test]
fn what_is_gone_is_forgotten_and_not_asked_for() {
    let mut names = Names::default();
    let tree = Tree::v2();
    tree.process(&Process {
        pid: 77,
        ppid: 1,
        comm: "sh",
        command_line: "sh",
        uid: 0,
        depth: 2,
        cgroup: "x",
    });
    let mut found = own();
    found.init = Arc::new(ProcDir::open(&Roots::at(&tree.path("")), 77).unwrap());
    found.started = found.init.stat(&mut Buffer::new()).unwrap().starttime;
    let (mut first, mut second) = (Container::new(1, Renames::Never), Container::new(2, Renames::Never));
    first.answer.send(called("a")).unwrap();
    for container in [&mut first, &mut second] {
        let question = || container.question.take().unwrap();
        assert!(is_asked(names.learn(&found, &claim(container.inode), "podman", &container.id, question)));
    }
    // The second is being asked while the container ends; a third waits for its turn.
    until(|| second.times.load(Ordering::SeqCst), |times| *times == 1);
    let third = Container::new(3, Renames::Never);
    let question = third.question.unwrap();
    assert!(is_asked(names.learn(&found, &claim(3), "podman", &third.id, || question)));
    tree.end(77);
    second.answer.send(called("b")).unwrap();
    until(|| names.shared.lock().entries.contains_key(&incarnation(&found, 3)), |is_there| !is_there);
    assert_eq!(third.times.load(Ordering::SeqCst), 0);
    let_time_pass(&names);
    until(|| names.shared.lock().entries.len(), |left| *left == 0);
}

fn incarnation(found: &Found, inode: u64) -> Incarnation {
    found.incarnation(&claim(inode))
}

#[test]
fn without_questions_there_is_no_thread() {
    let mut names = Names::default();
    names.wait(Instant::now() + Duration::from_secs(60));
    assert!(names.changes(&mut Vec::new()).is_empty());
    assert_eq!(names.shared.lock().threads, 0);
}

#[test]
fn the_thread_ends_with_the_driver() {
    let mut names = Names::default();
    let mut container = Container::new(1, Renames::Never);
    container.answer.send(called("web")).unwrap();
    assert_eq!(container.name(&mut names), "web");
    let shared = Arc::clone(&names.shared);
    drop(names);
    until(|| shared.lock().threads, |threads| *threads == 0);
}

/// Makes what is being asked at this place look as if it had been so for that long.
fn let_it_hang(names: &Names, place: &str, time: Duration) {
    let mut state = until(|| names.shared.lock(), |state| state.places[Path::new(place)].held.is_some());
    state.places.get_mut(Path::new(place)).unwrap().held = Instant::now().checked_sub(time);
}

#[test]
fn a_place_that_hangs_keeps_its_own_waiting_and_nobody_elses() {
    let mut names = Names::default();
    let mut hung = Container::at("a", 1, Renames::Never);
    let mut behind = Container::at("a", 2, Renames::Never);
    let mut other = Container::at("b", 3, Renames::Never);
    behind.answer.send(called("behind")).unwrap();
    other.answer.send(called("web")).unwrap();
    for container in [&mut hung, &mut behind, &mut other] {
        assert!(is_asked(container.learn(&mut names)));
    }
    let_it_hang(&names, "a", STUCK_AFTER);
    names.changes(&mut Vec::new());
    assert_eq!(other.name(&mut names), "web");
    assert_eq!(names.shared.lock().threads, 2);
    assert_eq!(behind.times.load(Ordering::SeqCst), 0, "nobody else hangs there");
    // However much is learned elsewhere, who waits there is served after a while.
    let_it_hang(&names, "a", OVERDUE);
    for entry in names.shared.lock().entries.values_mut() {
        entry.asked = entry.asked.checked_sub(OVERDUE).unwrap();
    }
    assert_eq!(hung.learn(&mut names).unwrap().name, "000000000000");
    assert_eq!(behind.learn(&mut names).unwrap().name, "000000000000");
    // It comes back, and one thread is enough again.
    hung.answer.send(called("late")).unwrap();
    let mut renamed = Vec::new();
    until(
        || {
            renamed.extend(names.changes(&mut Vec::new()).into_iter().map(|it| it.identity.name));
            renamed.len()
        },
        |count| *count == 2,
    );
    renamed.sort();
    assert_eq!(renamed, ["behind", "late"]);
    until(|| names.shared.lock().threads, |threads| *threads == 1);
}

#[test]
fn what_waits_where_a_thread_has_come_back_is_asked_by_the_one_that_stays() {
    let mut names = Names::default();
    let mut hung = Container::at("a", 1, Renames::Never);
    let mut behind = Container::at("a", 2, Renames::Never);
    let mut other = Container::at("b", 3, Renames::Never);
    for container in [&mut hung, &mut behind, &mut other] {
        assert!(is_asked(container.learn(&mut names)));
    }
    let_it_hang(&names, "a", STUCK_AFTER);
    names.changes(&mut Vec::new());
    other.answer.send(called("web")).unwrap();
    assert_eq!(other.name(&mut names), "web");
    // All containers of the other place end, so that the second thread has nothing to wake up for.
    let mut state = names.shared.lock();
    state.forget(incarnation(&own(), 3));
    state.places.remove(Path::new("b"));
    assert_eq!(state.threads, 2);
    drop(state);
    names.shared.work.notify_all();
    std::thread::sleep(Duration::from_millis(100));
    behind.answer.send(called("behind")).unwrap();
    hung.answer.send(called("late")).unwrap();
    until(|| names.shared.lock().threads, |threads| *threads == 1);
    until(|| behind.times.load(Ordering::SeqCst), |times| *times == 1);
}

#[test]
fn of_two_threads_that_are_free_one_stays() {
    let shared = Shared::default();
    let mut state = shared.lock();
    state.threads = 2;
    let now = Instant::now();
    assert!(state.dismiss(now));
    assert!(!state.dismiss(now), "it is the last");
    state.is_over = true;
    assert!(state.dismiss(now));
    assert_eq!(state.threads, 0);
}

#[test]
fn no_more_threads_hang_than_a_few() {
    let mut names = Names::default();
    let places: Vec<_> = (0..MAX_STUCK + 2).map(|number| number.to_string()).collect();
    let numbered = (1..).zip(&places);
    let mut hung: Vec<_> =
        numbered.map(|(inode, place)| Container::at(place, inode, Renames::Never)).collect();
    for container in &mut hung {
        assert!(is_asked(container.learn(&mut names)));
    }
    for place in places.iter().take(MAX_STUCK) {
        let_it_hang(&names, place, STUCK_AFTER);
        names.changes(&mut Vec::new());
    }
    assert_eq!(names.shared.lock().threads, MAX_STUCK);
    // One of them comes back, and goes on with what is left.
    hung[1].answer.send(called("web")).unwrap();
    until(|| hung[MAX_STUCK].times.load(Ordering::SeqCst), |times| *times == 1);
    assert_eq!(names.shared.lock().threads, MAX_STUCK);
}

/// While the thread is there, and even while it hangs.
#[test]
fn the_thread_holds_no_file_of_the_process() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut names = Names::default();
    let mut hung = Container::new(1, Renames::Never);
    assert!(is_asked(hung.learn(&mut names)));
    until(|| hung.times.load(Ordering::SeqCst), |times| *times == 1);
    drop(listener);
    assert!(std::net::TcpStream::connect(address).is_err());
    assert_eq!(names.shared.lock().threads, 1);
}

#[test]
fn a_thread_that_panicked_is_replaced() {
    struct Panics;
    impl Question for Panics {
        fn ask(&mut self, _sockets: &mut Sockets) -> Answer {
            panic!("on purpose")
        }

        fn project(&self) -> String {
            "podman".to_owned()
        }
    }
    let mut names = Names::default();
    assert!(is_asked(names.learn(&own(), &claim(1), "podman", &"a".repeat(64), || Box::new(Panics))));
    until(|| names.shared.lock().threads, |threads| *threads == 0);
    let mut container = Container::new(2, Renames::Never);
    container.answer.send(called("web")).unwrap();
    assert_eq!(container.name(&mut names), "web");
}
