//! The real clients, `lxc` and `incus`, each in folders of its own, and whether two servers answer them alike.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::lxd::Kind;
use crate::scratch::{self, Entry, Note};
use crate::shell;

/// A client and the server that it asks.
#[derive(Debug)]
pub struct Client {
    kind: Kind,
    dir: PathBuf,
    home: PathBuf,
    /// What names of the server's things begin with: nothing over its socket, `REMOTE:` over HTTPS.
    at: &'static str,
}

/// What a command ended with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// Its exit status, none after a signal.
    pub status: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error, without the advice for those who run a client for the first time.
    pub err: String,
}

/// How alike two answers have to be, as their figures, times and instances differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alike {
    /// To the letter: exit status, output and error.
    Wholly,
    /// The exit status.
    Status,
    /// The exit status and the last part of the error, as versions put different words before it.
    Reason,
    /// The exit status and the names of columns in the first row of a table.
    Header,
    /// The exit status and the number of columns of a CSV.
    Columns,
    /// The exit status, and ours names no field of YAML, JSON or of a text with labels that the original does not have there,
    /// but these.
    Fields(&'static [&'static str]),
}

impl Client {
    /// One that asks the server whose unix socket is in this folder.
    ///
    /// # Errors
    /// When its own folder cannot be made.
    pub fn local(kind: Kind, dir: &Path) -> Result<Self> {
        Ok(Self { kind, dir: dir.to_owned(), home: scratch::dir("client")?, at: "" })
    }

    /// One that asks over HTTPS, at a server that came to trust it by this join token.
    ///
    /// # Errors
    /// When the server does not take the token.
    pub fn remote(kind: Kind, token: &str) -> Result<Self> {
        Self::joined(kind, scratch::dir("client")?, token)
    }

    /// The same client, with its certificate, at another server.
    ///
    /// # Errors
    /// When the server does not take the token.
    pub fn elsewhere(&self, token: &str) -> Result<Self> {
        let home = scratch::dir("client")?;
        fs::create_dir_all(home.join("conf"))?;
        for file in ["client.crt", "client.key"] {
            fs::copy(self.home.join("conf").join(file), home.join("conf").join(file))?;
        }
        Self::joined(self.kind, home, token)
    }

    fn joined(kind: Kind, home: PathBuf, token: &str) -> Result<Self> {
        let client = Self { kind, dir: home.join("nothing"), home, at: "there:" };
        client.ok(&format!("remote add there {token}"))?;
        Ok(client)
    }

    /// Makes a join token, with further arguments, and gives it.
    ///
    /// # Errors
    /// When the server makes none.
    pub fn token(&self, name: &str, args: &str) -> Result<String> {
        let name = match self.kind {
            Kind::Lxd => format!("@ --name {name}"),
            Kind::Incus => format!("@{name}"),
        };
        let said = self.ok(&format!("config trust add {name} {args}"))?;
        Ok(said.lines().last().unwrap_or_default().trim().to_owned())
    }

    /// Trusts a certificate for metrics, in the words of the client's page on metrics.
    ///
    /// # Errors
    /// When the server does not.
    pub fn trust(&self, certificate: &Path) -> Result<Said> {
        let word = match self.kind {
            Kind::Lxd => "add",
            Kind::Incus => "add-certificate",
        };
        self.run(&format!("config trust {word} @ {} --type=metrics", certificate.display()))
    }

    /// Runs a command whose words are apart by blanks; `@` in it stands for the server and is no word of its own where the
    /// client names none.
    ///
    /// # Errors
    /// When the client cannot be started.
    pub fn run(&self, line: &str) -> Result<Said> {
        self.tell(line, "")
    }

    /// As [`Client::run`], with something to read on standard input.
    ///
    /// # Errors
    /// As [`Client::run`].
    pub fn tell(&self, line: &str, input: &str) -> Result<Said> {
        let mut command = self.command(line);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        // It may end without having read.
        if let Some(mut stdin) = child.stdin.take() {
            let _ = stdin.write_all(input.as_bytes());
        }
        let out = child.wait_with_output()?;
        let err = String::from_utf8_lossy(&out.stderr);
        let lines = err.lines().filter(|line| !is_advice(line)).map(|line| format!("{line}\n"));
        Ok(Said {
            status: out.status.code(),
            out: String::from_utf8_lossy(&out.stdout).into_owned(),
            err: lines.collect(),
        })
    }

    /// Runs a command that has to succeed, and gives its output.
    ///
    /// # Errors
    /// When it fails.
    pub fn ok(&self, line: &str) -> Result<String> {
        let said = self.run(line)?;
        ensure!(said.status == Some(0), "{:?} {line}: {said:?}", self.kind);
        Ok(said.out)
    }

    /// Runs a command that has to fail, and gives the reason that it says.
    ///
    /// # Errors
    /// When it succeeds.
    pub fn fails(&self, line: &str) -> Result<String> {
        let said = self.run(line)?;
        ensure!(said.status == Some(1), "{:?} {line} did not fail: {said:?}", self.kind);
        Ok(said.err.trim().trim_start_matches("Error: ").to_owned())
    }

    /// Runs a command that goes on until it is ended, as when this is dropped.
    ///
    /// # Errors
    /// When the client cannot be started.
    pub fn watch(&self, line: &str) -> Result<Watch> {
        let path = self.home.join(scratch::unique("watch"));
        let file = fs::File::create(&path)?;
        let mut command = self.command(line);
        // With standard input at its end `incus top` writes a table after the other without a pause.
        command.stdin(Stdio::piped()).stdout(file.try_clone()?).stderr(file);
        let child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        let note = Entry::Process(child.id()).note()?;
        Ok(Watch { child, path, _note: note })
    }

    fn command(&self, line: &str) -> Command {
        let mut command = self.kind.client(&self.dir, &self.home);
        let words = line.split_whitespace().map(|word| word.replace('@', self.at));
        command.args(words.filter(|word| !word.is_empty())).current_dir(&self.home);
        command
    }
}

/// A command that goes on.
#[derive(Debug)]
pub struct Watch {
    child: Child,
    path: PathBuf,
    _note: Note,
}

impl Watch {
    /// Waits until it has written something that is wanted, and gives all that it wrote.
    ///
    /// # Errors
    /// When that does not come.
    pub fn until(&self, what: &str, mut wanted: impl FnMut(&str) -> bool) -> Result<String> {
        let read = || fs::read_to_string(&self.path).unwrap_or_default();
        let found = shell::wait_for(what, Duration::from_secs(15), || {
            let text = read();
            wanted(&text).then_some(text)
        });
        found.with_context(read)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Alike {
    /// Compares what the original answered with what miharud did.
    ///
    /// # Errors
    /// When they differ; the error shows both.
    pub fn compare(self, original: &Said, ours: &Said) -> Result<()> {
        let is_alike = original.status == ours.status
            && match self {
                Self::Wholly => original == ours,
                Self::Status => true,
                Self::Reason => original.err.rsplit(": ").next() == ours.err.rsplit(": ").next(),
                Self::Header => header(&original.out) == header(&ours.out),
                Self::Columns => columns(&original.out) == columns(&ours.out),
                Self::Fields(but) => {
                    let mut more = more(&original.out, &ours.out);
                    more.retain(|field| !but.contains(&field.trim()));
                    ensure!(more.is_empty(), "miharud has fields that the original has not: {more:?}");
                    true
                }
            };
        if !is_alike {
            bail!("not alike ({self:?}), the original: {original:#?}, miharud: {ours:#?}");
        }
        Ok(())
    }
}

/// What each of them says when it is run in a new folder.
fn is_advice(line: &str) -> bool {
    let starts = [
        "If this is your first time",
        "To start your first",
        "Or for a virtual machine",
        "Generating a client certificate",
    ];
    line.is_empty() || starts.iter().any(|start| line.starts_with(start))
}

/// The words of the first row with any.
fn header(table: &str) -> Vec<&str> {
    let row = table.lines().find(|line| line.chars().any(char::is_alphabetic)).unwrap_or_default();
    row.split(['|', ' ']).filter(|word| !word.is_empty()).collect()
}

/// How many columns the first row has, with the commas within cells.
fn columns(csv: &str) -> Option<usize> {
    csv.lines().next().map(|row| row.matches(',').count())
}

/// Fields of ours that the original does not have.
fn more(original: &str, ours: &str) -> Vec<String> {
    let theirs = fields(original);
    fields(ours).into_iter().filter(|field| !theirs.contains(field)).collect()
}

/// The names of fields, each with its indentation, in YAML, JSON, or a text with labels. What a disk holds is left out: the
/// original's pool is a folder, of which it does not know that.
fn fields(text: &str) -> Vec<String> {
    let pretty = serde_json::from_str::<serde_json::Value>(text)
        .ok()
        .and_then(|value| serde_json::to_string_pretty(&value).ok());
    let text = pretty.as_deref().unwrap_or(text);
    let mut disk = usize::MAX;
    let mut found = Vec::new();
    let name = |line| str::split_once(line, ": ").map(|(name, _)| name).or_else(|| line.strip_suffix(':'));
    for name in text.lines().filter_map(name) {
        let name = name.replace('"', "");
        let indentation = name.len() - name.trim_start().len();
        if indentation > disk {
            continue;
        }
        disk = if name.trim_start() == "disk" { indentation } else { usize::MAX };
        found.push(name);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(out: &str) -> Said {
        Said { status: Some(0), out: out.to_owned(), err: String::new() }
    }

    #[test]
    fn a_column_or_a_field_that_the_original_lacks_is_seen() {
        let table = said("+--+--+\n| NAME | TYPE |\n+--+--+\n| a | b |\n");
        assert!(Alike::Header.compare(&table, &said("| NAME | TYPE |")).is_ok());
        assert!(Alike::Header.compare(&table, &said("| NAME |")).is_err());
        assert!(Alike::Header.compare(&said(""), &said("| NAME |")).is_err());
        assert!(Alike::Columns.compare(&said("a,b\n"), &said("c,d\ne,f\n")).is_ok());
        assert!(Alike::Columns.compare(&said("a,b\n"), &said("c\n")).is_err());
        let json = said("[{\"a\":{\"b\":1},\"c\":2}]");
        assert!(Alike::Fields(&[]).compare(&json, &said("[{\"a\":{\"b\":7}}]")).is_ok());
        assert!(Alike::Fields(&[]).compare(&json, &said("[{\"b\":7}]")).is_err(), "not at that place");
        assert!(Alike::Fields(&["b"]).compare(&json, &said("[{\"b\":7}]")).is_ok());
        assert!(Alike::Fields(&[]).compare(&said("a:\n  b: 1\n"), &said("a:\n  c: 1\n")).is_err());
        let failed = Said { status: Some(1), ..said("") };
        assert!(Alike::Status.compare(&failed, &said("")).is_err());
    }
}
