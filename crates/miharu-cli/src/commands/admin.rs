//! `miharu admin`: what only the host's own administrator asks of the daemon.

mod doctor;

use std::io::Write;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use http::Method;
use miharu_api::{CertificateRenewal, RenewedCertificate};

use super::Context;
use crate::client::Ask;
use crate::error::Failure;

/// How often a daemon that is not ready is asked again.
const PAUSE: Duration = Duration::from_millis(100);

/// What to do with the daemon.
#[derive(Debug, Subcommand)]
pub(crate) enum AdminCommand {
    /// Wait until the daemon answers
    Waitready(WaitArgs),
    /// Make the server's certificate anew, for the names and addresses that the host has now
    RenewCertificate(RenewArgs),
    /// Tell what the daemon may do, what confines it, and what a missing thing costs
    Doctor(doctor::DoctorArgs),
}

/// For how long.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  miharu admin waitready --timeout 30")]
pub(crate) struct WaitArgs {
    /// How long to wait; 0 is for ever
    #[arg(short, long, value_name = "SECONDS", default_value_t = 0)]
    timeout: u64,
}

/// For which names.
#[derive(Debug, Args)]
#[command(after_help = "\
Everybody who scrapes with the old server.crt has to get the new one: until then their scrapes fail.

Example:
  miharu admin renew-certificate --san metrics.example.org --san 192.0.2.7")]
pub(crate) struct RenewArgs {
    /// A further name or address of this host; may be given several times
    #[arg(long, value_name = "NAME")]
    san: Vec<String>,
}

/// Does it.
pub(crate) async fn run(
    context: &Context<'_>,
    command: &AdminCommand,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    match command {
        AdminCommand::Waitready(args) => {
            let ready = wait(context, args.timeout);
            context.client.progress().during("Waiting until miharud is ready", ready).await
        }
        AdminCommand::RenewCertificate(args) => renew(context, args, out).await,
        AdminCommand::Doctor(args) => doctor::run(context, args, out).await,
    }
}

/// Asks for a new certificate, and tells who needs it.
async fn renew(context: &Context<'_>, args: &RenewArgs, out: &mut dyn Write) -> Result<(), Failure> {
    if args.san.iter().any(|name| name.trim().is_empty()) {
        return Err(Failure::usage("--san needs a name or an address"));
    }
    let body = CertificateRenewal { san: args.san.clone() };
    let ask = Ask::new(Method::POST, "/internal/renew-certificate").json(&body)?;
    let renewed: RenewedCertificate = context.client.send(ask).await?.metadata()?;
    let file = context.client.dir().join("server.crt");
    let text = format!(
        "The server has a new certificate, with the fingerprint {}.\nCopy {} to every Prometheus that has the old one \
         as its ca_file: until then its scrapes fail.",
        renewed.fingerprint,
        file.display()
    );
    context.say(out, &text)
}

/// Asks until the daemon is ready; then the last refusal tells why it is not.
async fn wait(context: &Context<'_>, timeout: u64) -> Result<(), Failure> {
    let end = (timeout > 0).then(|| Instant::now() + Duration::from_secs(timeout));
    loop {
        let left = end.map(|end| end.saturating_duration_since(Instant::now()));
        // Never zero, so that the last try can still tell why the daemon cannot be reached.
        let patience = left.unwrap_or(Duration::from_secs(5)).max(PAUSE);
        let ask = Ask::new(Method::GET, "/internal/ready");
        let Err(failure) = context.client.send_within(patience, ask).await.and_then(|reply| reply.check())
        else {
            return Ok(());
        };
        if left.is_some_and(|left| left.is_zero()) {
            return Err(Failure::request(format!("miharud is not ready after {timeout} s.\n{failure}")));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Canned, Fake};

    #[test]
    fn it_waits_until_the_daemon_is_ready() {
        let fake = Fake::start(vec![Canned::error(503, "not ready"), Canned::empty()]);
        fake.miharu(&["admin", "waitready", "--timeout", "20"]).0.unwrap();
        let requests = fake.requests();
        assert_eq!(requests.len(), 2);
        assert_eq!(requests[1].line(), "GET /internal/ready");
    }

    #[test]
    fn a_renewal_says_what_to_copy() {
        let fake = Fake::start(vec![Canned::sync(r#"{"certificate":"PEM","fingerprint":"abc"}"#)]);
        let (result, out) = fake.miharu(&["admin", "renew-certificate", "--san", "m.example.org"]);
        result.unwrap();
        assert!(out.contains("abc") && out.contains("server.crt to every Prometheus"), "{out}");
        let requests = fake.requests();
        assert_eq!(requests[0].line(), "POST /internal/renew-certificate");
        assert_eq!(requests[0].json(), serde_json::json!({ "san": ["m.example.org"] }));
    }

    #[test]
    fn it_gives_up_and_says_why() {
        let failure =
            Fake::start(vec![]).miharu(&["admin", "waitready", "-t", "1"]).0.unwrap_err().to_string();
        assert!(failure.starts_with("miharud is not ready after 1 s.\n"), "{failure}");
        assert!(failure.contains("is not running"), "{failure}");
    }
}
