//! `miharu cluster`: servers that share one trust and one configuration, kept in etcd.

mod membership;
mod store;

use std::io::Write;

use clap::{Args, Subcommand};
use http::{Method, StatusCode};
use miharu_api::{Cluster, ClusterCertificatePut, ClusterMember};

use super::Context;
use super::operation::moment;
use crate::client::{Ask, encoded};
use crate::error::Failure;
use crate::output::{self, Format, Rows};
use crate::remote;

/// What to do with the cluster.
#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// List the members of the cluster
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Print what is known of a member, as YAML
    Show(MemberArgs),
    /// Make a cluster, with this server as its first member
    Enable(membership::EnableArgs),
    /// Make a token by which another server joins
    Add(membership::AddArgs),
    /// Make this server a member of the cluster that a token is of
    Join(membership::JoinArgs),
    /// Make this server one of its own again
    Leave(membership::LeaveArgs),
    /// Take a member out of the cluster, whether it is there or not
    #[command(visible_alias = "rm")]
    Remove(RemoveArgs),
    /// List the tokens that were not used yet
    ListTokens(ListArgs),
    /// Take a token back that was not used yet
    RevokeToken(MemberArgs),
    /// Replace the certificate that all members serve with
    #[command(visible_alias = "update-cert")]
    UpdateCertificate(CertificateArgs),
}

/// The form of a list.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    #[arg(hide = true)]
    remote: Option<String>,
    /// The form of the list
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    format: Format,
}

/// A member.
#[derive(Debug, Args)]
pub(crate) struct MemberArgs {
    /// Its name
    #[arg(value_name = "NAME")]
    name: String,
}

/// A member that goes.
#[derive(Debug, Args)]
#[command(after_help = "\
It is trusted by no other member from then on. What it knows of the cluster it still knows: its certificate's key among it.
`miharu cluster update-certificate` makes that worthless.")]
pub(crate) struct RemoveArgs {
    /// Its name
    #[arg(value_name = "NAME")]
    name: String,
    /// Accepted for users of Incus and LXD: a member goes whether it is there or not
    #[arg(short, long, hide = true)]
    force: bool,
    /// Accepted for users of Incus and LXD: nothing is asked back
    #[arg(long, hide = true)]
    yes: bool,
}

/// A certificate and its key, or none for new ones.
#[derive(Debug, Args)]
#[command(after_help = "\
It reaches every member at once, without a restart. Prometheus needs the new cluster.crt as its ca_file: until then its scrapes fail.

Examples:
  miharu cluster update-certificate cluster.crt cluster.key
  miharu cluster update-certificate                          Makes one for the members that there are
  miharu cluster update-certificate --san '*.example.org'")]
pub(crate) struct CertificateArgs {
    /// The certificate, a file in PEM form
    #[arg(value_name = "CERTIFICATE", requires = "key")]
    certificate: Option<String>,
    /// Its key, a file in PEM form
    #[arg(value_name = "KEY")]
    key: Option<String>,
    /// A further name or address for a certificate that is made; may be given several times
    #[arg(long, value_name = "NAME", conflicts_with = "certificate")]
    san: Vec<String>,
}

/// Does it.
pub(crate) async fn run(
    context: &Context<'_>,
    command: &ClusterCommand,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    match command {
        ClusterCommand::List(args) => list(context, args, out).await,
        ClusterCommand::Show(args) => {
            let reply = context.client.send(Ask::new(Method::GET, &path(&args.name)?)).await?;
            let member: ClusterMember = reply.metadata().map_err(|failure| absent(failure, reply.status))?;
            output::write_yaml(out, &member)
        }
        ClusterCommand::Enable(args) => membership::enable(context, args, out).await,
        ClusterCommand::Add(args) => membership::add(context, args, out).await,
        ClusterCommand::Join(args) => membership::join(context, args, out).await,
        ClusterCommand::Leave(args) => membership::leave(context, args, out).await,
        ClusterCommand::Remove(args) => remove(context, args, out).await,
        ClusterCommand::ListTokens(args) => list_tokens(context, args, out).await,
        ClusterCommand::RevokeToken(args) => revoke_token(context, args, out).await,
        ClusterCommand::UpdateCertificate(args) => update_certificate(context, args, out).await,
    }
}

/// The cluster, or the words of the originals where there is none.
async fn cluster(context: &Context<'_>) -> Result<Cluster, Failure> {
    let cluster: Cluster = context.client.get("/1.0/cluster").await?;
    if cluster.enabled { Ok(cluster) } else { Err(Failure::request("Server isn't part of a cluster")) }
}

fn path(name: &str) -> Result<String, Failure> {
    match remote::strip(name)? {
        "" => Err(Failure::usage("the name of a member is empty")),
        name => Ok(format!("/1.0/cluster/members/{}", encoded(name))),
    }
}

fn absent(failure: Failure, status: StatusCode) -> Failure {
    match status {
        StatusCode::NOT_FOUND => {
            Failure::request(format!("{failure}\n`miharu cluster list` prints the members there are."))
        }
        _ => failure,
    }
}

async fn list(context: &Context<'_>, args: &ListArgs, out: &mut dyn Write) -> Result<(), Failure> {
    args.remote.as_deref().map(remote::strip).transpose()?;
    cluster(context).await?;
    let members: Vec<ClusterMember> = context.client.get("/1.0/cluster/members?recursion=1").await?;
    let row = |member: &ClusterMember| {
        vec![
            member.server_name.clone(),
            member.url.clone(),
            member.version.clone(),
            member.instances.map(|count| count.to_string()).unwrap_or_default(),
            member.status.to_uppercase(),
            moment(&member.last_seen_at),
            member.message.clone(),
        ]
    };
    let rows = Rows {
        headers: vec!["NAME", "URL", "VERSION", "INSTANCES", "STATE", "LAST SEEN", "MESSAGE"],
        rows: members.iter().map(row).collect(),
    };
    output::write_list(out, args.format, &rows, &members)
}

async fn list_tokens(context: &Context<'_>, args: &ListArgs, out: &mut dyn Write) -> Result<(), Failure> {
    args.remote.as_deref().map(remote::strip).transpose()?;
    let tokens = cluster(context).await?.invitations;
    let rows = tokens
        .iter()
        .map(|token| vec![token.server_name.clone(), moment(&token.created_at), moment(&token.expires_at)]);
    let rows = Rows { headers: vec!["NAME", "CREATED AT", "EXPIRES AT"], rows: rows.collect() };
    output::write_list(out, args.format, &rows, &tokens)
}

async fn revoke_token(context: &Context<'_>, args: &MemberArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let name = remote::strip(&args.name)?;
    let tokens = cluster(context).await?.invitations;
    let Some(token) = tokens.iter().find(|token| token.server_name == name) else {
        return Err(Failure::request(format!(
            "there is no join token for a member {name}\n`miharu cluster list-tokens` prints those there are."
        )));
    };
    let path = format!("/1.0/operations/{}", encoded(&token.id));
    context.client.send(Ask::new(Method::DELETE, &path)).await?.check()?;
    context.say(out, &format!("Cluster join token for {name} deleted"))
}

async fn remove(context: &Context<'_>, args: &RemoveArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let reply = context.client.send(Ask::new(Method::DELETE, &path(&args.name)?)).await?;
    reply.check().map_err(|failure| absent(failure, reply.status))?;
    context.say(out, &format!("Member {} removed", remote::strip(&args.name)?))
}

async fn update_certificate(
    context: &Context<'_>,
    args: &CertificateArgs,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let read = |file: &Option<String>| file.as_deref().map_or_else(|| Ok(String::new()), store::file);
    let body = ClusterCertificatePut {
        cluster_certificate: read(&args.certificate)?,
        cluster_certificate_key: read(&args.key)?,
        san: args.san.clone(),
    };
    let ask =
        Ask::new(Method::PUT, "/1.0/cluster/certificate").json(&body)?.saying("Replacing the certificate");
    context.client.send(ask).await?.check()?;
    let file = context.client.dir().join("cluster.crt");
    let text = format!(
        "Successfully updated cluster certificates\nCopy {} to every Prometheus that has the old one as its ca_file: until then \
         its scrapes fail.",
        file.display()
    );
    context.say(out, &text)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use crate::testing::{Canned, Fake};

    const CLUSTER: &str = r#"{"server_name":"abydos","enabled":true,"member_config":[],"invitations":[
        {"id":"u-1","server_name":"dakara","created_at":"2026-11-21T23:52:10Z","expires_at":"2026-11-22T02:52:10Z"}]}"#;

    #[test]
    fn a_lone_server_says_so() {
        let fake =
            Fake::start(vec![Canned::sync(r#"{"server_name":"","enabled":false,"member_config":[]}"#)]);
        let failure = fake.miharu(&["cluster", "list"]).0.unwrap_err().to_string();
        assert_eq!(failure, "Server isn't part of a cluster");
        assert_eq!(fake.requests()[0].line(), "GET /1.0/cluster");
    }

    #[test]
    fn members_are_listed_with_what_they_said_last() {
        let members = r#"[
            {"server_name":"abydos","url":"https://192.0.2.1:8443","status":"Online","message":"Fully operational","version":"0.1.0",
             "instances":2,"last_seen_at":"2026-11-21T23:52:10Z"},
            {"server_name":"langara","url":"","status":"Offline","message":"It was never seen"}]"#;
        let fake = Fake::start(vec![Canned::sync(CLUSTER), Canned::sync(members)]);
        let (result, out) = fake.miharu(&["cluster", "list", "--format", "csv"]);
        result.unwrap();
        assert_eq!(fake.requests()[1].line(), "GET /1.0/cluster/members?recursion=1");
        expect![[r#"
            abydos,https://192.0.2.1:8443,0.1.0,2,ONLINE,2026/11/21 23:52 UTC,Fully operational
            langara,,,,OFFLINE,,It was never seen
        "#]]
        .assert_eq(&out);
    }

    #[test]
    fn one_is_shown_and_removed() {
        let fake = Fake::start(vec![
            Canned::sync(r#"{"server_name":"b","status":"Online","instances":3}"#),
            Canned::empty(),
            Canned::error(404, "Cluster member not found"),
        ]);
        let (result, out) = fake.miharu(&["cluster", "show", "local:b"]);
        result.unwrap();
        assert!(out.contains("server_name: b\n") && out.contains("instances: 3\n"), "{out}");
        let (result, out) = fake.miharu(&["cluster", "remove", "--force", "--yes", "b"]);
        result.unwrap();
        assert_eq!(out, "Member b removed\n");
        let failure = fake.miharu(&["cluster", "rm", "x"]).0.unwrap_err().to_string();
        assert!(failure.starts_with("Cluster member not found\n"), "{failure}");
        let lines: Vec<_> = fake.requests().iter().map(|request| request.line()).collect();
        let path = |method: &str, name: &str| format!("{method} /1.0/cluster/members/{name}");
        assert_eq!(lines, [path("GET", "b"), path("DELETE", "b"), path("DELETE", "x")]);
    }

    #[test]
    fn tokens_are_listed_without_what_they_are_worth() {
        let fake = Fake::start(vec![Canned::sync(CLUSTER)]);
        let (result, out) = fake.miharu(&["cluster", "list-tokens", "-f", "csv"]);
        result.unwrap();
        assert_eq!(out, "dakara,2026/11/21 23:52 UTC,2026/11/22 02:52 UTC\n");
    }

    #[test]
    fn a_token_is_taken_back_by_the_name_that_it_is_for() {
        let fake = Fake::start(vec![Canned::sync(CLUSTER), Canned::empty(), Canned::sync(CLUSTER)]);
        fake.miharu(&["cluster", "revoke-token", "dakara"]).0.unwrap();
        assert_eq!(fake.requests()[1].line(), "DELETE /1.0/operations/u-1");
        let failure = fake.miharu(&["cluster", "revoke-token", "x"]).0.unwrap_err().to_string();
        assert!(failure.contains("list-tokens"), "{failure}");
    }

    #[test]
    fn a_certificate_comes_from_files_or_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let (crt, key) = (dir.path().join("a.crt"), dir.path().join("a.key"));
        std::fs::write(&crt, "CRT").unwrap();
        std::fs::write(&key, "KEY").unwrap();
        let fake = Fake::start(vec![Canned::empty(), Canned::empty()]);
        let line = ["cluster", "update-certificate", crt.to_str().unwrap(), key.to_str().unwrap()];
        let (result, out) = fake.miharu(&line);
        result.unwrap();
        assert!(
            out.starts_with("Successfully updated") && out.contains("cluster.crt to every Prometheus"),
            "{out}"
        );
        fake.miharu(&["cluster", "update-cert", "--san", "m.example.org"]).0.unwrap();
        let requests = fake.requests();
        assert_eq!(requests[0].line(), "PUT /1.0/cluster/certificate");
        let given = serde_json::json!({"cluster_certificate": "CRT", "cluster_certificate_key": "KEY"});
        assert_eq!(requests[0].json(), given);
        let made = serde_json::json!({
            "cluster_certificate": "", "cluster_certificate_key": "", "san": ["m.example.org"]
        });
        assert_eq!(requests[1].json(), made);
    }
}
