//! `miharu version`: of this program and of the server.

use std::io::Write;

use clap::Args;
use miharu_api::{Build, Server, this_build};

use super::Context;
use crate::error::Failure;
use crate::remote;

/// `local:`, as users of Incus and LXD may write it.
#[derive(Debug, Args)]
#[command(after_help = "With --verbose it tells what both were built from, for a report of a defect.")]
pub(crate) struct VersionArgs {
    #[arg(hide = true)]
    remote: Option<String>,
}

/// What is said of a server that cannot be reached. That is no failure here: the version of this program is an answer too.
const UNREACHABLE: &str = "unreachable";

/// Asks and prints.
pub(crate) async fn run(
    context: &Context<'_>,
    args: &VersionArgs,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    args.remote.as_deref().map(remote::strip).transpose()?;
    let server = match context.client.get::<Server>("/1.0").await {
        Ok(server) => server.environment.unwrap_or_default().server_version,
        Err(_) => UNREACHABLE.to_owned(),
    };
    writeln!(out, "Client version: {}", env!("CARGO_PKG_VERSION"))?;
    Ok(writeln!(out, "Server version: {server}")?)
}

/// With `--verbose`: what both were built from, and what the server can do.
pub(crate) async fn builds(
    context: &Context<'_>,
    args: &VersionArgs,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    args.remote.as_deref().map(remote::strip).transpose()?;
    writeln!(out, "Client:")?;
    build(out, &this_build!())?;
    writeln!(out, "Server:")?;
    let server = match context.client.get::<Server>("/1.0").await {
        Ok(server) => server,
        Err(failure) => {
            writeln!(out, "  {UNREACHABLE}: {}", failure.to_string().replace('\n', "\n  "))?;
            return Ok(());
        }
    };
    match context.client.get::<Build>("/internal/build").await {
        Ok(server) => build(out, &server)?,
        // One of before this could be asked.
        Err(_) => {
            let version = server.environment.as_ref().map_or("", |environment| &environment.server_version);
            row(out, "Version", version)?;
        }
    }
    if let Some(environment) = &server.environment {
        row(out, "Kernel", &format!("{} {}", environment.kernel, environment.kernel_version))?;
        row(out, "System", &format!("{} {}", environment.os_name, environment.os_version))?;
    }
    row(out, "API", &format!("{} ({})", server.api_version, server.api_status))?;
    row(out, "Extensions", &server.api_extensions.join(", "))
}

fn build(out: &mut dyn Write, build: &Build) -> Result<(), Failure> {
    for (name, value) in [
        ("Version", &build.version),
        ("Commit", &build.commit),
        ("Compiler", &build.rustc),
        ("Target", &build.target),
        ("Profile", &build.profile),
        ("Libraries", &build.libraries),
    ] {
        row(out, name, value)?;
    }
    Ok(())
}

fn row(out: &mut dyn Write, name: &str, value: &str) -> Result<(), Failure> {
    let value = if value.trim().is_empty() { "unknown" } else { value };
    Ok(writeln!(out, "  {:<12}{value}", format!("{name}:"))?)
}

#[cfg(test)]
mod tests {
    use crate::testing::{Canned, Fake};

    #[test]
    fn both_are_printed() {
        let fake = Fake::start(vec![Canned::sync(r#"{"environment":{"server_version":"9.8.7"}}"#)]);
        let (result, out) = fake.miharu(&["version"]);
        result.unwrap();
        assert_eq!(out, format!("Client version: {}\nServer version: 9.8.7\n", env!("CARGO_PKG_VERSION")));
    }

    #[test]
    fn a_server_that_is_down_is_unreachable() {
        let (result, out) = Fake::start(vec![]).miharu(&["version"]);
        result.unwrap();
        assert!(out.ends_with("Server version: unreachable\n"), "{out}");
    }

    #[test]
    fn verbose_tells_what_both_were_built_from() {
        let fake = Fake::start(vec![
            Canned::sync(
                r#"{"api_version":"1.0","api_status":"stable","api_extensions":["metrics","etag"],"environment":{"kernel":"Linux","kernel_version":"6.1","os_name":"Debian","os_version":"12","server_version":"9.8.7"}}"#,
            ),
            Canned::sync(
                r#"{"version":"9.8.7","commit":"abc+","rustc":"rustc 1.99","target":"t","profile":"release","libraries":"ring 0, SQLite 3"}"#,
            ),
        ]);
        let (result, out) = fake.miharu(&["version", "--verbose"]);
        result.unwrap();
        let (client, server) = out.split_once("Server:\n").unwrap();
        assert!(
            client.starts_with(&format!("Client:\n  Version:    {}\n", env!("CARGO_PKG_VERSION"))),
            "{out}"
        );
        assert!(client.contains("  Compiler:   rustc "), "{out}");
        let rows = [
            "  Version:    9.8.7",
            "  Commit:     abc+",
            "  Compiler:   rustc 1.99",
            "  Target:     t",
            "  Profile:    release",
            "  Libraries:  ring 0, SQLite 3",
            "  Kernel:     Linux 6.1",
            "  System:     Debian 12",
            "  API:        1.0 (stable)",
            "  Extensions: metrics, etag",
        ];
        assert_eq!(server.lines().collect::<Vec<_>>(), rows);
    }

    #[test]
    fn verbose_without_a_server_says_why() {
        let (result, out) = Fake::start(vec![]).miharu(&["version", "--verbose"]);
        result.unwrap();
        assert!(out.contains("Server:\n  unreachable: "), "{out}");
    }

    #[test]
    fn a_server_that_cannot_be_asked_still_has_a_version() {
        let fake = Fake::start(vec![
            Canned::sync(r#"{"environment":{"server_version":"0.0.9"}}"#),
            Canned::error(404, "not found"),
        ]);
        let (_, out) = fake.miharu(&["version", "--verbose"]);
        assert!(out.contains("Server:\n  Version:    0.0.9\n"), "{out}");
    }
}
