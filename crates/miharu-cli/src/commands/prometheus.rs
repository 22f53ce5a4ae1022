//! `miharu prometheus`: configuration for Prometheus, made for this server.

mod endpoint;

use std::io::Write;

use clap::{Args, Subcommand};
use miharu_api::Server;

use super::Context;
use crate::error::Failure;
use endpoint::Endpoint;

/// What to make.
#[derive(Debug, Subcommand)]
pub(crate) enum PrometheusCommand {
    /// Print the job that scrapes this server, for prometheus.yml
    ScrapeConfig(ScrapeArgs),
}

/// What the job is to be like.
#[derive(Debug, Args)]
#[command(after_help = "\
The files that it names are copied to a directory tls beside prometheus.yml; comments in it say which.

Examples:
  miharu prometheus scrape-config > prometheus.yml
  miharu prometheus scrape-config --token --project shop
  miharu prometheus scrape-config --target metrics.example.org:9100")]
pub(crate) struct ScrapeArgs {
    /// Show a bearer token instead of a client certificate
    #[arg(long)]
    token: bool,
    /// Where Prometheus reaches the server, if not under its own name and port
    #[arg(long, value_name = "HOST[:PORT]")]
    target: Option<String>,
    /// The name of the job
    #[arg(long, value_name = "NAME", default_value = "miharu")]
    job: String,
}

/// Does it.
pub(crate) async fn run(
    context: &Context<'_>,
    command: &PrometheusCommand,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let PrometheusCommand::ScrapeConfig(args) = command;
    let server: Server = context.client.get("/1.0").await?;
    let endpoint = Endpoint::of(&server, args.target.as_deref())?;
    let certificate = context.client.dir().join("server.crt");
    let text = job(args, context.project, &endpoint, &certificate.display().to_string());
    Ok(out.write_all(text.as_bytes())?)
}

/// The job, as the whole of a configuration file or a part of one.
fn job(args: &ScrapeArgs, project: Option<&str>, endpoint: &Endpoint, certificate: &str) -> String {
    let mut text = String::new();
    let mut line = |words: &str| {
        text.push_str(words);
        text.push('\n');
    };
    line(&format!("# Copy {certificate} to tls/server.crt beside this file."));
    if args.token {
        line(
            "# Put the secret that `miharu config trust add-token NAME --type=metrics` prints into tls/miharu.token.",
        );
    } else {
        line(
            "# Put the certificate that `miharu config trust add-certificate metrics.crt --type=metrics` was given, and its",
        );
        line("# key, into tls/metrics.crt and tls/metrics.key.");
    }
    line("scrape_configs:");
    line(&format!("  - job_name: {}", quoted(&args.job)));
    line("    metrics_path: '/1.0/metrics'");
    line("    scheme: 'https'");
    let projects: Vec<&str> = project.into_iter().flat_map(|names| names.split(',')).map(str::trim).collect();
    if !projects.is_empty() {
        let projects: Vec<String> = projects.into_iter().map(quoted).collect();
        line("    params:");
        line(&format!("      project: [{}]", projects.join(", ")));
    }
    line("    static_configs:");
    line(&format!("      - targets: [{}]", quoted(&endpoint.target)));
    if args.token {
        line("    authorization:");
        line("      credentials_file: 'tls/miharu.token'");
    }
    line("    tls_config:");
    line("      ca_file: 'tls/server.crt'");
    if !args.token {
        line("      cert_file: 'tls/metrics.crt'");
        line("      key_file: 'tls/metrics.key'");
    }
    line(&format!("      server_name: {}", quoted(&endpoint.server_name)));
    text
}

/// A word as YAML, whatever it holds.
fn quoted(word: &str) -> String {
    if word.chars().any(char::is_control) {
        // JSON's form of a text is one of YAML's, too, and holds control characters.
        return serde_json::Value::from(word).to_string();
    }
    format!("'{}'", word.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::testing::{Canned, Fake};

    /// A server called foo, with the certificate of the tests of `endpoint`.
    fn server(config: &str) -> Canned {
        let pem = endpoint::tests::PEM.replace('\n', "\\n");
        Canned::sync(&format!(
            r#"{{"config":{config},"environment":{{"certificate":"{pem}","server_name":"foo"}}}}"#
        ))
    }

    #[test]
    fn the_job_names_what_the_server_has() {
        let fake =
            Fake::start(vec![server(r#"{"core.metrics_address":":8444","core.https_address":":8443"}"#)]);
        let (result, out) = fake.miharu(&["prometheus", "scrape-config"]);
        result.unwrap();
        let (comments, job) = out.split_at(out.find("scrape_configs:").unwrap());
        assert!(
            comments.contains("server.crt to tls/server.crt") && comments.contains("tls/metrics.key"),
            "{comments}"
        );
        expect![[r#"
            scrape_configs:
              - job_name: 'miharu'
                metrics_path: '/1.0/metrics'
                scheme: 'https'
                static_configs:
                  - targets: ['foo:8444']
                tls_config:
                  ca_file: 'tls/server.crt'
                  cert_file: 'tls/metrics.crt'
                  key_file: 'tls/metrics.key'
                  server_name: 'foo'
        "#]]
        .assert_eq(job);
    }

    #[test]
    fn a_token_and_projects_take_their_places() {
        let fake = Fake::start(vec![server(r#"{"core.https_address":"192.0.2.7"}"#)]);
        let line = ["prometheus", "scrape-config", "--token", "--project", "docker/shop,it's", "--job", "m"];
        let (result, out) = fake.miharu(&line);
        result.unwrap();
        let (comments, job) = out.split_at(out.find("scrape_configs:").unwrap());
        assert!(comments.contains("add-token") && comments.contains("tls/miharu.token"), "{comments}");
        expect![[r#"
            scrape_configs:
              - job_name: 'm'
                metrics_path: '/1.0/metrics'
                scheme: 'https'
                params:
                  project: ['docker/shop', 'it''s']
                static_configs:
                  - targets: ['192.0.2.7:8443']
                authorization:
                  credentials_file: 'tls/miharu.token'
                tls_config:
                  ca_file: 'tls/server.crt'
                  server_name: 'foo'
        "#]]
        .assert_eq(job);
    }

    #[test]
    fn without_a_listener_it_says_what_to_set() {
        let failure = Fake::start(vec![server("{}")])
            .miharu(&["prometheus", "scrape-config"])
            .0
            .unwrap_err()
            .to_string();
        assert!(failure.contains("core.metrics_address"), "{failure}");
    }

    #[test]
    fn words_stay_words() {
        assert_eq!(quoted("it's"), "'it''s'");
        assert_eq!(quoted("a\nb"), "\"a\\nb\"");
    }
}
