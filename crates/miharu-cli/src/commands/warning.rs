//! `miharu warning`: what is wrong on this host, and that somebody knows.

use std::io::Write;

use clap::{Args, Subcommand};
use http::{Method, StatusCode};
use miharu_api::{Warning, WarningPut};

use super::Context;
use super::operation::moment;
use crate::client::{Ask, encoded};
use crate::error::Failure;
use crate::output::{self, Format, Rows};
use crate::remote;

/// What to do with warnings.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Warnings come and go by themselves: one that is well again is listed as resolved for a day.
Acknowledge one to have it out of the list while it lasts.")]
pub(crate) enum WarningCommand {
    /// List what is wrong
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Print what is known of a warning, as YAML
    Show(Uuid),
    /// Say that a warning is known
    #[command(visible_alias = "ack")]
    Acknowledge(Uuid),
    /// Take a warning away, until it is seen again
    #[command(visible_alias = "rm")]
    Delete(DeleteArgs),
}

/// Which ones, and the form of the list.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    #[arg(hide = true)]
    remote: Option<String>,
    /// Those too that are acknowledged or resolved
    #[arg(short, long)]
    all: bool,
    /// The form of the list
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    format: Format,
}

/// A warning.
#[derive(Debug, Args)]
pub(crate) struct Uuid {
    /// Its UUID
    #[arg(value_name = "UUID")]
    uuid: String,
}

/// One warning, or all.
#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    /// Its UUID
    #[arg(value_name = "UUID", required_unless_present = "all")]
    uuid: Option<String>,
    /// All warnings
    #[arg(short, long, conflicts_with = "uuid")]
    all: bool,
}

/// Does it.
pub(crate) async fn run(
    context: &Context<'_>,
    command: &WarningCommand,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    match command {
        WarningCommand::List(args) => list(context, args, out).await,
        WarningCommand::Show(Uuid { uuid }) => {
            let reply = context.client.send(Ask::new(Method::GET, &path(uuid)?)).await?;
            let warning: Warning = reply.metadata().map_err(|failure| absent(failure, reply.status))?;
            output::write_yaml(out, &warning)
        }
        WarningCommand::Acknowledge(Uuid { uuid }) => {
            let put = WarningPut { status: "acknowledged".to_owned() };
            let reply = context.client.send(Ask::new(Method::PUT, &path(uuid)?).json(&put)?).await?;
            reply.check().map_err(|failure| absent(failure, reply.status))
        }
        WarningCommand::Delete(args) => delete(context, args).await,
    }
}

fn path(uuid: &str) -> Result<String, Failure> {
    match remote::strip(uuid)? {
        "" => Err(Failure::usage("the UUID of a warning is empty")),
        uuid => Ok(format!("/1.0/warnings/{}", encoded(uuid))),
    }
}

fn absent(failure: Failure, status: StatusCode) -> Failure {
    match status {
        StatusCode::NOT_FOUND => {
            Failure::request(format!("{failure}\n`miharu warning list --all` prints the warnings there are."))
        }
        _ => failure,
    }
}

async fn all(context: &Context<'_>) -> Result<Vec<Warning>, Failure> {
    let mut path = "/1.0/warnings?recursion=1".to_owned();
    if let Some(project) = context.project {
        path.push_str(&format!("&project={}", encoded(project)));
    }
    context.client.get(&path).await
}

async fn list(context: &Context<'_>, args: &ListArgs, out: &mut dyn Write) -> Result<(), Failure> {
    args.remote.as_deref().map(remote::strip).transpose()?;
    let mut warnings = all(context).await?;
    warnings.retain(|warning| args.all || warning.status == "new");
    // The worst first, and of those what was seen last.
    let rank = |severity: &str| ["critical", "high", "moderate", "low"].iter().position(|it| *it == severity);
    warnings.sort_by(|a, b| {
        (rank(&a.severity), &b.last_seen_at, &a.uuid).cmp(&(rank(&b.severity), &a.last_seen_at, &b.uuid))
    });
    let row = |warning: &Warning| {
        vec![
            warning.uuid.clone(),
            warning.warning_type.clone(),
            warning.status.to_uppercase(),
            warning.severity.to_uppercase(),
            warning.count.to_string(),
            warning.project.clone(),
            moment(&warning.last_seen_at),
            warning.last_message.clone(),
        ]
    };
    let rows = Rows {
        headers: vec!["UUID", "TYPE", "STATUS", "SEVERITY", "COUNT", "PROJECT", "LAST SEEN", "MESSAGE"],
        rows: warnings.iter().map(row).collect(),
    };
    output::write_list(out, args.format, &rows, &warnings)
}

async fn delete(context: &Context<'_>, args: &DeleteArgs) -> Result<(), Failure> {
    let uuids = match &args.uuid {
        Some(uuid) => vec![uuid.clone()],
        None => all(context).await?.into_iter().map(|warning| warning.uuid).collect(),
    };
    for uuid in uuids {
        let reply = context.client.send(Ask::new(Method::DELETE, &path(&uuid)?)).await?;
        match reply.check() {
            // It went by itself in the meantime.
            Err(_) if args.all && reply.status == StatusCode::NOT_FOUND => {}
            result => result.map_err(|failure| absent(failure, reply.status))?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use crate::testing::{Canned, Fake};

    const LIST: &str = r#"[
        {"uuid":"a","status":"new","type":"Figures are missing","severity":"low","count":3,"project":"lxc",
         "last_seen_at":"2026-11-21T23:52:10.2Z","last_message":"instance lxc/u1: x"},
        {"uuid":"b","status":"acknowledged","type":"Certificate expires soon","severity":"moderate","count":1,
         "last_seen_at":"2026-11-21T23:52:10.2Z"},
        {"uuid":"c","status":"new","type":"Listener cannot be opened","severity":"high","count":1,
         "last_seen_at":"2026-11-21T23:50:10.2Z","last_message":"port taken"}]"#;

    #[test]
    fn the_worst_comes_first_and_what_is_known_only_when_asked_for() {
        let fake = Fake::start(vec![Canned::sync(LIST), Canned::sync(LIST)]);
        let (result, out) = fake.miharu(&["warning", "list", "-f", "csv"]);
        result.unwrap();
        assert_eq!(fake.requests()[0].line(), "GET /1.0/warnings?recursion=1");
        expect![[r#"
            c,Listener cannot be opened,NEW,HIGH,1,,2026/11/21 23:50 UTC,port taken
            a,Figures are missing,NEW,LOW,3,lxc,2026/11/21 23:52 UTC,instance lxc/u1: x
        "#]]
        .assert_eq(&out);
        assert_eq!(fake.miharu(&["warning", "ls", "--all", "-f", "csv"]).1.lines().count(), 3);
    }

    #[test]
    fn one_is_acknowledged_shown_and_deleted_and_all_are() {
        let fake = Fake::start(vec![
            Canned::empty(),
            Canned::sync(r#"{"uuid":"a","status":"acknowledged","last_message":"x"}"#),
            Canned::empty(),
            Canned::error(404, "Warning not found"),
            Canned::sync(LIST),
            Canned::empty(),
            Canned::error(404, "Warning not found"),
            Canned::empty(),
        ]);
        fake.miharu(&["warning", "ack", "local:a"]).0.unwrap();
        assert!(fake.miharu(&["warning", "show", "a"]).1.starts_with("status: acknowledged\nuuid: a\n"));
        fake.miharu(&["warning", "delete", "a"]).0.unwrap();
        let failure = fake.miharu(&["warning", "delete", "a"]).0.unwrap_err().to_string();
        assert!(failure.starts_with("Warning not found\n"), "{failure}");
        fake.miharu(&["warning", "delete", "--all"]).0.unwrap();
        let requests = fake.requests();
        assert_eq!(
            (requests[0].line().as_str(), requests[0].body.as_str()),
            ("PUT /1.0/warnings/a", r#"{"status":"acknowledged"}"#)
        );
        let deleted: Vec<_> = requests[5..].iter().map(|request| request.line()).collect();
        assert_eq!(deleted, ["a", "b", "c"].map(|uuid| format!("DELETE /1.0/warnings/{uuid}")));
    }
}
