//! Processes and cgroups that only look like a runtime's.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::scratch::{Entry, Note};
use crate::{cgroup, guest, measure, shell};

/// Some user who is not root.
pub const USER: &str = "12345";

/// A process that has the command line of a monitor, with a child that is process 1 of a namespace, in a cgroup called as a
/// container's; ended on drop.
#[derive(Debug)]
pub struct Forgery {
    child: Child,
    _cgroup: Note,
}

impl Forgery {
    /// Starts one that runs as `user` (a number), whose child is in `cgroup`, by the command line `line`.
    ///
    /// # Errors
    /// When `unshare`, `setpriv` or `bash` cannot, or the cgroup cannot be made.
    pub fn start(user: &str, cgroup: &str, line: &[&str]) -> Result<Self> {
        Self::running(Path::new("bash"), user, cgroup, line)
    }

    /// The same by another program, a copy of bash.
    ///
    /// # Errors
    /// As [`Forgery::start`].
    pub fn running(program: &Path, user: &str, cgroup: &str, line: &[&str]) -> Result<Self> {
        let setpriv = guest::find("setpriv").context("setpriv is not installed")?;
        let mut command = Command::new(setpriv);
        // Without a fork, so that the process itself is outside and its first child is the namespace's process 1.
        command.args(["--reuid", user, "--regid", user, "--clear-groups", "unshare", "--user", "--pid"]);
        if user == "0" {
            command = Command::new("unshare");
            command.arg("--pid");
        }
        Self::spawn(command, program, cgroup, line)
    }

    /// The same by root in the pid namespace of a container, whose first process has this number.
    ///
    /// # Errors
    /// As [`Forgery::start`].
    pub fn inside(container: u32, program: &Path, cgroup: &str, line: &[&str]) -> Result<Self> {
        let mut command = Command::new("nsenter");
        command.args(["--target", &container.to_string(), "--pid"]);
        Self::spawn(command, program, cgroup, line)
    }

    fn spawn(mut command: Command, program: &Path, cgroup: &str, line: &[&str]) -> Result<Self> {
        const START: &str = "program=$1; name=$2; shift 2; exec -a \"$name\" \"$program\" -s -- \"$@\"";
        let note = Entry::Leaf(cgroup).note()?;
        command.args(["bash", "-c", START, "bash"]).arg(program).args(line);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn()?;
        child.stdin.take().context("its input")?.write_all(b"sleep 1000 &\nwait\n")?;
        let pid = child.id();
        let mut forgery = Self { child, _cgroup: note };
        let init = shell::wait_for("the forged container", Duration::from_secs(10), || {
            forgery.child.try_wait().ok()?.map_or(Some(()), |_| None)?;
            measure::tree(pid).into_iter().skip(1).find(|init| {
                fs::read_to_string(format!("/proc/{init}/comm")).is_ok_and(|comm| comm.trim() == "sleep")
            })
        })?;
        for dir in folders(cgroup) {
            fs::create_dir_all(&dir)?;
            fs::write(dir.join("cgroup.procs"), init.to_string())
                .with_context(|| dir.display().to_string())?;
        }
        Ok(forgery)
    }

    /// Puts all of it into a cgroup of that name, the process that looks like a monitor as well, as supervisors of machines are.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn join(&self, cgroup: &str) -> Result<()> {
        for dir in folders(cgroup) {
            for pid in measure::tree(self.pid()) {
                fs::write(dir.join("cgroup.procs"), pid.to_string())
                    .with_context(|| dir.display().to_string())?;
            }
        }
        Ok(())
    }

    /// The process that looks like a monitor.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Forgery {
    fn drop(&mut self) {
        let all = measure::tree(self.child.id());
        for pid in all.iter().skip(1) {
            let _ = shell::run("kill", ["-KILL", &pid.to_string()]);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        // The kernel lets a cgroup go only once its last process is no zombie any more.
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// What a user listens on in a mount namespace of his own, where he can have any path; ended on drop.
#[derive(Debug)]
pub struct Listener {
    child: Child,
    _note: Note,
}

impl Listener {
    /// Has [`USER`] listen on each of these paths, some times over, as the kernel lists sockets in no order that matters. All
    /// begin with the same folder below `/`.
    ///
    /// # Errors
    /// When `setpriv`, `unshare` or `perl` cannot.
    pub fn start(paths: &[PathBuf]) -> Result<Self> {
        const LISTEN: &str = "use strict; use Socket; my ($over, @paths) = @ARGV; my @kept; $| = 1; \
            system('mount', '-t', 'tmpfs', 'none', $over) == 0 or die; \
            for my $path (@paths) { \
                (my $folder = $path) =~ s{/[^/]*$}{}; system('mkdir', '-p', $folder) == 0 or die; \
                for (1 .. 8) { \
                    unlink $path; socket(my $socket, AF_UNIX, SOCK_STREAM, 0) or die $!; \
                    bind($socket, pack_sockaddr_un($path)) or die $!; listen($socket, 1) or die $!; \
                    push @kept, $socket } } \
            print qq(listens\\n); sleep 1000";
        let first = paths.first().context("no path")?;
        let over: PathBuf = first.components().take(2).collect();
        let setpriv = guest::find("setpriv").context("setpriv is not installed")?;
        let mut command = Command::new(setpriv);
        command.args(["--reuid", USER, "--regid", USER, "--clear-groups", "unshare", "--user"]);
        command.args(["--map-root-user", "--mount", "perl", "-e", LISTEN]).arg(over).args(paths);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let note = Entry::Process(child.id()).note()?;
        let output = child.stdout.take().context("its output")?;
        let listener = Self { child, _note: note };
        let mut said = String::new();
        BufReader::new(output).read_line(&mut said)?;
        ensure!(said == "listens\n", "a user cannot listen in a namespace of his own");
        Ok(listener)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn folders(cgroup: &str) -> Vec<PathBuf> {
    // A cpuset of version 1 takes no process before it has CPUs, and is nobody's proof of anything.
    let all = cgroup::hierarchies().into_iter().filter(|hierarchy| !hierarchy.ends_with("cpuset"));
    all.map(|hierarchy| hierarchy.join(cgroup)).collect()
}
