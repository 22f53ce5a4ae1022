//! `miharu config trust add-token`, `list-tokens` and `revoke-token`: tokens for clients and for scrapers.

use std::collections::BTreeMap;
use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use http::Method;
use miharu_api::{BearerToken, CertificatesPost, JoinToken, Operation};
use serde::Serialize;

use super::super::Context;
use super::{ListArgs, Restriction, check_projects, send};
use crate::client::Ask;
use crate::commands::operation::moment;
use crate::error::Failure;
use crate::output::{self, Rows};
use crate::remote;

/// A bearer token to make.
#[derive(Debug, Args)]
#[command(after_help = "\
The secret is shown once: the server keeps only a hash of it. For Prometheus' authorization.credentials_file:
  miharu config trust add-token prometheus --type=metrics --quiet > miharu.token
  miharu prometheus scrape-config --token

One that sees the instances of one project, for a year:
  miharu config trust add-token shop --type=metrics --restricted --projects shop --expiry 1y

`miharu config trust list` shows it, and `miharu config trust remove FINGERPRINT` takes it back.")]
pub(crate) struct AddArgs {
    /// What to call it
    #[arg(value_name = "NAME", required = true, num_args = 1..=2)]
    words: Vec<String>,
    /// What its holder may do: metrics, to read /1.0/metrics
    #[arg(long = "type", value_name = "TYPE", default_value = "metrics", value_parser = ["metrics"])]
    kind: String,
    /// What to say of it
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// Limit it to some projects
    #[arg(long)]
    restricted: bool,
    /// The projects that a restricted token may see
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    projects: Vec<String>,
    /// How long it is valid, such as 30d, 12H or 1y 6m (S, M, H, d, w, m, y); for ever if left out
    #[arg(long, value_name = "SPAN")]
    expiry: Option<String>,
}

/// A join token.
#[derive(Debug, Args)]
pub(crate) struct Name {
    /// The name that it was made for
    #[arg(value_name = "NAME", required = true, num_args = 1..=2)]
    words: Vec<String>,
}

/// A line of `list-tokens`, under the names that the clients give the fields.
#[derive(Debug, Serialize)]
struct Listed {
    #[serde(rename = "ClientName")]
    client_name: String,
    #[serde(rename = "Token")]
    token: String,
    #[serde(rename = "ExpiresAt")]
    expires_at: String,
}

impl Name {
    pub(super) fn get(&self) -> Result<&str, Failure> {
        one(&self.words)
    }
}

fn one(words: &[String]) -> Result<&str, Failure> {
    match remote::strip_leading(words)? {
        [name] => remote::strip(name),
        _ => Err(Failure::usage("one token at a time, please")),
    }
}

/// Makes a bearer token and prints it.
pub(super) async fn add(context: &Context<'_>, args: &AddArgs, out: &mut dyn Write) -> Result<(), Failure> {
    check_projects(&args.projects, Restriction::of(args.restricted))?;
    let post = CertificatesPost {
        name: one(&args.words)?.to_owned(),
        certificate_type: args.kind.clone(),
        restricted: args.restricted,
        projects: args.projects.clone(),
        description: args.description.clone().unwrap_or_default(),
        bearer_token: true,
        expiry: args.expiry.clone().unwrap_or_default(),
        ..CertificatesPost::default()
    };
    let made: BearerToken = send(context, &post).await?.metadata()?;
    let short = made.fingerprint.get(..12).unwrap_or(&made.fingerprint);
    let until = made.expires_at.map(|end| format!(", valid until {}", moment(&end))).unwrap_or_default();
    context.say(out, &format!("Bearer token {} ({short}{until}), shown this once:", post.name))?;
    Ok(writeln!(out, "{}", made.token)?)
}

/// Makes a join token and prints it.
pub(super) async fn join(
    context: &Context<'_>,
    post: CertificatesPost,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let operation: Operation = send(context, &post).await?.metadata()?;
    let listed = listed(&operation).ok_or_else(|| {
        Failure::request("the server's answer holds no token; are miharu and miharud of one version?")
    })?;
    context.say(out, &format!("Client {} certificate add token:", listed.client_name))?;
    Ok(writeln!(out, "{}", listed.token)?)
}

/// Lists the join tokens that were not used yet.
pub(super) async fn list(context: &Context<'_>, args: &ListArgs, out: &mut dyn Write) -> Result<(), Failure> {
    args.remote.as_deref().map(remote::strip).transpose()?;
    let tokens: Vec<Listed> = operations(context).await?.iter().filter_map(listed).collect();
    let rows = Rows {
        headers: vec!["NAME", "TOKEN", "EXPIRES AT"],
        rows: tokens
            .iter()
            .map(|token| vec![token.client_name.clone(), token.token.clone(), token.expires_at.clone()])
            .collect(),
    };
    output::write_list(out, args.format, &rows, &tokens)
}

/// Takes every join token of this name back.
pub(super) async fn revoke(context: &Context<'_>, name: &str, out: &mut dyn Write) -> Result<(), Failure> {
    let mut revoked = 0;
    for operation in operations(context).await? {
        if listed(&operation).is_some_and(|token| token.client_name == name) {
            let path = format!("/1.0/operations/{}", operation.id);
            context.client.send(Ask::new(Method::DELETE, &path)).await?.check()?;
            revoked += 1;
        }
    }
    if revoked == 0 {
        return Err(Failure::request(format!(
            "there is no join token for '{name}'\n`miharu config trust list-tokens` prints those that were not used yet; a \
             bearer token is taken back with `miharu config trust remove FINGERPRINT`."
        )));
    }
    context.say(out, &format!("Certificate add token for {name} deleted"))
}

async fn operations(context: &Context<'_>) -> Result<Vec<Operation>, Failure> {
    let by_state: BTreeMap<String, Vec<Operation>> =
        context.client.get("/1.0/operations?recursion=1").await?;
    Ok(by_state.into_values().flatten().collect())
}

/// The token that an operation stands for, if it is one that can still be used.
fn listed(operation: &Operation) -> Option<Listed> {
    if operation.class != "token" || operation.status_code != 103 {
        return None;
    }
    let metadata = operation.metadata.as_ref()?;
    let text = |key: &str| metadata.get(key).and_then(|value| value.as_str()).map(str::to_owned);
    let addresses = metadata.get("addresses").and_then(|value| value.as_array());
    let addresses = addresses.into_iter().flatten().filter_map(|address| address.as_str());
    let client_name = metadata.get("request")?.get("name")?.as_str()?.to_owned();
    let expires_at = text("expiresAt");
    let token = JoinToken {
        client_name: client_name.clone(),
        fingerprint: text("fingerprint")?,
        addresses: addresses.map(str::to_owned).collect(),
        secret: text("secret")?,
        expires_at: expires_at.clone().unwrap_or_else(|| JoinToken::NEVER.to_owned()),
    };
    let token = STANDARD.encode(serde_json::to_vec(&token).ok()?);
    Some(Listed { client_name, token, expires_at: expires_at.map(|end| moment(&end)).unwrap_or_default() })
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use crate::testing::{Canned, Fake};

    /// What LXD answered, with an expiry and without one.
    const OPERATIONS: &str = r#"{"running":[
        {"id":"475504a8-683d-401e-af17-6ab4e82108ba","class":"token","status":"Running","status_code":103,"resources":null,
         "metadata":{"addresses":["127.0.0.1:8443"],"expiresAt":"2026-11-21T23:42:04.725460822Z","fingerprint":"32cd",
                     "request":{"name":"y","type":"client"},"secret":"11c4"},"may_cancel":true,"err":"","location":"none"},
        {"id":"15d1f598-8477-49b4-852d-eeffed6e7c64","class":"token","status":"Running","status_code":103,"resources":null,
         "metadata":{"addresses":null,"fingerprint":"32cd","request":{"name":"z"},"secret":"5adc"}}],
      "success":[{"id":"1","class":"task","status":"Success","status_code":200,"metadata":null}]}"#;

    #[test]
    fn a_name_makes_a_join_token() {
        for words in [&["laptop"][..], &["--name", "laptop"]] {
            let operation = r#"{"id":"1","class":"token","status":"Running","status_code":103,"metadata":{"addresses":["127.0.0.1:8443"],"fingerprint":"32cd","request":{"name":"laptop"},"secret":"11c4"}}"#;
            let fake = Fake::start(vec![Canned::sync(operation)]);
            let line = [&["config", "trust", "add"], words, &["--restricted", "--projects", "lxc"]].concat();
            let (result, out) = fake.miharu(&line);
            result.unwrap();
            expect![[r#"
                Client laptop certificate add token:
                eyJjbGllbnRfbmFtZSI6ImxhcHRvcCIsImZpbmdlcnByaW50IjoiMzJjZCIsImFkZHJlc3NlcyI6WyIxMjcuMC4wLjE6ODQ0MyJdLCJzZWNyZXQiOiIxMWM0IiwiZXhwaXJlc19hdCI6IjAwMDEtMDEtMDFUMDA6MDA6MDBaIn0=
            "#]]
            .assert_eq(&out);
            let body = fake.requests()[0].json();
            assert_eq!((&body["name"], &body["token"]), (&"laptop".into(), &true.into()));
            assert_eq!((&body["certificate"], &body["projects"]), (&"".into(), &serde_json::json!(["lxc"])));
        }
    }

    #[test]
    fn what_may_be_meant_in_two_ways_is_asked_back() {
        for words in [&[][..], &["a", "--name", "b"], &["a", "--projects", "x"], &["a", "b"]] {
            let failure = Fake::start(vec![]).miharu(&[&["config", "trust", "add"], words].concat()).0;
            assert!(matches!(failure, Err(crate::error::Failure::Usage(_))), "{words:?}: {failure:?}");
        }
    }

    #[test]
    fn a_bearer_token_is_shown_once_and_alone_when_quiet() {
        let made =
            r#"{"token":"miharu-abc","fingerprint":"0123456789abcdef","expires_at":"2027-11-21T23:42:04Z"}"#;
        let fake = Fake::start(vec![Canned::sync(made), Canned::sync(made)]);
        let line = [
            "config",
            "trust",
            "add-token",
            "prom",
            "--type=metrics",
            "--restricted",
            "--projects",
            "a,b",
            "--expiry",
            "1y",
        ];
        expect![[r#"
            Bearer token prom (0123456789ab, valid until 2027/11/21 23:42 UTC), shown this once:
            miharu-abc
        "#]]
        .assert_eq(&fake.miharu(&line).1);
        assert_eq!(fake.miharu(&["config", "trust", "add-token", "prom", "-q"]).1, "miharu-abc\n");
        let body = fake.requests()[0].json();
        assert_eq!((&body["bearer_token"], &body["expiry"]), (&true.into(), &"1y".into()));
        assert_eq!((&body["type"], &body["projects"]), (&"metrics".into(), &serde_json::json!(["a", "b"])));
        assert_eq!(fake.requests()[1].json().get("expiry"), None);
    }

    #[test]
    fn tokens_are_listed_as_the_clients_do() {
        let fake = Fake::start(vec![Canned::sync(OPERATIONS), Canned::sync(OPERATIONS)]);
        let out = fake.miharu(&["config", "trust", "list-tokens", "--format", "json"]).1;
        let listed: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(
            (&listed[0]["ClientName"], &listed[0]["ExpiresAt"]),
            (&"y".into(), &"2026/11/21 23:42 UTC".into())
        );
        assert_eq!((&listed[1]["ExpiresAt"], listed.as_array().unwrap().len()), (&"".into(), 2));
        let out = fake.miharu(&["config", "trust", "list-tokens", "--format", "csv"]).1;
        assert!(out.starts_with("y,eyJ") && out.contains(",2026/11/21 23:42 UTC\nz,eyJ"), "{out}");
    }

    #[test]
    fn a_token_is_revoked_by_its_name() {
        let fake = Fake::start(vec![Canned::sync(OPERATIONS), Canned::empty(), Canned::sync(OPERATIONS)]);
        let (result, out) = fake.miharu(&["config", "trust", "revoke-token", "z"]);
        result.unwrap();
        assert_eq!(out, "Certificate add token for z deleted\n");
        assert_eq!(fake.requests()[1].line(), "DELETE /1.0/operations/15d1f598-8477-49b4-852d-eeffed6e7c64");
        let failure = fake.miharu(&["config", "trust", "revoke-token", "nobody"]).0.unwrap_err().to_string();
        assert!(failure.starts_with("there is no join token for 'nobody'"), "{failure}");
    }
}
