//! `miharu config trust`: who may ask the server over the network.

mod certificate;

use std::io::Write;

use clap::{Args, Subcommand, ValueEnum};
use http::{Method, StatusCode};
use miharu_api::{Certificate, CertificatesPost};

use super::Context;
use crate::client::Ask;
use crate::error::Failure;
use crate::output::{self, Format, Rows};
use crate::remote;

/// What to do with the trust store.
#[derive(Debug, Subcommand)]
pub(crate) enum TrustCommand {
    /// Trust a certificate (the older word for add-certificate)
    Add(AddArgs),
    /// Trust a certificate
    AddCertificate(AddArgs),
    /// List the certificates that are trusted
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Print what is known of a certificate, as YAML
    Show(Fingerprint),
    /// Trust a certificate no longer
    #[command(visible_alias = "rm")]
    Remove(Fingerprint),
}

/// A certificate to trust.
#[derive(Debug, Args)]
#[command(after_help = "\
Make a key and its certificate for Prometheus, and trust it:
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:secp384r1 -sha384 \\
      -keyout metrics.key -nodes -out metrics.crt -days 3650 -subj \"/CN=metrics.local\"
  miharu config trust add-certificate metrics.crt --type=metrics

One that sees the instances of two projects only:
  miharu config trust add-certificate shop.crt --type=metrics \\
      --restricted --projects shop,lxc")]
pub(crate) struct AddArgs {
    /// The file of the certificate, PEM; - for the standard input
    #[arg(value_name = "FILE", num_args = 0..=2)]
    words: Vec<String>,
    /// What its holder may do
    #[arg(long = "type", value_name = "TYPE", default_value = "client")]
    kind: Kind,
    /// What to call it, instead of its file's name
    #[arg(long)]
    name: Option<String>,
    /// What to say of it
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// Limit it to some projects
    #[arg(long)]
    restricted: bool,
    /// The projects that a restricted certificate may see
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    projects: Vec<String>,
}

/// What the holder of a certificate may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Everything
    Client,
    /// Read /1.0/metrics, for Prometheus
    Metrics,
}

/// The form of the list.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    #[arg(hide = true)]
    remote: Option<String>,
    /// The form of the list
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    format: Format,
}

/// One certificate of the trust store.
#[derive(Debug, Args)]
pub(crate) struct Fingerprint {
    /// Its fingerprint, or as many of its first digits as only it has
    #[arg(value_name = "FINGERPRINT", required = true, num_args = 1..=2)]
    words: Vec<String>,
}

/// Does it.
pub(crate) async fn run(
    context: &Context<'_>,
    command: &TrustCommand,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    match command {
        TrustCommand::Add(args) | TrustCommand::AddCertificate(args) => add(context, args).await,
        TrustCommand::List(args) => list(context, args, out).await,
        TrustCommand::Show(fingerprint) => {
            let reply = context.client.send(Ask::new(Method::GET, &fingerprint.path()?)).await?;
            let certificate: Certificate =
                reply.metadata().map_err(|failure| absent(failure, reply.status))?;
            output::write_yaml(out, &certificate)
        }
        TrustCommand::Remove(fingerprint) => {
            let reply = context.client.send(Ask::new(Method::DELETE, &fingerprint.path()?)).await?;
            reply.check().map_err(|failure| absent(failure, reply.status))
        }
    }
}

/// Where no certificate has the fingerprint, what prints those there are.
fn absent(failure: Failure, status: StatusCode) -> Failure {
    match status {
        StatusCode::NOT_FOUND => Failure::request(format!(
            "{failure}\n`miharu config trust list` prints the fingerprints of those that are trusted."
        )),
        _ => failure,
    }
}

async fn add(context: &Context<'_>, args: &AddArgs) -> Result<(), Failure> {
    if !args.projects.is_empty() && !args.restricted {
        return Err(Failure::usage(
            "--projects limits nothing without --restricted: add --restricted, or leave --projects out",
        ));
    }
    let file = match remote::strip_leading(&args.words)? {
        [file] => remote::strip(file)?,
        [] => "",
        _ => return Err(Failure::usage("one certificate at a time, please")),
    };
    let found = certificate::read(file)?;
    let post = CertificatesPost {
        name: args.name.clone().unwrap_or(found.name),
        certificate_type: match args.kind {
            Kind::Client => "client".to_owned(),
            Kind::Metrics => "metrics".to_owned(),
        },
        restricted: args.restricted,
        projects: args.projects.clone(),
        certificate: found.base64,
        description: args.description.clone().unwrap_or_default(),
        ..CertificatesPost::default()
    };
    let reply = context.client.send(Ask::new(Method::POST, "/1.0/certificates").json(&post)?).await?;
    reply.check().map_err(|failure| match reply.status {
        StatusCode::NOT_FOUND => Failure::request(format!(
            "{failure}\nNothing was added. `miharu project list` prints the projects there are; a project whose instances \
             do not run yet is declared with `miharu project create NAME`."
        )),
        _ => failure,
    })
}

async fn list(context: &Context<'_>, args: &ListArgs, out: &mut dyn Write) -> Result<(), Failure> {
    args.remote.as_deref().map(remote::strip).transpose()?;
    let certificates: Vec<Certificate> = context.client.get("/1.0/certificates?recursion=1").await?;
    let rows = Rows {
        headers: vec!["TYPE", "NAME", "COMMON NAME", "FINGERPRINT", "ISSUE DATE", "EXPIRY DATE"],
        rows: certificates.iter().map(row).collect(),
    };
    output::write_list(out, args.format, &rows, &certificates)
}

fn row(certificate: &Certificate) -> Vec<String> {
    let read = certificate::describe(&certificate.certificate);
    let short = certificate.fingerprint.get(..12).unwrap_or(&certificate.fingerprint);
    vec![
        certificate.certificate_type.clone(),
        certificate.name.clone(),
        read.common_name,
        short.to_owned(),
        read.issued,
        read.expires,
    ]
}

impl Fingerprint {
    fn path(&self) -> Result<String, Failure> {
        let typed = match remote::strip_leading(&self.words)? {
            [typed] => remote::strip(typed)?,
            _ => return Err(Failure::usage("one fingerprint at a time, please")),
        };
        if typed.is_empty() || !typed.chars().all(|c| c.is_ascii_hexdigit()) {
            return Err(Failure::usage(format!(
                "'{typed}' is no fingerprint: give the first digits of one of `miharu config trust list`"
            )));
        }
        Ok(format!("/1.0/certificates/{}", typed.to_lowercase()))
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::certificate::tests::PEM;
    use super::*;
    use crate::testing::{Canned, Fake};

    fn file(name: &str, text: &str) -> (tempfile::TempDir, String) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        let path = path.to_str().unwrap().to_owned();
        (dir, path)
    }

    #[test]
    fn both_words_post_the_certificate_under_its_files_name() {
        for word in ["add", "add-certificate"] {
            let fake = Fake::start(vec![Canned::empty()]);
            let (_dir, path) = file("metrics.crt", PEM);
            let (result, out) = fake.miharu(&["config", "trust", word, &path, "--type=metrics"]);
            result.unwrap();
            assert_eq!(out, "");
            let requests = fake.requests();
            assert_eq!(requests[0].line(), "POST /1.0/certificates");
            let body = requests[0].json();
            assert_eq!(body["name"], "metrics.crt");
            assert_eq!(body["type"], "metrics");
            assert_eq!(body["restricted"], false);
            let base64: String = PEM.lines().filter(|line| !line.starts_with('-')).collect();
            assert_eq!(body["certificate"], base64);
        }
    }

    #[test]
    fn restrictions_are_sent() {
        let fake = Fake::start(vec![Canned::empty()]);
        let (_dir, path) = file("x.crt", PEM);
        let line = [
            "config",
            "trust",
            "add",
            &path,
            "--restricted",
            "--projects",
            "docker/shop,lxc",
            "--name",
            "shop",
        ];
        fake.miharu(&line).0.unwrap();
        let body = fake.requests()[0].json();
        assert_eq!(body["projects"], serde_json::json!(["docker/shop", "lxc"]));
        assert_eq!((&body["name"], &body["type"]), (&"shop".into(), &"client".into()));
    }

    #[test]
    fn projects_alone_would_limit_nothing() {
        let fake = Fake::start(vec![]);
        let (_dir, path) = file("x.crt", PEM);
        let failure = fake.miharu(&["config", "trust", "add", &path, "--projects", "a"]).0.unwrap_err();
        assert!(matches!(&failure, Failure::Usage(m) if m.contains("--restricted")), "{failure}");
    }

    #[test]
    fn an_unknown_project_is_told_with_what_to_do() {
        let fake = Fake::start(vec![Canned::error(404, "Project not found")]);
        let (_dir, path) = file("x.crt", PEM);
        let line = ["config", "trust", "add", &path, "--restricted", "--projects", "nix"];
        let failure = fake.miharu(&line).0.unwrap_err().to_string();
        assert!(
            failure.starts_with("Project not found\n") && failure.contains("project create"),
            "{failure}"
        );
    }

    #[test]
    fn the_list_has_the_columns_of_the_clients() {
        let pem = PEM.replace('\n', "\\n");
        let certificates = format!(
            r#"[{{"name":"metrics.crt","type":"metrics","restricted":false,"projects":[],"certificate":"{pem}","fingerprint":"0123456789abcdef"}}]"#
        );
        let fake = Fake::start(vec![Canned::sync(&certificates), Canned::sync(&certificates)]);
        let (result, out) = fake.miharu(&["config", "trust", "list"]);
        result.unwrap();
        assert_eq!(fake.requests()[0].line(), "GET /1.0/certificates?recursion=1");
        expect![[r#"
            +---------+-------------+---------------+--------------+------------------------------+------------------------------+
            |   TYPE  |     NAME    |  COMMON NAME  |  FINGERPRINT |          ISSUE DATE          |          EXPIRY DATE         |
            +---------+-------------+---------------+--------------+------------------------------+------------------------------+
            | metrics | metrics.crt | metrics.local | 0123456789ab | Nov 21, 2026 at 9:02pm (UTC) | Nov 18, 2036 at 9:02pm (UTC) |
            +---------+-------------+---------------+--------------+------------------------------+------------------------------+
        "#]].assert_eq(&out);
        expect![[r#"
            metrics,metrics.crt,metrics.local,0123456789ab,"Nov 21, 2026 at 9:02pm (UTC)","Nov 18, 2036 at 9:02pm (UTC)"
        "#]].assert_eq(&fake.miharu(&["config", "trust", "list", "-f", "csv"]).1);
    }

    #[test]
    fn an_unknown_fingerprint_is_told_with_what_to_do() {
        for word in ["show", "remove"] {
            let fake = Fake::start(vec![Canned::error(404, "Certificate not found")]);
            let failure = fake.miharu(&["config", "trust", word, "ab"]).0.unwrap_err().to_string();
            assert!(
                failure.starts_with("Certificate not found\n") && failure.contains("config trust list"),
                "{failure}"
            );
        }
    }

    #[test]
    fn fingerprints_are_checked() {
        let fake = Fake::start(vec![Canned::empty(), Canned::sync(r#"{"name":"a","fingerprint":"ab12"}"#)]);
        fake.miharu(&["config", "trust", "remove", "AB12"]).0.unwrap();
        let (result, out) = fake.miharu(&["config", "trust", "show", "local:ab"]);
        result.unwrap();
        assert!(out.contains("fingerprint: ab12"), "{out}");
        assert_eq!(fake.requests()[0].line(), "DELETE /1.0/certificates/ab12");
        let failure = fake.miharu(&["config", "trust", "remove", "metrics.crt"]).0.unwrap_err();
        assert!(failure.to_string().contains("is no fingerprint"), "{failure}");
    }
}
