//! `miharu query`: any request, as it is.

use std::io::Write;

use clap::Args;
use http::{Method, StatusCode};
use miharu_api::{Envelope, Kind};
use serde::Serialize;
use serde_json::Value;

use super::Context;
use crate::client::{Ask, Client, Reply, encoded};
use crate::error::Failure;
use crate::remote;

/// What is asked.
#[derive(Debug, Args)]
#[command(after_help = "\
Prints what the API returns: the metadata of a JSON answer, or the answer itself where it is none.

Examples:
  miharu query /1.0/metrics
  miharu query '/1.0/metrics?project=default'
  miharu query /1.0/instances?recursion=2
  miharu query -X PATCH -d '{\"config\": {\"metrics.cache_seconds\": \"15\"}}' /1.0")]
pub(crate) struct QueryArgs {
    /// The path, with its query: /1.0/metrics
    path: String,
    /// The method
    #[arg(short = 'X', long, value_name = "METHOD", default_value = "GET")]
    request: String,
    /// The body, JSON
    #[arg(short, long, value_name = "JSON")]
    data: Option<String>,
    /// Print the whole answer, not its metadata alone
    #[arg(long)]
    raw: bool,
    /// Wait for the operation that the request starts, if it starts one
    #[arg(long)]
    wait: bool,
}

/// Asks and prints.
pub(crate) async fn run(context: &Context<'_>, args: &QueryArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let path = path(&args.path, context.project)?;
    let method = Method::from_bytes(args.request.to_uppercase().as_bytes())
        .map_err(|_| Failure::usage(format!("'{}' is no HTTP method", args.request)))?;
    let ask = Ask { body: body(args.data.as_deref())?, ..Ask::new(method, &path) };
    let mut reply = context.client.send(ask).await?;
    if args.wait {
        reply = wait(&context.client, reply).await?;
    }
    print(&reply, args, out).map_err(|failure| explain(failure, reply.status, &args.request, &path))
}

/// The server's words for what is not there name neither path nor method, of which one is mistyped.
fn explain(failure: Failure, status: StatusCode, method: &str, path: &str) -> Failure {
    match (failure, status) {
        (Failure::Request(words), StatusCode::NOT_FOUND | StatusCode::NOT_IMPLEMENTED) => {
            Failure::request(format!("{words}\nThis was the answer to {} {path}.", method.to_uppercase()))
        }
        (failure, _) => failure,
    }
}

/// The path to ask for: absolute, with `--project` in its query unless that names projects itself.
fn path(typed: &str, project: Option<&str>) -> Result<String, Failure> {
    let path = remote::strip(typed)?;
    if !path.starts_with('/') {
        return Err(Failure::usage(format!(
            "'{typed}' is no path of the API: it starts with a slash, as /1.0/metrics"
        )));
    }
    let query = path.split_once('?').map(|(_, query)| query);
    let names_projects = query
        .is_some_and(|q| q.split('&').any(|p| p.starts_with("project=") || p.starts_with("all-projects=")));
    Ok(match (project, query) {
        (Some(project), None) => format!("{path}?project={}", encoded(project)),
        (Some(project), Some(_)) if !names_projects => format!("{path}&project={}", encoded(project)),
        _ => path.to_owned(),
    })
}

fn body(data: Option<&str>) -> Result<Option<Vec<u8>>, Failure> {
    let Some(data) = data else { return Ok(None) };
    match serde_json::from_str::<serde::de::IgnoredAny>(data) {
        Ok(_) => Ok(Some(data.as_bytes().to_vec())),
        Err(error) => Err(Failure::usage(format!("the data is not JSON: {error}"))),
    }
}

/// Where the answer is an operation in progress, the answer of its end instead.
async fn wait(client: &Client, reply: Reply) -> Result<Reply, Failure> {
    let operation = match serde_json::from_slice::<Envelope<Value>>(&reply.body) {
        Ok(envelope) if envelope.kind == Kind::Async => envelope.operation,
        _ => return Ok(reply),
    };
    // An operation takes the time it takes; a day is only there so that a script ends at last.
    let day = std::time::Duration::from_secs(24 * 60 * 60);
    let path = format!("{operation}/wait");
    client.send_within(day, Ask::new(Method::GET, &path).saying("Waiting for the operation's end")).await
}

fn print(reply: &Reply, args: &QueryArgs, out: &mut dyn Write) -> Result<(), Failure> {
    if !reply.is_json && reply.status.is_success() {
        return Ok(out.write_all(&reply.body)?);
    }
    if args.raw {
        match serde_json::from_slice::<Envelope<Value>>(&reply.body) {
            Ok(envelope) => write_pretty(out, &envelope)?,
            Err(_) => out.write_all(&reply.body)?,
        }
        return reply.check();
    }
    // What Prometheus is told comes without an envelope.
    if reply.status.is_success()
        && let Ok(list @ Value::Array(_)) = serde_json::from_slice(&reply.body)
    {
        return write_pretty(out, &list);
    }
    match reply.envelope()?.metadata {
        None | Some(Value::Null) => Ok(()),
        Some(metadata) => write_pretty(out, &metadata),
    }
}

/// JSON indented with tabs, as the clients of Incus and LXD do.
fn write_pretty<T: Serialize>(out: &mut dyn Write, value: &T) -> Result<(), Failure> {
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    let mut serializer = serde_json::Serializer::with_formatter(&mut *out, formatter);
    value.serialize(&mut serializer).map_err(|error| Failure::Output(error.into()))?;
    Ok(writeln!(out)?)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::testing::{Canned, Fake};

    #[test]
    fn a_list_without_an_envelope_is_printed_as_it_is() {
        let fake = Fake::start(vec![Canned::json(200, r#"[{"targets":["a:1"]}]"#)]);
        let (result, out) = fake.miharu(&["query", "/1.0/discovery/prometheus"]);
        result.unwrap();
        assert!(out.contains("\"a:1\""), "{out}");
    }

    #[test]
    fn project_goes_into_the_query() {
        assert_eq!(path("/1.0/metrics", None).unwrap(), "/1.0/metrics");
        assert_eq!(
            path("local:/1.0/metrics", Some("docker/shop")).unwrap(),
            "/1.0/metrics?project=docker%2Fshop"
        );
        assert_eq!(
            path("/1.0/instances?recursion=1", Some("a")).unwrap(),
            "/1.0/instances?recursion=1&project=a"
        );
        assert_eq!(path("/1.0/metrics?project=b", Some("a")).unwrap(), "/1.0/metrics?project=b");
        assert!(path("1.0", None).is_err());
    }

    #[test]
    fn metadata_is_printed_pretty() {
        let fake = Fake::start(vec![Canned::sync(r#"{"a":["x",1]}"#)]);
        let (result, out) = fake.miharu(&["query", "/1.0"]);
        result.unwrap();
        expect![[r#"
            {
            	"a": [
            		"x",
            		1
            	]
            }
        "#]]
        .assert_eq(&out);
        let requests = fake.requests();
        expect!["GET /1.0"].assert_eq(&requests[0].line());
        assert_eq!(requests[0].header("connection"), Some("close"));
    }

    #[test]
    fn what_is_not_json_is_printed_as_it_is() {
        let fake = Fake::start(vec![Canned::text("incus_uptime_seconds 1\n# EOF\n")]);
        let (result, out) = fake.miharu(&["query", "/1.0/metrics"]);
        result.unwrap();
        assert_eq!(out, "incus_uptime_seconds 1\n# EOF\n");
    }

    #[test]
    fn raw_prints_the_envelope_and_fails_with_the_server() {
        let body = r#"{"type":"error","error_code":404,"error":"not found","metadata":null}"#;
        let fake = Fake::start(vec![Canned::json(404, body)]);
        let (result, out) = fake.miharu(&["query", "--raw", "/1.0/nothing"]);
        expect![[r#"
            {
            	"type": "error",
            	"status": "",
            	"status_code": 0,
            	"operation": "",
            	"error_code": 404,
            	"error": "not found",
            	"metadata": null
            }
        "#]]
        .assert_eq(&out);
        assert_eq!(result.unwrap_err().to_string(), "not found\nThis was the answer to GET /1.0/nothing.");
    }

    #[test]
    fn data_and_method_are_sent() {
        let fake = Fake::start(vec![Canned::empty()]);
        let (result, out) = fake.miharu(&["query", "-X", "patch", "-d", r#"{"config":{}}"#, "/1.0"]);
        result.unwrap();
        assert_eq!(out, "");
        let requests = fake.requests();
        assert_eq!(requests[0].line(), "PATCH /1.0");
        assert_eq!(requests[0].body, r#"{"config":{}}"#);
    }

    #[test]
    fn data_that_is_not_json_is_not_sent() {
        let fake = Fake::start(vec![]);
        let (result, _) = fake.miharu(&["query", "-X", "PUT", "-d", "{", "/1.0"]);
        assert!(matches!(result, Err(Failure::Usage(m)) if m.starts_with("the data is not JSON")));
        assert!(fake.requests().is_empty());
    }

    #[test]
    fn an_operation_is_awaited() {
        let fake = Fake::start(vec![
            Canned::json(
                202,
                r#"{"type":"async","status":"Operation created","status_code":100,"operation":"/1.0/operations/u1","error_code":0,"error":"","metadata":{}}"#,
            ),
            Canned::sync(r#"{"id":"u1"}"#),
        ]);
        let (result, out) = fake.miharu(&["query", "--wait", "-X", "POST", "/1.0/x"]);
        result.unwrap();
        assert!(out.contains("u1"));
        assert_eq!(fake.requests()[1].line(), "GET /1.0/operations/u1/wait");
    }
}
