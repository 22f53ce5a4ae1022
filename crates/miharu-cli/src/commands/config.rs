//! `miharu config`: the server's configuration.

use std::collections::BTreeMap;
use std::io::{Read as _, Write};

use clap::{Args, Subcommand};
use http::{Method, StatusCode};
use miharu_api::{Server, ServerPut};
use serde_json::Value;

use super::Context;
use super::trust::{self, TrustCommand};
use crate::client::Ask;
use crate::error::Failure;
use crate::output;
use crate::remote;

/// What to do with the configuration.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  miharu config set core.metrics_address :8444
  miharu config get core.metrics_address
  miharu config trust add-certificate metrics.crt --type=metrics")]
pub(crate) enum ConfigCommand {
    /// Print the value of a server key; an empty line where its default holds
    Get(Key),
    /// Set server keys
    Set(Pairs),
    /// Give a server key its default again
    Unset(Key),
    /// Print all server keys that are set, as YAML
    Show(Remote),
    /// See and change who may ask the server over the network
    #[command(subcommand)]
    Trust(TrustCommand),
}

/// One server key.
#[derive(Debug, Args)]
pub(crate) struct Key {
    /// The server key: core.metrics_address
    #[arg(required = true, num_args = 1..=2, value_name = "KEY")]
    words: Vec<String>,
}

/// Server keys and their values.
#[derive(Debug, Args)]
#[command(after_help = "\
A value of - is read from the standard input.

Examples:
  miharu config set core.metrics_address :8444
  miharu config set core.metrics_address=:8444 metrics.cache_seconds=15")]
pub(crate) struct Pairs {
    /// KEY VALUE, or any number of KEY=VALUE
    #[arg(required = true, value_name = "KEY=VALUE")]
    words: Vec<String>,
}

/// `local:`, as users of Incus and LXD may write it.
#[derive(Debug, Args)]
pub(crate) struct Remote {
    #[arg(hide = true)]
    remote: Option<String>,
}

/// Does it.
pub(crate) async fn run(
    context: &Context<'_>,
    command: &ConfigCommand,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    match command {
        ConfigCommand::Get(key) => get(context, key.name()?, out).await,
        ConfigCommand::Set(pairs) => set(context, read_values(parse_pairs(&pairs.words)?)?).await,
        ConfigCommand::Unset(key) => set(context, vec![(key.name()?.to_owned(), String::new())]).await,
        ConfigCommand::Show(remote) => {
            remote.check()?;
            show(context, out).await
        }
        ConfigCommand::Trust(command) => trust::run(context, command, out).await,
    }
}

impl Key {
    fn name(&self) -> Result<&str, Failure> {
        match remote::strip_leading(&self.words)? {
            [key] => Ok(remote::strip(key)?),
            _ => Err(of_an_instance()),
        }
    }
}

impl Remote {
    /// Nothing but `local:` may be meant.
    fn check(&self) -> Result<(), Failure> {
        match self.remote.as_deref().map(remote::strip).transpose()? {
            None | Some("") => Ok(()),
            Some(_) => Err(of_an_instance()),
        }
    }
}

fn of_an_instance() -> Failure {
    Failure::usage(
        "this is about a server key and takes no instance: miharu watches instances, and leaves their configuration to \
         the runtime that started them",
    )
}

/// `K V`, or `K=V …`.
fn parse_pairs(words: &[String]) -> Result<Vec<(String, String)>, Failure> {
    let words = remote::strip_leading(words)?;
    if let [key, value] = words
        && !key.contains('=')
    {
        return Ok(vec![(key.clone(), value.clone())]);
    }
    words
        .iter()
        .map(|word| match word.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
            _ if words.len() == 1 => Err(Failure::usage(format!(
                "there is no value for '{word}': write `miharu config set {word} VALUE`, or `miharu config unset {word}` \
                 for its default"
            ))),
            _ => Err(Failure::usage(format!("'{word}' is not of the form KEY=VALUE"))),
        })
        .collect()
}

fn read_values(pairs: Vec<(String, String)>) -> Result<Vec<(String, String)>, Failure> {
    pairs
        .into_iter()
        .map(|(key, value)| match value.as_str() {
            "-" => {
                let mut text = String::new();
                std::io::stdin().read_to_string(&mut text).map_err(|error| {
                    Failure::usage(format!(
                        "cannot read the value of '{key}' from the standard input: {error}"
                    ))
                })?;
                Ok((key, text.trim_end_matches('\n').to_owned()))
            }
            _ => Ok((key, value)),
        })
        .collect()
}

async fn get(context: &Context<'_>, key: &str, out: &mut dyn Write) -> Result<(), Failure> {
    let server: Server = context.client.get("/1.0").await?;
    let value = server.config.unwrap_or_default().remove(key).unwrap_or_default();
    Ok(writeln!(out, "{value}")?)
}

/// Reads the whole configuration, changes it, and writes it back only if nobody else has changed it meanwhile.
async fn set(context: &Context<'_>, pairs: Vec<(String, String)>) -> Result<(), Failure> {
    let current = context.client.send(Ask::new(Method::GET, "/1.0")).await?;
    let server: Server = current.metadata()?;
    let mut config: BTreeMap<String, Value> = server
        .config
        .unwrap_or_default()
        .into_iter()
        .map(|(key, value)| (key, Value::String(value)))
        .collect();
    for (key, value) in pairs {
        config.insert(key, Value::String(value));
    }
    let ask = Ask::new(Method::PUT, "/1.0").json(&ServerPut { config })?.if_match(current.etag.as_deref());
    let reply = context.client.send(ask).await?;
    reply.check().map_err(|failure| advise(reply.status, failure))
}

/// Adds to a refusal what helps.
fn advise(status: StatusCode, failure: Failure) -> Failure {
    let words = failure.to_string();
    match status {
        StatusCode::PRECONDITION_FAILED => Failure::request(format!(
            "{words}\nSomebody else changed the configuration at the same moment, and nothing was set: run this again."
        )),
        StatusCode::BAD_REQUEST if words.to_lowercase().contains("unknown") => Failure::request(format!(
            "{words}\nNothing was set. `miharu config show` prints the keys that are set; docs/reference/server-keys.md describes \
             every one there is."
        )),
        _ => failure,
    }
}

async fn show(context: &Context<'_>, out: &mut dyn Write) -> Result<(), Failure> {
    let server: Server = context.client.get("/1.0").await?;
    output::write_yaml(out, &BTreeMap::from([("config", server.config.unwrap_or_default())]))
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::testing::{Canned, Fake};

    fn server(config: &str) -> Canned {
        Canned::sync(&format!(r#"{{"api_version":"1.0","auth":"trusted","config":{config}}}"#)).etag("\"e1\"")
    }

    #[test]
    fn set_writes_the_whole_configuration_back() {
        let fake = Fake::start(vec![server(r#"{"core.https_address":":8443"}"#), Canned::empty()]);
        let (result, out) = fake.miharu(&["config", "set", "core.metrics_address", ":8444"]);
        result.unwrap();
        assert_eq!(out, "");
        let requests = fake.requests();
        assert_eq!(requests[1].line(), "PUT /1.0");
        assert_eq!(requests[1].header("if-match"), Some("\"e1\""));
        expect![[r#"{"config":{"core.https_address":":8443","core.metrics_address":":8444"}}"#]]
            .assert_eq(&requests[1].body);
    }

    #[test]
    fn set_takes_several_pairs() {
        let fake = Fake::start(vec![server("{}"), Canned::empty()]);
        fake.miharu(&["config", "set", "local:", "a.b=1", "c.d=x=y"]).0.unwrap();
        expect![[r#"{"config":{"a.b":"1","c.d":"x=y"}}"#]].assert_eq(&fake.requests()[1].body);
    }

    #[test]
    fn unset_puts_an_empty_value() {
        let fake = Fake::start(vec![server(r#"{"a.b":"1"}"#), Canned::empty()]);
        fake.miharu(&["config", "unset", "a.b"]).0.unwrap();
        expect![[r#"{"config":{"a.b":""}}"#]].assert_eq(&fake.requests()[1].body);
    }

    #[test]
    fn an_unknown_key_is_told_with_what_to_do() {
        let fake =
            Fake::start(vec![server("{}"), Canned::error(400, "cannot set 'x.y' to '1': unknown key")]);
        let failure = fake.miharu(&["config", "set", "x.y", "1"]).0.unwrap_err();
        expect![[r#"
            cannot set 'x.y' to '1': unknown key
            Nothing was set. `miharu config show` prints the keys that are set; docs/reference/server-keys.md describes every one there is."#]]
        .assert_eq(&failure.to_string());
    }

    #[test]
    fn a_change_in_between_is_told() {
        let fake = Fake::start(vec![server("{}"), Canned::error(412, "Precondition failed")]);
        let failure = fake.miharu(&["config", "set", "a.b", "1"]).0.unwrap_err();
        assert!(failure.to_string().contains("run this again"), "{failure}");
    }

    #[test]
    fn get_prints_the_value() {
        let fake = Fake::start(vec![server(r#"{"a.b":"1"}"#), server("{}")]);
        assert_eq!(fake.miharu(&["config", "get", "a.b"]).1, "1\n");
        assert_eq!(fake.miharu(&["config", "get", "local:", "a.b"]).1, "\n");
    }

    #[test]
    fn show_is_yaml() {
        let fake =
            Fake::start(vec![server(r#"{"core.metrics_address":":8444","metrics.cache_seconds":"8"}"#)]);
        let (result, out) = fake.miharu(&["config", "show"]);
        result.unwrap();
        expect![[r#"
            config:
              core.metrics_address: :8444
              metrics.cache_seconds: '8'
        "#]]
        .assert_eq(&out);
    }

    #[test]
    fn mistakes_are_found_before_the_server_is_asked() {
        let fake = Fake::start(vec![]);
        for wrong in [
            vec!["config", "set", "a.b"],
            vec!["config", "set", "c1", "limits.cpu", "2"],
            vec!["config", "get", "c1", "limits.cpu"],
            vec!["config", "show", "c1"],
            vec!["config", "get", "prod:", "a.b"],
        ] {
            let result = fake.miharu(&wrong).0;
            assert!(matches!(result, Err(Failure::Usage(_))), "{wrong:?} gave {result:?}");
        }
    }
}
