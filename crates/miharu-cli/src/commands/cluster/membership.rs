//! How a server gets into a cluster, and out of it.

use std::io::Write;
use std::time::Duration;

use clap::Args;
use http::Method;
use miharu_api::{Cluster, ClusterMembersPost, ClusterPut, Operation};

use super::store::{LoginArgs, line};
use crate::client::Ask;
use crate::commands::Context;
use crate::error::Failure;
use crate::remote;

/// How long etcd may take: several transactions, each with its deadline.
const PATIENCE: Duration = Duration::from_secs(90);

/// A cluster that is to be.
#[derive(Debug, Args)]
#[command(after_help = "\
What this server has configured and trusts is the cluster's from then on. Its addresses stay its own, and so do those of others.

Examples:
  miharu cluster enable abydos --store etcd://192.0.2.1,192.0.2.2,192.0.2.3
  MIHARU_STORE_PASSWORD=… miharu cluster enable abydos --store etcds://etcd.example.org:2379/prod \\
      --store-ca ca.crt --store-user miharu")]
pub(crate) struct EnableArgs {
    /// What this server is to be called in it
    #[arg(value_name = "NAME")]
    name: String,
    /// Where etcd is; etcds:// speaks TLS, and a path is where the cluster's keys are (/miharu)
    #[arg(long, value_name = "etcd://HOST:PORT[,…][/PATH]")]
    store: String,
    /// What the cluster is to be called, if its path does not say
    #[arg(long, value_name = "NAME")]
    cluster_name: Option<String>,
    /// A further name or address for the cluster's certificate, of members to come perhaps; may be given several times
    #[arg(long, value_name = "NAME")]
    san: Vec<String>,
    #[command(flatten)]
    login: LoginArgs,
}

/// A member that is to be.
#[derive(Debug, Args)]
#[command(after_help = "\
The token is for one server, once, for as long as the server key cluster.join_token_expiry says (3 hours). Who has it gets the
cluster's trust and the key of its certificate: hand it over as you would a password.")]
pub(crate) struct AddArgs {
    /// What it is to be called
    #[arg(value_name = "NAME")]
    name: String,
}

/// With what to join.
#[derive(Debug, Args)]
#[command(after_help = "\
What this server has trusted and configured until now is given up for what the cluster has; its addresses stay its own.

Examples:
  miharu cluster join                       Asks for the token, so that no list of processes shows it
  miharu cluster join < token
  miharu cluster join TOKEN --store-user miharu --store-password-file /root/etcd")]
pub(crate) struct JoinArgs {
    /// The token that `miharu cluster add` printed on a member; asked for when left out
    #[arg(value_name = "TOKEN")]
    token: Option<String>,
    /// Where etcd is, if this server reaches it another way than the token says
    #[arg(long, value_name = "etcd://HOST:PORT[,…][/PATH]")]
    store: Option<String>,
    #[command(flatten)]
    login: LoginArgs,
}

/// How to leave.
#[derive(Debug, Args)]
pub(crate) struct LeaveArgs {
    /// Leave though etcd cannot be told; another member has to remove this one then
    #[arg(short, long)]
    force: bool,
    /// Accepted for users of Incus and LXD: nothing is asked back
    #[arg(long, hide = true)]
    yes: bool,
}

pub(super) async fn enable(
    context: &Context<'_>,
    args: &EnableArgs,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let name = remote::strip(&args.name)?;
    let put = ClusterPut {
        server_name: name.to_owned(),
        enabled: true,
        store: Some(args.login.store(&url(&args.store, args.cluster_name.as_deref())?)?),
        san: args.san.clone(),
        ..ClusterPut::default()
    };
    change(context, &put, "Making the cluster").await?;
    let cluster: Cluster = context.client.get("/1.0/cluster").await?;
    let text = format!(
        "Clustering enabled: this server is {name}, the first member of the cluster {}.\nEvery member serves with {}: Prometheus needs \
         that as its ca_file. `miharu cluster add NAME` makes a token for the next member.",
        cluster.cluster_name,
        context.client.dir().join("cluster.crt").display()
    );
    context.say(out, &text)
}

/// The store with the cluster's name as its path.
fn url(store: &str, name: Option<&str>) -> Result<String, Failure> {
    let Some(name) = name else { return Ok(store.to_owned()) };
    let hosts = store.split_once("://").map_or(store, |(_, rest)| rest);
    match hosts.split_once('/') {
        Some((_, path)) if !path.trim_matches('/').is_empty() => Err(Failure::usage(format!(
            "the cluster would be called {name}, and /{path} as well: leave the path out of --store, or --cluster-name"
        ))),
        _ => Ok(format!("{}/{name}", store.trim_end_matches('/'))),
    }
}

pub(super) async fn add(context: &Context<'_>, args: &AddArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let name = remote::strip(&args.name)?;
    let post = ClusterMembersPost { server_name: name.to_owned() };
    let ask = Ask::new(Method::POST, "/1.0/cluster/members").json(&post)?;
    let operation: Operation = context.client.send(ask).await?.metadata()?;
    let metadata = operation.metadata.unwrap_or_default();
    let secret = metadata.get("secret").and_then(|secret| secret.as_str());
    let token = secret.ok_or_else(|| Failure::request("the server's answer holds no token"))?;
    context.say(out, &format!("Member {name} join token:"))?;
    Ok(writeln!(out, "{token}")?)
}

pub(super) async fn join(context: &Context<'_>, args: &JoinArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let token = match args.token.as_deref() {
        Some("-") | None => line("the join token")?,
        Some(token) => token.to_owned(),
    };
    if token.trim().is_empty() {
        return Err(Failure::usage(
            "the join token is empty: `miharu cluster add NAME` on a member prints one",
        ));
    }
    let store = args.login.store(args.store.as_deref().unwrap_or_default())?;
    let put = ClusterPut { enabled: true, cluster_token: token, store: Some(store), ..ClusterPut::default() };
    change(context, &put, "Joining the cluster").await?;
    let cluster: Cluster = context.client.get("/1.0/cluster").await?;
    let text =
        format!("This server is the member {} of the cluster {}.", cluster.server_name, cluster.cluster_name);
    context.say(out, &text)
}

pub(super) async fn leave(
    context: &Context<'_>,
    args: &LeaveArgs,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let put = ClusterPut { force: args.force, ..ClusterPut::default() };
    change(context, &put, "Leaving the cluster").await?;
    context.say(
        out,
        "This server is one of its own again, with a copy of what the cluster had configured and trusted.",
    )
}

async fn change(context: &Context<'_>, put: &ClusterPut, words: &'static str) -> Result<(), Failure> {
    let ask = Ask::new(Method::PUT, "/1.0/cluster").json(put)?.saying(words);
    context.client.send_within(PATIENCE, ask).await?.check()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{Canned, Fake};

    const CLUSTER: &str =
        r#"{"server_name":"abydos","enabled":true,"member_config":[],"cluster_name":"hdc"}"#;

    #[test]
    fn a_cluster_is_made_with_what_the_flags_and_files_say() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let (ca, password) = (file("ca", "CA"), file("password", "hush\n"));
        let fake = Fake::start(vec![Canned::empty(), Canned::sync(CLUSTER)]);
        let (result, out) = fake.miharu(&[
            "cluster",
            "enable",
            "abydos",
            "--store=etcds://a,b",
            "--cluster-name=hdc",
            "--store-ca",
            &ca,
            "--store-user=u",
            "--store-password-file",
            &password,
            "--san=m.example.org",
        ]);
        result.unwrap();
        assert!(
            out.contains("abydos, the first member of the cluster hdc") && out.contains("cluster.crt"),
            "{out}"
        );
        let request = &fake.requests()[0];
        assert_eq!(request.line(), "PUT /1.0/cluster");
        let store = json!({
            "url": "etcds://a,b/hdc", "ca": "CA", "certificate": "", "key": "", "user": "u", "password": "hush"
        });
        let expected =
            json!({"server_name": "abydos", "enabled": true, "store": store, "san": ["m.example.org"]});
        assert_eq!(request.json(), expected);
    }

    #[test]
    fn a_name_is_said_once() {
        assert_eq!(url("etcd://a/", Some("x")).unwrap(), "etcd://a/x");
        assert_eq!(url("etcd://a/y", None).unwrap(), "etcd://a/y");
        assert!(url("etcd://a/y", Some("x")).is_err());
    }

    #[test]
    fn the_token_alone_is_printed_for_scripts() {
        let operation = Canned::json(
            202,
            r#"{"type":"async","status":"Operation created","status_code":100,"operation":"/1.0/operations/x","error_code":0,
                "error":"","metadata":{"id":"x","class":"token","metadata":{"serverName":"b","secret":"TOKEN"}}}"#,
        );
        let fake = Fake::start(vec![operation]);
        let (result, out) = fake.miharu(&["-q", "cluster", "add", "b"]);
        result.unwrap();
        assert_eq!(out, "TOKEN\n");
        assert_eq!(fake.requests()[0].json(), json!({"server_name": "b"}));
    }

    #[test]
    fn one_joins_and_leaves() {
        let fake = Fake::start(vec![
            Canned::empty(),
            Canned::sync(CLUSTER),
            Canned::empty(),
            Canned::error(400, "Server is not clustered"),
        ]);
        let (result, out) = fake.miharu(&["cluster", "join", "TOKEN"]);
        result.unwrap();
        assert_eq!(out, "This server is the member abydos of the cluster hdc.\n");
        fake.miharu(&["cluster", "leave", "--force", "--yes"]).0.unwrap();
        let requests = fake.requests();
        assert_eq!(requests[0].json()["cluster_token"], "TOKEN");
        assert_eq!(requests[2].json(), json!({"server_name": "", "enabled": false, "force": true}));
        let failure = fake.miharu(&["cluster", "leave"]).0.unwrap_err().to_string();
        assert_eq!(failure, "Server is not clustered");
        assert!(fake.miharu(&["cluster", "join", " "]).0.is_err());
    }
}
