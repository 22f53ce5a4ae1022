//! `miharu admin`: what only the host's own administrator asks of the daemon.

use std::io::Write;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use http::Method;

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
}

/// For how long.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  miharu admin waitready --timeout 30")]
pub(crate) struct WaitArgs {
    /// How long to wait; 0 is for ever
    #[arg(short, long, value_name = "SECONDS", default_value_t = 0)]
    timeout: u64,
}

/// Does it.
pub(crate) async fn run(
    context: &Context<'_>,
    command: &AdminCommand,
    _out: &mut dyn Write,
) -> Result<(), Failure> {
    match command {
        AdminCommand::Waitready(args) => wait(context, args.timeout).await,
    }
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
    fn it_gives_up_and_says_why() {
        let failure =
            Fake::start(vec![]).miharu(&["admin", "waitready", "-t", "1"]).0.unwrap_err().to_string();
        assert!(failure.starts_with("miharud is not ready after 1 s.\n"), "{failure}");
        assert!(failure.contains("is not running"), "{failure}");
    }
}
