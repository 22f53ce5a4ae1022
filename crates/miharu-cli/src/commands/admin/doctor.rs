//! `miharu admin doctor`: what the daemon may do, what confines it, and what a missing thing costs.

use std::fs::{File, TryLockError};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;

use clap::Args;
use http::Method;
use miharu_api::{Check, Diagnosis, Finding};

use super::super::Context;
use crate::client::Ask;
use crate::error::Failure;
use crate::output::{self, Form, Format, Rows};
use crate::text::printable;

/// The form of the report.
#[derive(Debug, Args)]
#[command(after_help = "\
Each line is ok, a note (different from how the package has it, which may be meant so), or missing; what it costs and what
to do is below the list, and in every form but table and compact in columns of its own. The exit code is 1 if something is missing.
It is useful without a daemon, too: it then tells what can be seen of its directory.

Examples:
  miharu admin doctor
  miharu admin doctor --format json | jq '.[] | select(.state == \"missing\")'")]
pub(crate) struct DoctorArgs {
    /// The form of the list
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    format: Format,
}

/// Asks, looks, and tells.
pub(super) async fn run(
    context: &Context<'_>,
    args: &DoctorArgs,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let dir = context.client.dir();
    let ask = Ask::new(Method::GET, "/internal/doctor").saying("Waiting for miharud to look around");
    let answer = context.client.send(ask).await.and_then(|reply| reply.metadata::<Diagnosis>());
    let mut checks = match answer {
        Ok(diagnosis) => {
            let found = "answers on its unix socket";
            let mut checks = vec![check("daemon", "miharud", Finding::Ok, found, "", "")];
            checks.extend(diagnosis.checks);
            checks
        }
        Err(failure) => {
            let mut lines = failure.to_string();
            lines = lines.replace('\n', " ");
            vec![check(
                "daemon",
                "miharud",
                Finding::Missing,
                &lines,
                "no metrics, and what it may do cannot be told",
                "`systemctl status miharud`, and its log: `journalctl -u miharud`",
            )]
        }
    };
    checks.extend(of_directory(dir));
    write(out, args.format, &checks)?;
    let missing = checks.iter().filter(|check| check.state == Finding::Missing).count();
    match missing {
        0 => Ok(()),
        1 => Err(Failure::request("one thing is missing")),
        more => Err(Failure::request(format!("{more} things are missing"))),
    }
}

fn write(out: &mut dyn Write, format: Format, checks: &[Check]) -> Result<(), Failure> {
    let is_short = matches!(format.form, Form::Table | Form::Compact);
    let row = |check: &Check| {
        let mut row =
            vec![word(check.state).to_owned(), check.area.clone(), check.name.clone(), check.found.clone()];
        if !is_short {
            row.extend([check.cost.clone(), check.remedy.clone()]);
        }
        row
    };
    let mut headers = vec!["STATE", "AREA", "CHECK", "FOUND"];
    if !is_short {
        headers.extend(["COST", "REMEDY"]);
    }
    output::write_list(out, format, &Rows { headers, rows: checks.iter().map(row).collect() }, checks)?;
    if is_short {
        for check in checks.iter().filter(|check| check.state != Finding::Ok) {
            writeln!(
                out,
                "\n{}: {}\n  costs: {}\n  to do: {}",
                word(check.state),
                printable(&check.name),
                printable(&check.cost),
                printable(&check.remedy)
            )?;
        }
    }
    Ok(())
}

fn word(finding: Finding) -> &'static str {
    match finding {
        Finding::Ok => "ok",
        Finding::Note => "note",
        Finding::Missing => "MISSING",
    }
}

fn check(area: &str, name: &str, state: Finding, found: &str, cost: &str, remedy: &str) -> Check {
    Check {
        area: area.to_owned(),
        name: name.to_owned(),
        state,
        found: found.to_owned(),
        cost: cost.to_owned(),
        remedy: remedy.to_owned(),
    }
}

/// What can be seen of the state directory without the daemon.
fn of_directory(dir: &Path) -> Vec<Check> {
    const AREA: &str = "directory";
    let shown = dir.display().to_string();
    let meta = match std::fs::metadata(dir) {
        Ok(meta) => meta,
        Err(error) => {
            return vec![check(
                AREA,
                &shown,
                Finding::Missing,
                &error.to_string(),
                "no daemon keeps its state here",
                "start miharud once, or name its directory with --dir or MIHARU_DIR",
            )];
        }
    };
    let mode = meta.permissions().mode() & 0o7777;
    let found = format!("of uid {}, mode {mode:04o}", meta.uid());
    let mut checks = vec![if mode & 0o022 == 0 {
        check(AREA, &shown, Finding::Ok, &found, "", "")
    } else {
        check(
            AREA,
            &shown,
            Finding::Missing,
            &found,
            "others than its owner could put another database or key there",
            &format!("chmod 0711 {shown}"),
        )
    }];
    checks.extend(lock(dir));
    checks.push(socket(&dir.join("unix.socket")));
    let secrets = ["server.key", "cluster.key", "miharu.db", "miharu.db.backup"];
    checks.extend(secrets.iter().filter_map(|name| secret(&dir.join(name))));
    checks
}

/// Whether a daemon holds the directory. Where it may not be opened, nobody can tell.
fn lock(dir: &Path) -> Option<Check> {
    let file = File::open(dir).ok()?;
    Some(match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => {
            check("directory", "lock", Finding::Ok, "a miharud runs on it", "", "")
        }
        _ => check(
            "directory",
            "lock",
            Finding::Missing,
            "nobody holds it: no miharud runs on this directory",
            "no metrics",
            "`systemctl start miharud`",
        ),
    })
}

fn socket(path: &Path) -> Check {
    let name = path.display().to_string();
    match std::fs::symlink_metadata(path) {
        Ok(meta) if meta.file_type().is_socket() => {
            let found =
                format!("for uid {} and gid {}, mode {:04o}", meta.uid(), meta.gid(), meta.mode() & 0o7777);
            if meta.mode() & 0o007 == 0 {
                return check("directory", &name, Finding::Ok, &found, "", "");
            }
            check(
                "directory",
                &name,
                Finding::Missing,
                &found,
                "everybody on this host is an administrator of miharu",
                &format!("chmod 0660 {name}"),
            )
        }
        Ok(_) => check(
            "directory",
            &name,
            Finding::Missing,
            "no socket",
            "the command line cannot reach the daemon",
            "take it away and start miharud again",
        ),
        Err(error) => check(
            "directory",
            &name,
            Finding::Missing,
            &error.to_string(),
            "the command line cannot reach the daemon",
            "start miharud, or run this as root or a member of its group",
        ),
    }
}

/// Whether a file that only its owner may read is one; nothing where it is not there or cannot be seen.
fn secret(path: &Path) -> Option<Check> {
    let name = path.display().to_string();
    let meta = match std::fs::metadata(path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == ErrorKind::NotFound => return None,
        Err(error) => {
            let found = error.to_string();
            return Some(check(
                "directory",
                &name,
                Finding::Note,
                &found,
                "it cannot be told who may read it",
                "run this as root",
            ));
        }
    };
    let mode = meta.mode() & 0o7777;
    let found = format!("of uid {}, mode {mode:04o}", meta.uid());
    Some(if mode & 0o077 == 0 {
        check("directory", &name, Finding::Ok, &found, "", "")
    } else {
        check(
            "directory",
            &name,
            Finding::Missing,
            &found,
            "others than the daemon's user may read its secrets",
            &format!("chmod 0600 {name}, and make its secrets anew"),
        )
    })
}

#[cfg(test)]
mod tests {
    use crate::testing::{Canned, Fake};

    const WELL: &str = r#"{"checks":[{"area":"rights","name":"CAP_X","state":"ok","found":"in effect"},
        {"area":"rights","name":"user","state":"note","found":"uid 0","cost":"much","remedy":"another"}]}"#;
    const ILL: &str = r#"{"checks":[{"area":"rights","name":"CAP_X","state":"missing","found":"no","cost":"figures",
        "remedy":"give it"}]}"#;

    #[test]
    fn it_tells_what_is_missing_what_that_costs_and_what_to_do() {
        let (result, out) = Fake::start(vec![Canned::sync(ILL)]).miharu(&["admin", "doctor"]);
        // Nobody holds the lock of the fake daemon, and its socket is for everybody.
        assert_eq!(result.unwrap_err().to_string(), "3 things are missing", "{out}");
        assert!(out.contains("MISSING: CAP_X\n  costs: figures\n  to do: give it\n"), "{out}");
    }

    #[test]
    fn a_note_is_no_failure() {
        let fake = Fake::start(vec![Canned::sync(WELL)]);
        let held = fake.lock();
        let (result, out) = fake.miharu(&["admin", "doctor", "--format", "json"]);
        result.unwrap_or_else(|failure| panic!("{failure}: {out}"));
        let checks: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(checks[2]["state"], "note");
        assert_eq!(checks[2]["remedy"], "another");
        drop(held);
    }

    #[test]
    fn without_a_daemon_it_says_so_and_looks_at_the_directory() {
        let (result, out) = Fake::start(vec![]).miharu(&["admin", "doctor", "-f", "csv"]);
        assert!(result.is_err());
        for words in ["miharud is not running", "no miharud runs on this directory", "no metrics"] {
            assert!(out.contains(words), "{words}: {out}");
        }
    }

    #[test]
    fn what_others_may_read_is_told() {
        let fake = Fake::start(vec![Canned::sync(WELL)]);
        let held = fake.lock();
        fake.put("server.key", "secret", 0o644);
        let (result, out) = fake.miharu(&["admin", "doctor", "-f", "csv"]);
        assert_eq!(result.unwrap_err().to_string(), "one thing is missing", "{out}");
        assert!(out.contains("server.key") && out.contains("mode 0644"), "{out}");
        drop(held);
    }
}
