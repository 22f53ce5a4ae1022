//! The sources against agents and monitors that answer wrongly, late, too much or not at all, on real unix sockets.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use miharu_api::report::PORT;
use miharu_instances::{Channel, Incarnation, Instance, Kind, Owner, Vm, Vsock};
use miharu_linux::Roots;
use miharu_linux::cgroup::CgroupPaths;
use miharu_linux::process::ProcDir;

use super::session::{GUEST_AGENT_PORT, Teller};
use super::{Age, Answer, Guests};
use crate::Options;

const REPORT: &str = r#"{"agent":"miharu","cpu_seconds_total":[{"cpu":"cpu0","cpu_seconds_user":1.5,"cpu_seconds_idle":8}],
    "memory":{"memory_mem_total_bytes":1000},"disk":[{"device":"vda","disk_read_bytes":512}],"boot_time_seconds":1000}"#;

/// Serves each connection of a unix socket in a thread of its own, which end with this process.
fn stub(path: &Path, serve: impl Fn(UnixStream) + Send + Sync + Copy + 'static) {
    let listener = UnixListener::bind(path).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            std::thread::spawn(move || serve(stream));
        }
    });
}

fn id_of(line: &str) -> u64 {
    serde_json::from_str::<serde_json::Value>(line).unwrap()["id"].as_u64().unwrap()
}

/// Answers every request with what `answer` makes of its number.
fn answer_lines(stream: UnixStream, answer: impl Fn(u64) -> String) {
    let mut writer = stream.try_clone().unwrap();
    for line in BufReader::new(stream).lines().map_while(Result::ok) {
        if writer.write_all(answer(id_of(&line)).as_bytes()).is_err() {
            return;
        }
    }
}

fn good_agent(stream: UnixStream) {
    answer_lines(stream, |id| format!("{{\"id\":{id},\"metrics\":{}}}\n", REPORT.replace('\n', " ")));
}

fn silent(mut stream: UnixStream) {
    let mut buffer = [0; 1024];
    while stream.read(&mut buffer).is_ok_and(|count| count > 0) {}
}

fn machine(number: u32, vm: Vm) -> Arc<Instance> {
    let own = std::process::id();
    Arc::new(Instance {
        project: "qemu".to_owned(),
        name: format!("vm{number}"),
        kind: Kind::VirtualMachine,
        runtime: "qemu",
        id: number.to_string(),
        init: Arc::new(ProcDir::open(&Roots::default(), own).unwrap()),
        cgroup: CgroupPaths::default(),
        incarnation: Incarnation { cgroup_inode: u64::from(number), init_pid: own, init_start: 1 },
        directory: "vm".into(),
        image: None,
        is_sandbox: false,
        vm: Some(vm),
    })
}

fn port(name: &str, socket: PathBuf) -> Vm {
    Vm { channels: vec![Channel { port: name.to_owned(), socket }], ..Vm::default() }
}

/// For what answers: a busy machine may take its time, and nobody waits for the rest of it.
const LONG: Duration = Duration::from_secs(20);
/// For what does not answer in full, which is waited for until then.
const SHORT: Duration = Duration::from_secs(2);

fn ask(guests: &Guests, machines: &[Arc<Instance>], time: Duration) -> Vec<Option<Answer>> {
    let asked: Vec<_> = machines.iter().map(|machine| (Arc::clone(machine), Age::Grown)).collect();
    let options = Options { balloon_interval: Duration::from_secs(5), ..Options::default() };
    let mut asking = guests.ask(&asked, Instant::now() + time, &options);
    // How late an answer comes over this process' threads is the machine's business.
    asking.until += LONG;
    let mut answers = asking.finish();
    machines.iter().map(|machine| answers.remove(&machine.incarnation)).collect()
}

/// Asks one machine with an agent that is served so, for so long.
fn ask_one(serve: fn(UnixStream), time: Duration) -> (Guests, Arc<Instance>, Answer) {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("s");
    stub(&socket, serve);
    let machine = machine(1, port(PORT, socket));
    let guests = Guests::new(Roots::default());
    let answer = ask(&guests, std::slice::from_ref(&machine), time).remove(0).unwrap();
    (guests, machine, answer)
}

#[test]
fn an_agent_answers_again_and_again_on_one_connection() {
    let (guests, machine, answer) = ask_one(good_agent, LONG);
    let (teller, guest) = answer.told.guest.unwrap();
    assert_eq!((teller, guest.figures.memory.mem_total), (Teller::Agent, Some(1000)));
    // The socket's file is gone with its directory: only the connection that stands can answer.
    let again = ask(&guests, &[machine], LONG).remove(0).unwrap();
    assert!(again.told.guest.is_some() && again.told.problems.is_empty());
}

#[test]
fn a_tap_that_was_plugged_in_costs_no_connection() {
    let (guests, before, answer) = ask_one(good_agent, LONG);
    assert!(answer.told.guest.is_some());
    let vm = Vm { taps: vec!["tap1".to_owned()], ..before.vm.clone().unwrap() };
    let now = Arc::new(Instance { vm: Some(vm), ..Instance::clone(&before) });
    // The socket's file is gone: a new session could not connect.
    assert!(ask(&guests, &[now], LONG).remove(0).unwrap().told.guest.is_some());
    let vm = port(PORT, "/nonexistent/other".into());
    let moved = Arc::new(Instance { vm: Some(vm), ..Instance::clone(&before) });
    assert!(ask(&guests, &[moved], LONG).remove(0).unwrap().told.guest.is_none());
}

#[test]
fn what_answers_wrongly_is_no_guest() {
    let hostile: [fn(UnixStream); 5] = [
        silent,
        |mut stream| {
            let noise = vec![b'x'; 1 << 20];
            for _ in 0..100 {
                if stream.write_all(&noise).is_err() {
                    return;
                }
            }
        },
        |mut stream| while stream.write_all(b"garbage\n{}\n").is_ok() {},
        |stream| answer_lines(stream, |id| format!("{{\"id\":{},\"metrics\":{{}}}}\n", id + 1)),
        |stream| answer_lines(stream, |id| format!("{{\"id\":{id},\"metrics\":{{}}}}\n")),
    ];
    for serve in hostile {
        let start = Instant::now();
        let (guests, machine, answer) = ask_one(serve, SHORT);
        assert!(answer.told.guest.is_none());
        assert!(answer.told.is_awaited || answer.took < SHORT * 7 / 8);
        assert!(start.elapsed() < SHORT + LONG / 2);
        let start = Instant::now();
        assert!(ask(&guests, &[machine], LONG).remove(0).unwrap().told.guest.is_none());
        assert!(start.elapsed() < LONG / 2, "it is left alone for a while");
    }
}

#[test]
fn late_answers_and_halves_of_them_are_read_over() {
    let (_, _, answer) = ask_one(
        |stream| {
            answer_lines(stream, |id| {
                let report = REPORT.replace('\n', " ");
                format!(
                    "cpu_seconds_total\":[]}}}}\n{{\"id\":7,\"metrics\":{{}}}}\n{{\"id\":{id},\"metrics\":{report}}}\n"
                )
            })
        },
        LONG,
    );
    assert!(answer.told.guest.is_some());
}

#[test]
fn ten_thousand_devices_are_cut() {
    let (_, _, answer) = ask_one(
        |stream| {
            answer_lines(stream, |id| {
                let disks: Vec<_> = (0..10_000).map(|n| format!(r#"{{"device":"d{n}x\"}}\n"}}"#)).collect();
                let report = REPORT
                    .replace('\n', " ")
                    .replace(r#"{"device":"vda","disk_read_bytes":512}"#, &disks.join(","));
                format!("{{\"id\":{id},\"metrics\":{report}}}\n")
            })
        },
        LONG,
    );
    assert_eq!(answer.told.guest.unwrap().1.figures.disks.len(), super::bounds::MAX_ROWS);
}

/// A guest agent that hangs over file systems.
fn guest_agent(stream: UnixStream) {
    let mut writer = stream.try_clone().unwrap();
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
        let text = String::from_utf8_lossy(&line).replace('\u{fffd}', "");
        let request: serde_json::Value = serde_json::from_str(&text).unwrap();
        let answer = match request["execute"].as_str().unwrap() {
            "guest-sync-delimited" => format!("old}}\n\u{0}{{\"return\":{}}}\n", request["arguments"]["id"]),
            "guest-get-cpustats" => {
                "{\"return\":[{\"type\":\"linux\",\"cpu\":0,\"user\":1000,\"idle\":5}]}\n".to_owned()
            }
            "guest-get-fsinfo" => String::new(),
            _ => "{\"error\":{\"class\":\"CommandNotFound\",\"desc\":\"none\"}}\n".to_owned(),
        };
        let bytes: Vec<u8> = answer.bytes().map(|byte| if byte == 0 { 0xff } else { byte }).collect();
        writer.write_all(&bytes).unwrap();
        line.clear();
    }
}

#[test]
fn a_command_that_hangs_costs_only_its_own_families() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("s");
    stub(&socket, guest_agent);
    let machine = [machine(1, port(GUEST_AGENT_PORT, socket))];
    let guests = Guests::new(Roots::default());
    let answer = ask(&guests, &machine, SHORT).remove(0).unwrap();
    let (teller, guest) = answer.told.guest.unwrap();
    assert_eq!((teller, guest.figures.cpu_effective), (Teller::GuestAgent, Some(1)));
    assert!(guest.figures.filesystems.is_empty());
    assert_eq!(answer.told.problems.len(), 1, "{:?}", answer.told.problems);
    let start = Instant::now();
    let answer = ask(&guests, &machine, LONG).remove(0).unwrap();
    assert!(answer.told.guest.is_some() && answer.told.problems.is_empty());
    assert!(start.elapsed() < LONG / 2, "file systems are not asked for again at once");
}

fn monitor(stream: UnixStream) {
    let mut writer = stream.try_clone().unwrap();
    writer.write_all(b"{\"QMP\": {\"version\": {}, \"capabilities\": []}}\n").unwrap();
    answer_lines(stream, |id| {
        format!(
            "{{\"event\": \"RTC_CHANGE\", \"data\": {{}}}}\n{{\"return\": [{{\"thread-id\": 5, \"cpu-index\": 0}}], \"id\": {id}}}\n"
        )
    });
}

#[test]
fn a_monitor_that_somebody_holds_is_passed_over() {
    let directory = tempfile::tempdir().unwrap();
    let (held, free) = (directory.path().join("held"), directory.path().join("free"));
    stub(&held, silent);
    stub(&free, monitor);
    let vm = Vm { monitors: vec![held, free], ..Vm::default() };
    let guests = Guests::new(Roots::default());
    let answer = ask(&guests, &[machine(1, vm)], SHORT * 2).remove(0).unwrap();
    assert_eq!(answer.told.monitor.monitor.vcpus, [(0, 5)]);
}

/// A monitor with a balloon whose polling is off until it is switched on.
fn balloon(stream: UnixStream) {
    let mut writer = stream.try_clone().unwrap();
    writer.write_all(b"{\"QMP\": {}}\n").unwrap();
    let mut interval = 0;
    for line in BufReader::new(stream).lines().map_while(Result::ok) {
        let asked: serde_json::Value = serde_json::from_str(&line).unwrap();
        let arguments = &asked["arguments"];
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
        let answer = match (asked["execute"].as_str().unwrap(), arguments["property"].as_str()) {
            ("qom-list", _) => serde_json::json!([{"name": "b0", "type": "child<virtio-balloon-pci>"}]),
            ("qom-set", Some("guest-stats-polling-interval")) => {
                assert_eq!(arguments["path"], "/machine/peripheral/b0");
                interval = arguments["value"].as_u64().unwrap();
                serde_json::json!({})
            }
            ("qom-get", Some("guest-stats-polling-interval")) => interval.into(),
            ("qom-get", _) => serde_json::json!({"last-update": now, "stats":
                {"stat-total-memory": interval, "stat-free-memory": 1, "stat-disk-caches": u64::MAX}}),
            _ => serde_json::json!([]),
        };
        let answer = serde_json::json!({"return": answer, "id": asked["id"]});
        if writer.write_all(format!("{answer}\n").as_bytes()).is_err() {
            return;
        }
    }
}

#[test]
fn a_balloon_is_switched_on_where_the_key_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let sockets = ["a", "b"].map(|name| directory.path().join(name));
    stub(&sockets[0], balloon);
    let machine = [machine(1, Vm { monitors: sockets.to_vec(), ..Vm::default() })];
    let guests = Guests::new(Roots::default());
    let asked = || ask(&guests, &machine, LONG).remove(0).unwrap().told.monitor.memory;
    assert_eq!(asked(), None, "it has not polled yet");
    let memory = asked().unwrap();
    assert_eq!((memory.total, memory.caches), (Some(5), None));
}

#[test]
fn vhost_user_vsock_is_spoken_to() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("s");
    stub(&socket, |mut stream| {
        let mut line = String::new();
        BufReader::new(stream.try_clone().unwrap()).read_line(&mut line).unwrap();
        if line == "CONNECT 8444\n" {
            stream.write_all(b"OK 1073741824\n").unwrap();
            good_agent(stream);
        }
    });
    let vm = Vm { vsock: Some(Vsock::Unix(socket)), ..Vm::default() };
    let guests = Guests::new(Roots::default());
    let answer = ask(&guests, &[machine(1, vm)], LONG).remove(0).unwrap();
    assert!(answer.told.guest.is_some());
}

#[test]
fn sixty_that_hang_cost_four_others_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let machines: Vec<_> = (0..64)
        .map(|number| {
            let socket = directory.path().join(number.to_string());
            stub(&socket, if number < 60 { silent } else { good_agent });
            machine(number, port(PORT, socket))
        })
        .collect();
    let guests = Guests::new(Roots::default());
    let start = Instant::now();
    let answers = ask(&guests, &machines, SHORT * 2);
    assert!(start.elapsed() < SHORT * 2 + LONG / 2);
    let told = |answer: &Option<Answer>| answer.as_ref().is_some_and(|answer| answer.told.guest.is_some());
    assert!(answers[..60].iter().all(|answer| !told(answer)));
    assert!(answers[60..].iter().all(told));
    let start = Instant::now();
    let answers = ask(&guests, &machines, LONG);
    assert!(answers[60..].iter().all(told) && start.elapsed() < LONG / 2);
}

/// Reads one call of libvirt's RPC: program, procedure, serial, arguments.
fn read_call(stream: &mut UnixStream) -> Option<(u32, u32, u32, Vec<u8>)> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).ok()?;
    let mut call = vec![0; u32::from_be_bytes(length) as usize - 4];
    stream.read_exact(&mut call).ok()?;
    let number = |index: usize| u32::from_be_bytes(call[index * 4..index * 4 + 4].try_into().unwrap());
    Some((number(0), number(2), number(4), call[24..].to_vec()))
}

fn text(text: &str) -> Vec<u8> {
    let mut bytes = (text.len() as u32).to_be_bytes().to_vec();
    bytes.extend(text.as_bytes());
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// A daemon of libvirt's with one domain, whose guest agent knows its CPUs and hangs over its disks.
fn libvirtd(mut stream: UnixStream) {
    let domain = [text("d1"), vec![7; 16], vec![0, 0, 0, 3]].concat();
    while let Some((program, procedure, serial, arguments)) = read_call(&mut stream) {
        let (status, result) = match (program, procedure) {
            (0x2000_8086, 66) => (0, vec![0; 4]),
            (0x2000_8086, 1) => (0, Vec::new()),
            (0x2000_8086, 23) => {
                assert_eq!(arguments, text("d1"));
                (0, domain.clone())
            }
            (0x2000_8086, 344) => {
                let figure = [text("balloon.current"), vec![0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 4, 0]].concat();
                (0, [vec![0, 0, 0, 1], domain.clone(), vec![0, 0, 0, 1], figure].concat())
            }
            (0x2000_8087, 3) => {
                assert!(arguments.starts_with(&domain));
                let command = String::from_utf8_lossy(&arguments).into_owned();
                if command.contains("guest-get-cpustats") {
                    let answer = r#"{"return":[{"type":"linux","cpu":0,"user":1000,"idle":5}]}"#;
                    (0, [vec![0, 0, 0, 1], text(answer)].concat())
                } else if command.contains("guest-get-diskstats") {
                    continue;
                } else {
                    (1, [vec![0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1], text("no")].concat())
                }
            }
            other => panic!("{other:?}"),
        };
        let length = (28 + result.len()) as u32;
        let header = [length, program, 1, procedure, 1, serial, status];
        let mut reply: Vec<u8> = header.into_iter().flat_map(u32::to_be_bytes).collect();
        // An event that nobody asked for comes first.
        let event = [28, program, 1, 5, 2, 0, 0u32];
        let mut bytes: Vec<u8> = event.into_iter().flat_map(u32::to_be_bytes).collect();
        reply.extend(result);
        bytes.extend(reply);
        stream.write_all(&bytes).unwrap();
    }
}

#[test]
fn libvirt_is_asked_for_what_it_holds() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(directory.path().join("run/libvirt")).unwrap();
    stub(&directory.path().join("run/libvirt/libvirt-sock"), libvirtd);
    let vm = Vm {
        owner: Owner::Libvirt { domain: "d1".to_owned() },
        ..port(GUEST_AGENT_PORT, "/run/libvirt/qemu/channel/1-d1/org.qemu.guest_agent.0".into())
    };
    let guests = Guests::new(Roots::at(directory.path()));
    let answer = ask(&guests, &[machine(1, vm)], SHORT).remove(0).unwrap();
    assert_eq!(answer.told.monitor.monitor.balloon, Some(1 << 20));
    let (teller, guest) = answer.told.guest.unwrap();
    assert_eq!((teller, guest.figures.cpu_effective), (Teller::GuestAgent, Some(1)));
    assert_eq!(answer.told.problems.len(), 1, "{:?}", answer.told.problems);
}
