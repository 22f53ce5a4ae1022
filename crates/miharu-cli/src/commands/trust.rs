//! `miharu config trust`: who may ask the server over the network.

mod certificate;
mod edit;
mod tokens;

use std::io::Write;

use clap::{Args, Subcommand, ValueEnum};
use http::{Method, StatusCode};
use miharu_api::{Certificate, CertificatesPost};

use super::Context;
use crate::client::{Ask, Reply};
use crate::error::Failure;
use crate::output::{self, Format, Rows};
use crate::remote;

/// What to do with the trust store.
#[derive(Debug, Subcommand)]
pub(crate) enum TrustCommand {
    /// Make a join token, or trust the certificate in a file
    #[command(after_help = ADD_HELP)]
    Add(AddArgs),
    /// Trust a certificate
    #[command(after_help = ADD_CERTIFICATE_HELP)]
    AddCertificate(AddArgs),
    /// Make a bearer token, for a scraper that cannot show a certificate
    AddToken(tokens::AddArgs),
    /// List the certificates and bearer tokens that are trusted
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// List the join tokens that were not used yet
    ListTokens(ListArgs),
    /// Take a join token back
    RevokeToken(tokens::Name),
    /// Print what is known of a certificate, as YAML
    Show(Fingerprint),
    /// Change what is known of a certificate, in an editor or from the standard input
    Edit(Fingerprint),
    /// Trust a certificate or a bearer token no longer
    #[command(visible_alias = "rm")]
    Remove(Fingerprint),
}

const ADD_HELP: &str = "\
A join token lets its holder's own client add its own certificate, once:
  miharu config trust add --name laptop
  incus remote add myserver TOKEN        (on the laptop; or lxc remote add)

With a file it is add-certificate:
  miharu config trust add metrics.crt --type=metrics";

const ADD_CERTIFICATE_HELP: &str = "\
Make a key and its certificate for Prometheus, and trust it:
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:secp384r1 -sha384 \\
      -keyout metrics.key -nodes -out metrics.crt -days 3650 -subj \"/CN=metrics.local\"
  miharu config trust add-certificate metrics.crt --type=metrics

One that sees the instances of two projects only:
  miharu config trust add-certificate shop.crt --type=metrics \\
      --restricted --projects shop,lxc";

/// Whom to trust.
#[derive(Debug, Args)]
pub(crate) struct AddArgs {
    /// The file of the certificate, PEM; - for the standard input. With add also the name of a join token
    #[arg(value_name = "FILE", num_args = 0..=2)]
    words: Vec<String>,
    /// What its holder may do
    #[arg(long = "type", value_name = "TYPE", default_value = "client")]
    kind: Kind,
    /// What to call it, instead of its file's name; without a file, the name of a join token
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
        TrustCommand::Add(args) => match args.token_name()? {
            Some(name) => tokens::join(context, args.post(name.to_owned(), String::new())?, out).await,
            None => add(context, args).await,
        },
        TrustCommand::AddCertificate(args) => add(context, args).await,
        TrustCommand::AddToken(args) => tokens::add(context, args, out).await,
        TrustCommand::List(args) => list(context, args, out).await,
        TrustCommand::ListTokens(args) => tokens::list(context, args, out).await,
        TrustCommand::RevokeToken(name) => tokens::revoke(context, name.get()?, out).await,
        TrustCommand::Edit(fingerprint) => edit::run(context, &fingerprint.path()?).await,
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
        // A project that is not found is another matter.
        StatusCode::NOT_FOUND if failure.to_string().starts_with("Certificate") => Failure::request(format!(
            "{failure}\n`miharu config trust list` prints the fingerprints of those that are trusted."
        )),
        _ => failure,
    }
}

async fn add(context: &Context<'_>, args: &AddArgs) -> Result<(), Failure> {
    let found = certificate::read(args.file()?)?;
    let name = args.name.clone().unwrap_or(found.name);
    send(context, &args.post(name, found.base64)?).await.map(drop)
}

/// Asks the server to trust somebody.
async fn send(context: &Context<'_>, post: &CertificatesPost) -> Result<Reply, Failure> {
    let reply = context.client.send(Ask::new(Method::POST, "/1.0/certificates").json(post)?).await?;
    match reply.check() {
        Ok(()) => Ok(reply),
        Err(failure) if reply.status == StatusCode::NOT_FOUND => Err(Failure::request(format!(
            "{failure}\nNothing was added. `miharu project list` prints the projects there are; a project whose instances \
             do not run yet is declared with `miharu project create NAME`."
        ))),
        Err(failure) => Err(failure),
    }
}

fn check_projects(projects: &[String], restricted: Restriction) -> Result<(), Failure> {
    if !projects.is_empty() && restricted == Restriction::None {
        return Err(Failure::usage(
            "--projects limits nothing without --restricted: add --restricted, or leave --projects out",
        ));
    }
    Ok(())
}

/// Whether `--restricted` was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Restriction {
    None,
    Projects,
}

impl Restriction {
    fn of(flag: bool) -> Self {
        if flag { Self::Projects } else { Self::None }
    }
}

impl AddArgs {
    /// The word that names a file, or a token; empty where there is none.
    fn file(&self) -> Result<&str, Failure> {
        match remote::strip_leading(&self.words)? {
            [file] => remote::strip(file),
            [] => Ok(""),
            _ => Err(Failure::usage("one certificate at a time, please")),
        }
    }

    /// The name of the join token that is wanted, if it is one: as in Incus, a word that is no file and looks like no path.
    fn token_name(&self) -> Result<Option<&str>, Failure> {
        Ok(match (self.file()?, self.name.as_deref()) {
            ("", Some(name)) => Some(name),
            ("", None) => {
                return Err(Failure::usage(
                    "name a join token (`miharu config trust add NAME`), or give the file of a certificate",
                ));
            }
            (word, name) if certificate::is_a_name(word) => match name {
                None => Some(word),
                Some(_) => {
                    return Err(Failure::usage(format!(
                        "there is no file '{word}'; for a join token leave out either that word or --name"
                    )));
                }
            },
            _ => None,
        })
    }

    /// What to ask for: a certificate to be trusted, or a token where there is none.
    fn post(&self, name: String, certificate: String) -> Result<CertificatesPost, Failure> {
        check_projects(&self.projects, Restriction::of(self.restricted))?;
        Ok(CertificatesPost {
            name,
            certificate_type: self.kind.as_str().to_owned(),
            restricted: self.restricted,
            projects: self.projects.clone(),
            token: certificate.is_empty(),
            certificate,
            description: self.description.clone().unwrap_or_default(),
            ..CertificatesPost::default()
        })
    }
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Metrics => "metrics",
        }
    }
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
