//! `miharu monitor`: what happens, as it happens.

use std::io::Write;

use clap::{Args, ValueEnum};
use miharu_api::{Event, Lifecycle, Logging};

use super::Context;
use crate::client::encoded;
use crate::error::Failure;
use crate::output::{printable, write_yaml};
use crate::remote;

/// What to be told.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  miharu monitor --pretty                       A line for each thing that happens
  miharu monitor --type=lifecycle               Instances that start and stop, and what is changed
  miharu monitor --type=logging --loglevel=warning
                                                What goes wrong, as the log has it

It goes on until it is interrupted (Ctrl-C). Instances are looked for every 2 seconds while somebody listens.")]
pub(crate) struct MonitorArgs {
    #[arg(hide = true)]
    remote: Option<String>,
    /// Only this: lifecycle, logging or operation (may be given several times)
    #[arg(short = 't', long = "type", value_name = "TYPE", value_delimiter = ',')]
    types: Vec<String>,
    /// Of the log, only lines that are as important as this
    #[arg(long, value_name = "LEVEL", value_enum)]
    loglevel: Option<Level>,
    /// Events of every project
    #[arg(long, conflicts_with = "project")]
    all_projects: bool,
    /// A line an event
    #[arg(long, conflicts_with = "format")]
    pretty: bool,
    /// The form of an event
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    format: EventFormat,
}

/// The form of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum EventFormat {
    /// All of it, as YAML
    #[default]
    Yaml,
    /// All of it, a line of JSON
    Json,
    /// What matters of it, in a line
    Pretty,
}

/// How important a line of the log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum Level {
    /// Something failed
    Error,
    /// Something is wrong
    #[value(alias = "warn")]
    Warning,
    /// Something happened
    Info,
    /// Something to look for a fault with
    Debug,
}

/// Listens, and prints.
pub(crate) async fn run(
    context: &Context<'_>,
    args: &MonitorArgs,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    args.remote.as_deref().map(remote::strip).transpose()?;
    let mut query: Vec<String> = Vec::new();
    if !args.types.is_empty() {
        query.push(format!("type={}", encoded(&args.types.join(","))));
    }
    if let Some(project) = context.project.filter(|_| !args.all_projects) {
        query.push(format!("project={}", encoded(project)));
    }
    let mut path = "/1.0/events".to_owned();
    if !query.is_empty() {
        path = format!("{path}?{}", query.join("&"));
    }
    let format = if args.pretty { EventFormat::Pretty } else { args.format };
    let mut events = context.client.listen(&path).await?;
    while let Some(text) = events.next().await? {
        let event: Event = serde_json::from_str(&text).map_err(|error| {
            Failure::request(format!("an event of the server's is not understood: {error}"))
        })?;
        if !is_wanted(&event, args.loglevel) {
            continue;
        }
        write(out, &event, &text, format)?;
        // Whoever reads this waits for it now.
        out.flush()?;
    }
    Err(Failure::request("the server ended the connection: it stops, or takes the right to listen back"))
}

fn is_wanted(event: &Event, least: Option<Level>) -> bool {
    let Some(least) = least.filter(|_| event.event_type == "logging") else { return true };
    let level = event.metadata.get("level").and_then(|level| level.as_str()).unwrap_or_default();
    // A level that this miharu does not know is no reason to hide a line.
    Level::from_str(level, true).map_or(true, |level| level <= least)
}

fn write(out: &mut dyn Write, event: &Event, text: &str, format: EventFormat) -> Result<(), Failure> {
    match format {
        EventFormat::Json => Ok(writeln!(out, "{text}")?),
        EventFormat::Yaml => {
            write_yaml(out, event)?;
            Ok(writeln!(out, "\n")?)
        }
        EventFormat::Pretty => Ok(writeln!(out, "{}", printable(&line(event)))?),
    }
}

/// A moment, a level, and what happened.
fn line(event: &Event) -> String {
    let seconds = event.timestamp.split('.').next().unwrap_or_default().trim_end_matches('Z');
    let (level, mut message) = match event.event_type.as_str() {
        "logging" => {
            let logging: Logging = serde_json::from_value(event.metadata.clone()).unwrap_or_default();
            let mut message = logging.message;
            for (key, value) in &logging.context {
                message.push_str(&format!(" {key}={value}"));
            }
            (logging.level, message)
        }
        "lifecycle" => {
            let lifecycle: Lifecycle = serde_json::from_value(event.metadata.clone()).unwrap_or_default();
            ("info".to_owned(), format!("Action: {}, Source: {}", lifecycle.action, lifecycle.source))
        }
        _ => {
            let text =
                |key: &str| event.metadata.get(key).and_then(|value| value.as_str()).unwrap_or_default();
            let (id, class, status) = (text("id"), text("class"), text("status"));
            (
                "info".to_owned(),
                format!("ID: {id}, Class: {class}, Description: {}, Status: {status}", text("description")),
            )
        }
    };
    if !event.project.is_empty() {
        message.push_str(&format!(" [{}]", event.project));
    }
    format!("{} {seconds}Z {message}", level.to_uppercase())
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn event(text: &str) -> Event {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn events_are_lines() {
        let lines = [
            r#"{"type":"lifecycle","timestamp":"2026-11-22T00:18:21.26Z","project":"lxc",
                "metadata":{"action":"instance-started","source":"/1.0/instances/u1?project=lxc"}}"#,
            r#"{"type":"logging","timestamp":"2026-11-22T00:18:21.26Z",
                "metadata":{"level":"warning","message":"port taken\u001b","context":{"key":"x"}}}"#,
            r#"{"type":"operation","timestamp":"2026-11-22T00:18:21Z",
                "metadata":{"id":"b5","class":"token","status":"Running","description":"Executing operation"}}"#,
        ];
        let mut out = Vec::new();
        for text in lines {
            write(&mut out, &event(text), text, EventFormat::Pretty).unwrap();
        }
        expect![[r#"
            INFO 2026-11-22T00:18:21Z Action: instance-started, Source: /1.0/instances/u1?project=lxc [lxc]
            WARNING 2026-11-22T00:18:21Z port taken� key=x
            INFO 2026-11-22T00:18:21Z ID: b5, Class: token, Description: Executing operation, Status: Running
        "#]]
        .assert_eq(&String::from_utf8(out).unwrap());
    }

    #[test]
    fn the_level_hides_lines_of_the_log_alone() {
        let log = |level: &str| event(&format!(r#"{{"type":"logging","metadata":{{"level":"{level}"}}}}"#));
        let wanted = |event: &Event| is_wanted(event, Some(Level::Warning));
        assert!(wanted(&log("error")) && wanted(&log("warning")) && wanted(&log("unheard-of")));
        assert!(!wanted(&log("info")) && !wanted(&log("debug")));
        assert!(wanted(&event(r#"{"type":"lifecycle"}"#)) && is_wanted(&log("debug"), None));
    }
}
