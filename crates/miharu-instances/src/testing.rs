//! A small recorded host in a temporary directory, for tests.

use std::fs;
use std::path::PathBuf;

use miharu_linux::Roots;

use crate::{Discovery, DriverOptions, Scan, drivers};

/// A host of cgroup version 2, unless [`Tree::v1`] made it one of version 1.
pub(crate) struct Tree {
    base: tempfile::TempDir,
    hierarchies: &'static [&'static str],
}

/// A process, as its files tell of it.
pub(crate) struct Process<'p> {
    pub(crate) pid: u32,
    pub(crate) ppid: u32,
    pub(crate) comm: &'p str,
    /// Arguments with `|` between them.
    pub(crate) command_line: &'p str,
    pub(crate) uid: u32,
    /// How many pid namespaces it is in.
    pub(crate) depth: usize,
    /// Its cgroup in every hierarchy.
    pub(crate) cgroup: &'p str,
}

impl Tree {
    pub(crate) fn v2() -> Self {
        Self::new(&["."])
    }

    pub(crate) fn v1() -> Self {
        Self::new(&["memory", "systemd", "cpu,cpuacct", "unified"])
    }

    fn new(hierarchies: &'static [&'static str]) -> Self {
        // What a group may write is not the system's, and where users have a group of their own that is what they make.
        rustix::process::umask(rustix::fs::Mode::WGRP | rustix::fs::Mode::WOTH);
        let tree = Self { base: tempfile::tempdir().unwrap(), hierarchies };
        for hierarchy in hierarchies {
            tree.file(&format!("sys/fs/cgroup/{hierarchy}/cgroup.procs"), "");
            if matches!(*hierarchy, "." | "unified") {
                tree.file(&format!("sys/fs/cgroup/{hierarchy}/cgroup.controllers"), "");
            }
        }
        fs::create_dir_all(tree.path("proc")).unwrap();
        tree
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.base.path().join(path.trim_start_matches('/'))
    }

    pub(crate) fn file(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(crate) fn directory(&self, path: &str) {
        fs::create_dir_all(self.path(path)).unwrap();
    }

    /// Puts what is no regular file into a directory, under names that end so; `text` is what a file in the kernel's memory, that one of
    /// them leads to, has. Give what comes back a name, as long as that is to be there.
    pub(crate) fn no_files(&self, directory: &str, end: &str, text: &str) -> fs::File {
        use std::io::Write;
        use std::os::fd::AsRawFd;

        self.directory(directory);
        let place = |what: &str| self.path(directory).join(format!("{what}{end}"));
        let fifo = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, place("fifo"), fifo, 0o600.into(), 0).unwrap();
        let _ = std::os::unix::net::UnixListener::bind(place("socket")).unwrap();
        fs::create_dir(place("directory")).unwrap();
        let memory = rustix::fs::memfd_create("memory", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        let mut memory = fs::File::from(memory);
        memory.write_all(text.as_bytes()).unwrap();
        let own = Roots::default().proc.join(std::process::id().to_string());
        let link = own.join("fd").join(memory.as_raw_fd().to_string());
        assert_eq!(fs::read(&link).unwrap(), text.as_bytes());
        std::os::unix::fs::symlink(link, place("memory")).unwrap();
        memory
    }

    /// Makes a process, and puts it in its cgroup.
    pub(crate) fn process(&self, process: &Process<'_>) {
        let Process { pid, ppid, comm, command_line, uid, depth, cgroup } = process;
        let start = 1000 + pid;
        let zeros = ["0"; 17].join(" ");
        self.file(&format!("proc/{pid}/stat"), &format!("{pid} ({comm}) S {ppid} {zeros} {start} 0 0\n"));
        let numbers = vec!["1"; *depth].join("\t");
        self.file(
            &format!("proc/{pid}/status"),
            &format!("Uid:\t{uid}\t{uid}\t{uid}\t{uid}\nNSpid:\t{numbers}\n"),
        );
        self.file(&format!("proc/{pid}/cmdline"), &format!("{}\0", command_line.replace('|', "\0")));
        let mut memberships = String::new();
        for hierarchy in self.hierarchies {
            let controllers = match *hierarchy {
                "." | "unified" => "",
                "systemd" => "name=systemd",
                controllers => controllers,
            };
            let id = if controllers.is_empty() { 0 } else { 7 };
            memberships += &format!("{id}:{controllers}:/{cgroup}\n");
            let procs = self.path(&format!("sys/fs/cgroup/{hierarchy}/{cgroup}/cgroup.procs"));
            let before = fs::read_to_string(&procs).unwrap_or_default();
            fs::create_dir_all(procs.parent().unwrap()).unwrap();
            fs::write(procs, format!("{before}{pid}\n")).unwrap();
        }
        self.file(&format!("proc/{pid}/cgroup"), &memberships);
    }

    /// Says which program a process runs, a file that is there.
    pub(crate) fn runs(&self, pid: u32, program: &str) {
        let link = self.path(&format!("proc/{pid}/exe"));
        let _ = fs::remove_file(&link);
        std::os::unix::fs::symlink(program, link).unwrap();
        self.file(program, "");
    }

    /// Ends a process; its cgroup stays.
    pub(crate) fn end(&self, pid: u32) {
        fs::remove_dir_all(self.path(&format!("proc/{pid}"))).unwrap();
    }

    pub(crate) fn discovery(&self) -> Discovery {
        Discovery::new(Roots::at(self.base.path()), drivers(&DriverOptions::default()))
    }

    pub(crate) fn scan(&self) -> Scan {
        self.discovery().scan().unwrap()
    }
}

/// The instances of a scan, a line each.
pub(crate) fn listed(scan: &Scan) -> Vec<String> {
    let line = |i: &std::sync::Arc<crate::Instance>| {
        format!("{} {} {} {}", i.runtime, i.project, i.name, i.init.pid())
    };
    scan.instances.iter().map(line).collect()
}

/// The warnings of a scan, as a person reads them.
pub(crate) fn warned(scan: &Scan) -> Vec<String> {
    scan.warnings.iter().map(ToString::to_string).collect()
}
