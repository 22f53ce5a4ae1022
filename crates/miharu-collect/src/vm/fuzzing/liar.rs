//! A guest's agent, a monitor or libvirt that answers whatever it likes, at the other end of a real socket.

use std::io;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use miharu_instances::{Channel, Vm};
use miharu_linux::Roots;
use miharu_linux::block::Layers;
use miharu_metrics::Figures;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixListener;
use tokio::runtime::Runtime;
use tokio::time::Instant;

use super::super::agent::{Agent, Place};
use super::super::guest_agent::GuestAgent;
use super::super::libvirt_source::Libvirt;
use super::super::monitor::Qmp;
use super::super::report::{self, Guest};
use super::super::session::{GUEST_AGENT_PORT, Source};
use super::{check, check_addresses};

/// Who lies, by the first byte of an input, and at which place of the host.
const SOCKETS: [&str; 4] = ["run/agent", "run/guest-agent", "run/monitor", "run/libvirt/virtqemud-sock"];

/// Longer than anybody takes who says all there is to say at once.
const PATIENCE: Duration = Duration::from_secs(60);

/// The far ends of the sockets, below one directory.
#[derive(Debug)]
pub struct Liar {
    roots: Roots,
    runtime: Runtime,
    listeners: Vec<UnixListener>,
}

impl Liar {
    /// Listens below `directory`.
    ///
    /// # Errors
    /// Where it cannot.
    pub fn new(directory: &Path) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::fs::create_dir_all(directory.join("run/libvirt"))?;
        let _inside = runtime.enter();
        let listen = |socket: &&str| {
            let listener = StdUnixListener::bind(directory.join(socket))?;
            listener.set_nonblocking(true)?;
            UnixListener::from_std(listener)
        };
        let listeners = SOCKETS.iter().map(listen).collect::<io::Result<Vec<_>>>()?;
        drop(_inside);
        Ok(Self { roots: Roots::at(directory), runtime, listeners })
    }

    /// Whoever the first byte names says the rest, whatever it is asked, and no more. What was made of it.
    pub fn tell(&self, bytes: &[u8]) -> Vec<Figures> {
        let Some((who, said)) = bytes.split_first() else { return Vec::new() };
        let who = usize::from(*who) % SOCKETS.len();
        let (Some(listener), Some(socket)) = (self.listeners.get(who), SOCKETS.get(who)) else {
            return Vec::new();
        };
        let socket = Path::new("/").join(socket);
        self.runtime.block_on(async {
            let asking = tokio::time::timeout(PATIENCE, self.ask(who, socket));
            tokio::select! {
                told = asking => {
                    assert!(told.is_ok(), "who waits for an answer beyond the stream's end");
                    told.unwrap_or_default()
                }
                error = say(listener, said) => {
                    assert!(error.is_none(), "{error:?}");
                    Vec::new()
                }
            }
        })
    }

    async fn ask(&self, who: usize, socket: PathBuf) -> Vec<Figures> {
        let until = Instant::now() + PATIENCE;
        let mut guests: Vec<Guest> = Vec::new();
        let mut figures = Vec::new();
        match who {
            0 => {
                let mut agent = Agent::new(&self.roots, Place::Port(socket));
                // Numbered from the same place each time, so that an input stays what it was.
                agent.last_id = 0;
                // The second question goes over the connection of the first, where that was answered.
                for _ in 0..2 {
                    let Ok(told) = agent.ask(until).await else { break };
                    guests.extend(report::guest(told, Layers::One));
                }
            }
            1 => {
                let mut agent = GuestAgent::new(&self.roots, socket, Layers::All);
                agent.last_id = 0;
                guests.extend(agent.ask(until).await.ok().map(|told| told.0));
            }
            2 => {
                let Some(mut monitor) = Qmp::new(&self.roots, &[socket]) else { return figures };
                monitor.interval = Duration::from_secs(5);
                if let Ok(told) = monitor.ask(until).await {
                    figures.push(Figures { disks: told.monitor.disks, ..Figures::default() });
                }
            }
            _ => {
                let channel =
                    Channel { port: GUEST_AGENT_PORT.to_owned(), socket: PathBuf::from("/run/guest-agent") };
                let vm = Vm { channels: vec![channel], ..Vm::default() };
                let mut libvirt = Libvirt::new(&self.roots, "u1", &vm, Layers::All);
                if let Ok(told) = libvirt.ask(until).await {
                    guests.extend(told.guest.map(|told| told.0));
                    let disks = told.machine.map(|told| told.monitor.disks).unwrap_or_default();
                    figures.push(Figures { disks, ..Figures::default() });
                }
            }
        }
        for guest in guests {
            check_addresses(&guest.addresses);
            figures.push(guest.figures);
        }
        figures.iter().for_each(check);
        figures
    }
}

/// Answers everybody who connects with the same bytes and their end, for as long as it is let. Only an error ends it.
async fn say(listener: &UnixListener, bytes: &[u8]) -> Option<io::Error> {
    // One that was closed with questions in it would break off what the other end still reads.
    let mut held = Vec::new();
    loop {
        let mut stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => return Some(error),
        };
        // One of the last round may be gone already.
        if stream.write_all(bytes).await.is_ok() {
            let _ = stream.shutdown().await;
        }
        held.push(stream);
    }
}
