//! `miharu operation`: what goes on in the background, the join tokens that wait for their user among it.

use std::collections::BTreeMap;
use std::io::Write;

use clap::{Args, Subcommand};
use http::{Method, StatusCode};
use miharu_api::Operation;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

use super::Context;
use crate::client::{Ask, encoded};
use crate::error::Failure;
use crate::output::{self, Format, Rows};
use crate::remote;

/// What to do with operations.
#[derive(Debug, Subcommand)]
pub(crate) enum OperationCommand {
    /// List what goes on in the background
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Print what is known of an operation, as YAML
    Show(Id),
    /// End an operation; a join token is revoked by that
    #[command(visible_aliases = ["cancel", "rm"])]
    Delete(Id),
}

/// The form of the list.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    #[arg(hide = true)]
    remote: Option<String>,
    /// Operations of every project
    #[arg(long)]
    all_projects: bool,
    /// The form of the list
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    format: Format,
}

/// An operation.
#[derive(Debug, Args)]
pub(crate) struct Id {
    /// Its ID
    #[arg(value_name = "ID")]
    id: String,
}

/// Does it.
pub(crate) async fn run(
    context: &Context<'_>,
    command: &OperationCommand,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    match command {
        OperationCommand::List(args) => list(context, args, out).await,
        OperationCommand::Show(id) => {
            let reply = context.client.send(Ask::new(Method::GET, &id.path()?)).await?;
            let operation: Operation = reply.metadata().map_err(|failure| absent(failure, reply.status))?;
            output::write_yaml(out, &operation)
        }
        OperationCommand::Delete(id) => {
            let reply = context.client.send(Ask::new(Method::DELETE, &id.path()?)).await?;
            reply.check().map_err(|failure| absent(failure, reply.status))?;
            context.say(out, &format!("Operation {} deleted", id.get()?))
        }
    }
}

impl Id {
    fn get(&self) -> Result<&str, Failure> {
        match remote::strip(&self.id)? {
            "" => Err(Failure::usage("the ID of an operation is empty")),
            id => Ok(id),
        }
    }

    fn path(&self) -> Result<String, Failure> {
        Ok(format!("/1.0/operations/{}", encoded(self.get()?)))
    }
}

fn absent(failure: Failure, status: StatusCode) -> Failure {
    match status {
        StatusCode::NOT_FOUND => Failure::request(format!(
            "{failure}\nIt may have ended; `miharu operation list` prints what goes on now."
        )),
        _ => failure,
    }
}

async fn list(context: &Context<'_>, args: &ListArgs, out: &mut dyn Write) -> Result<(), Failure> {
    args.remote.as_deref().map(remote::strip).transpose()?;
    let path = match context.project {
        _ if args.all_projects => "/1.0/operations?recursion=1&all-projects=true".to_owned(),
        Some(project) => format!("/1.0/operations?recursion=1&project={}", encoded(project)),
        None => "/1.0/operations?recursion=1".to_owned(),
    };
    let by_state: BTreeMap<String, Vec<Operation>> = context.client.get(&path).await?;
    let operations: Vec<Operation> = by_state.into_values().flatten().collect();
    let rows = Rows {
        headers: vec!["ID", "TYPE", "DESCRIPTION", "STATUS", "CANCELABLE", "CREATED"],
        rows: operations
            .iter()
            .map(|operation| {
                vec![
                    operation.id.clone(),
                    operation.class.to_uppercase(),
                    operation.description.clone(),
                    operation.status.to_uppercase(),
                    if operation.may_cancel { "YES" } else { "NO" }.to_owned(),
                    moment(&operation.created_at),
                ]
            })
            .collect(),
    };
    output::write_list(out, args.format, &rows, &operations)
}

/// A moment of the API as the clients print it, in UTC; as it stands where it cannot be read.
pub(crate) fn moment(text: &str) -> String {
    let format = format_description!("[year]/[month]/[day] [hour]:[minute] UTC");
    let read = OffsetDateTime::parse(text, &Rfc3339).ok();
    let read = read.and_then(|moment| moment.to_offset(time::UtcOffset::UTC).format(format).ok());
    read.unwrap_or_else(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::testing::{Canned, Fake};

    #[test]
    fn operations_are_listed_shown_and_ended() {
        let one = r#"{"id":"b5ef7db3","class":"token","description":"Executing operation","created_at":"2026-11-21T23:40:21.454368829Z","status":"Running","status_code":103,"may_cancel":true}"#;
        let fake = Fake::start(vec![
            Canned::sync(&format!(r#"{{"running":[{one}]}}"#)),
            Canned::sync(one),
            Canned::empty(),
            Canned::error(404, "Operation not found"),
        ]);
        expect![[r#"
            +----------+-------+---------------------+---------+------------+----------------------+
            |    ID    |  TYPE |     DESCRIPTION     |  STATUS | CANCELABLE |        CREATED       |
            +----------+-------+---------------------+---------+------------+----------------------+
            | b5ef7db3 | TOKEN | Executing operation | RUNNING | YES        | 2026/11/21 23:40 UTC |
            +----------+-------+---------------------+---------+------------+----------------------+
        "#]]
        .assert_eq(&fake.miharu(&["operation", "list"]).1);
        let out = fake.miharu(&["operation", "show", "local:b5ef7db3"]).1;
        assert!(out.contains("class: token\n") && out.contains("may_cancel: true\n"), "{out}");
        assert_eq!(fake.miharu(&["operation", "delete", "b5ef7db3"]).1, "Operation b5ef7db3 deleted\n");
        let failure = fake.miharu(&["operation", "cancel", "a/b"]).0.unwrap_err().to_string();
        assert!(failure.starts_with("Operation not found\n"), "{failure}");
        let lines: Vec<String> = fake.requests().iter().map(|request| request.line()).collect();
        expect!["GET /1.0/operations?recursion=1; GET /1.0/operations/b5ef7db3; DELETE /1.0/operations/b5ef7db3; DELETE /1.0/operations/a%2Fb"]
            .assert_eq(&lines.join("; "));
    }

    #[test]
    fn moments_are_printed_in_utc() {
        assert_eq!(moment("2026-11-21T23:42:04.725460822+01:00"), "2026/11/21 22:42 UTC");
        assert_eq!(moment("soon"), "soon");
    }
}
