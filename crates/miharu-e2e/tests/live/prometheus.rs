//! Prometheus itself, over mutual TLS, configured as the README and the Incus page say; promtool; and the reference parser of
//! OpenMetrics.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use miharu_e2e::need::cache;
use miharu_e2e::prometheus::Prometheus;
use miharu_e2e::tls::Certificate;
use miharu_e2e::{Lxc, Miharud, need, scratch, shell, tls};

/// The README's configuration with two words filled in, the target and the server's name; and a second job for the text form.
fn config(address: &str, plain: &str) -> Result<String> {
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../README.md"))?;
    let (_, block) = readme.split_once("```yaml\n").context("README.md shows no YAML")?;
    let (block, _) = block.split_once("```").context("README.md does not end its YAML")?;
    ensure!(block.contains("foo.example.com:8444") && block.contains("server_name: 'foo'"), "{block}");
    let name = fs::read_to_string("/proc/sys/kernel/hostname")?;
    let block =
        block.replace("foo.example.com:8444", address).replace("'foo'", &format!("'{}'", name.trim()));
    Ok(format!(
        "global:\n  scrape_interval: 1s\n\n{block}  - job_name: text\n    metrics_path: '/1.0/metrics'\n    static_configs:\n      \
         - targets: ['{plain}']\n"
    ))
}

#[test]
fn the_readme_makes_the_certificate_with_the_line_that_the_tests_use() -> Result<()> {
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../README.md"))?;
    assert!(readme.contains(&tls::openssl_line("metrics")), "{}", tls::openssl_line("metrics"));
    assert!(readme.contains("miharu config trust add-certificate metrics.crt --type=metrics"));
    Ok(())
}

#[test]
fn prometheus_scrapes_both_formats_over_mutual_tls() -> Result<()> {
    need!(Prometheus, Lxc, Tls);
    let lxc = Lxc::start(&[])?;
    let daemon = Miharud::start()?;
    let dir = scratch::dir("prometheus")?;
    fs::create_dir(dir.join("tls"))?;
    let client = Certificate::create_in(&dir.join("tls"), "metrics")?;
    fs::copy(daemon.dir.join("server.crt"), dir.join("tls/server.crt"))?;
    let crt = client.crt.to_str().context("path")?;
    daemon.miharu(&["config", "trust", "add-certificate", crt, "--type=metrics"])?;
    let address = daemon.listen("core.metrics_address")?;
    // Debian's Prometheus asks for OpenMetrics first and cannot be told otherwise, so that something between asks for text.
    let plain = text_proxy(address.clone(), dir.join("tls/server.crt"), client)?;
    let prometheus = Prometheus::start(dir, &config(&address, &plain)?)?;
    for job in ["miharu", "text"] {
        let up = format!("up{{job=\"{job}\"}} == 1");
        shell::wait_for(job, Duration::from_secs(20), || {
            prometheus.query(&up).ok().filter(|found| !found.is_empty())
        })
        .with_context(|| format!("{:#?}", prometheus.targets()))?;
        let name = &lxc.name;
        for query in [
            format!("incus_procs_total{{job=\"{job}\",name=\"{name}\"}} > 0"),
            format!("incus_memory_MemTotal_bytes{{job=\"{job}\",name=\"{name}\",type=\"container\"}} > 0"),
            format!(
                "incus_memory_MemTotal_bytes{{job=\"{job}\",name=\"{name}\"}} - incus_memory_MemFree_bytes > 0"
            ),
        ] {
            assert_eq!(prometheus.query(&query)?.len(), 1, "{query}");
        }
        // Two scrapes are needed for a rate.
        let rate = format!("count(rate(incus_cpu_seconds_total{{job=\"{job}\",name=\"{name}\"}}[30s]))");
        shell::wait_for("a rate", Duration::from_secs(20), || {
            prometheus.query(&rate).ok().filter(|found| !found.is_empty())
        })?;
    }
    for target in prometheus.targets()? {
        assert_eq!(target["health"], "up", "{target}");
    }
    Ok(())
}

/// Answers plain HTTP with the text form fetched over TLS, for a thread's life.
fn text_proxy(address: String, server: std::path::PathBuf, client: Certificate) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let plain = listener.local_addr()?.to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let answer = || -> Result<()> {
                let mut stream = stream?;
                let mut request = [0; 4096];
                let _ = stream.read(&mut request)?;
                let reply = tls::ask(
                    &address,
                    "/1.0/metrics",
                    &server,
                    Some(&client),
                    &["-H", "Accept: text/plain"],
                )?;
                let kind = reply.headers.get("content-type").context("no content type")?;
                ensure!(kind == "text/plain; version=0.0.4; charset=utf-8", "{kind}");
                write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: {kind}\r\n\r\n")?;
                stream.write_all(&reply.body)?;
                Ok(())
            };
            // A failure shows as a target that is down.
            let _ = answer();
        }
    });
    Ok(plain)
}

/// Feeds a program and gives its status and what it complained of.
fn feed(program: &Path, args: &[&str], input: &[u8]) -> Result<(bool, String)> {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    child.stdin.take().context("stdin")?.write_all(input)?;
    let out = child.wait_with_output()?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    Ok((out.status.success(), text))
}

#[test]
fn promtool_complains_only_of_the_names_that_the_contract_fixes() -> Result<()> {
    need!(Prometheus, Lxc);
    let _lxc = Lxc::start(&[])?;
    let daemon = Miharud::start()?;
    let (_, complaints) =
        feed(Path::new("promtool"), &["check", "metrics"], &daemon.get("/1.0/metrics")?.body)?;
    let unexpected: Vec<_> = complaints
        .lines()
        .filter(|line| !line.trim().is_empty())
        .filter(|line| !line.ends_with("should be written in 'snake_case' not 'camelCase'"))
        .filter(|line| !line.ends_with("non-counter metrics should not have \"_total\" suffix"))
        .collect();
    assert!(unexpected.is_empty(), "{unexpected:#?}");
    assert!(complaints.contains("camelCase"), "promtool did not look: {complaints}");
    Ok(())
}

#[test]
fn the_reference_parser_reads_the_openmetrics_form() -> Result<()> {
    need!(Parser, Lxc);
    let lxc = Lxc::start(&[])?;
    let daemon = Miharud::start()?;
    let accept = ["Accept: application/openmetrics-text;version=1.0.0"];
    let reply = daemon.ask("GET", "/1.0/metrics", &accept, "")?;
    let kind = reply.headers.get("content-type").map(String::as_str);
    assert_eq!(kind, Some("application/openmetrics-text; version=1.0.0; charset=utf-8"));
    let script = "import sys\nfrom prometheus_client.openmetrics.parser import text_string_to_metric_families as parse\n\
                  families = list(parse(sys.stdin.read()))\n\
                  assert len(families) > 40, len(families)\n\
                  print(' '.join(s.labels.get('name', '') for f in families for s in f.samples))\n";
    let (good, text) = feed(&cache().join("venv/bin/python"), &["-c", script], &reply.body)?;
    assert!(good, "{text}\n{}", reply.text());
    assert!(text.contains(&lxc.name), "{text}");
    Ok(())
}

#[test]
fn compressed_answers_hold_the_same_text() -> Result<()> {
    need!(Tls);
    let daemon = Miharud::with(&[])?;
    let plain = daemon.get("/1.0/metrics")?;
    let coded = |coding: &str| -> Result<Vec<u8>> {
        let reply = daemon.ask("GET", "/1.0/metrics", &[&format!("Accept-Encoding: {coding}")], "")?;
        assert_eq!(reply.headers.get("content-encoding").map(String::as_str), Some(coding));
        assert!(reply.body.len() < plain.body.len(), "{coding}");
        Ok(reply.body)
    };
    let mut text = Vec::new();
    flate2::read::GzDecoder::new(coded("gzip")?.as_slice()).read_to_end(&mut text)?;
    assert_eq!(text, plain.body, "gzip");
    assert_eq!(zstd::decode_all(coded("zstd")?.as_slice())?, plain.body, "zstd");
    Ok(())
}
