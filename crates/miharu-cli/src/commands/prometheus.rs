//! `miharu prometheus`: configuration for Prometheus, made for this server or its cluster.

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
    /// Print the job that scrapes this server or its cluster, for prometheus.yml
    ScrapeConfig(ScrapeArgs),
}

/// What the job is to be like.
#[derive(Debug, Args)]
#[command(after_help = "\
The files that it names are copied to a directory tls beside prometheus.yml; comments in it say which.

Examples:
  miharu prometheus scrape-config > prometheus.yml
  miharu prometheus scrape-config --token --project shop
  miharu prometheus scrape-config --cluster
  miharu prometheus scrape-config --target metrics.example.org:9100")]
pub(crate) struct ScrapeArgs {
    /// Show a bearer token instead of a client certificate
    #[arg(long)]
    token: bool,
    /// Where Prometheus reaches the server, if not under its own name and port
    #[arg(long, value_name = "HOST[:PORT]")]
    target: Option<String>,
    /// Scrape every member of the cluster, whoever they are at the time: Prometheus asks this one
    #[arg(long)]
    cluster: bool,
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
    let is_clustered = server.environment.is_some_and(|environment| environment.server_clustered);
    if args.cluster && !is_clustered {
        return Err(Failure::request("Server isn't part of a cluster"));
    }
    let certificate = if is_clustered { "cluster.crt" } else { "server.crt" };
    let text = job(args, context.project, &endpoint, context.client.dir(), certificate);
    Ok(out.write_all(text.as_bytes())?)
}

/// The job, as the whole of a configuration file or a part of one. `certificate` is the file in `dir` that the server shows.
fn job(
    args: &ScrapeArgs,
    project: Option<&str>,
    endpoint: &Endpoint,
    dir: &std::path::Path,
    certificate: &str,
) -> String {
    let mut text = String::new();
    let mut line = |words: &str| {
        text.push_str(words);
        text.push('\n');
    };
    line(&format!("# Copy {} to tls/{certificate} beside this file.", dir.join(certificate).display()));
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
    let mut access = Vec::new();
    if args.token {
        access.extend(["authorization:".to_owned(), "  credentials_file: 'tls/miharu.token'".to_owned()]);
    }
    access.extend(["tls_config:".to_owned(), format!("  ca_file: 'tls/{certificate}'")]);
    if !args.token {
        access.extend([
            "  cert_file: 'tls/metrics.crt'".to_owned(),
            "  key_file: 'tls/metrics.key'".to_owned(),
        ]);
    }
    access.push(format!("  server_name: {}", quoted(&endpoint.server_name)));
    if args.cluster {
        let url = format!("https://{}/1.0/discovery/prometheus", endpoint.target);
        line("    http_sd_configs:");
        line(&format!("      - url: {}", quoted(&url)));
        line("        refresh_interval: '30s'");
        access.iter().for_each(|words| line(&format!("        {words}")));
    } else {
        line("    static_configs:");
        line(&format!("      - targets: [{}]", quoted(&endpoint.target)));
    }
    access.iter().for_each(|words| line(&format!("    {words}")));
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
    fn a_cluster_is_asked_for_its_members() {
        let pem = endpoint::tests::PEM.replace('\n', "\\n");
        let server = format!(
            r#"{{"config":{{"core.metrics_address":"192.0.2.7:8444"}},"environment":{{"certificate":"{pem}","server_name":"langara",
                "server_clustered":true}}}}"#
        );
        let fake = Fake::start(vec![Canned::sync(&server), Canned::sync(&server.replace("true", "false"))]);
        let (result, out) = fake.miharu(&["prometheus", "scrape-config", "--cluster", "--token"]);
        result.unwrap();
        let (comments, job) = out.split_at(out.find("scrape_configs:").unwrap());
        assert!(comments.contains("cluster.crt to tls/cluster.crt"), "{comments}");
        expect![[r#"
            scrape_configs:
              - job_name: 'miharu'
                metrics_path: '/1.0/metrics'
                scheme: 'https'
                http_sd_configs:
                  - url: 'https://192.0.2.7:8444/1.0/discovery/prometheus'
                    refresh_interval: '30s'
                    authorization:
                      credentials_file: 'tls/miharu.token'
                    tls_config:
                      ca_file: 'tls/cluster.crt'
                      server_name: 'foo'
                authorization:
                  credentials_file: 'tls/miharu.token'
                tls_config:
                  ca_file: 'tls/cluster.crt'
                  server_name: 'foo'
        "#]]
        .assert_eq(job);
        let failure = fake.miharu(&["prometheus", "scrape-config", "--cluster"]).0.unwrap_err().to_string();
        assert_eq!(failure, "Server isn't part of a cluster");
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
