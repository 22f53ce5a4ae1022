//! `miharu version`: of this program and of the server.

use std::io::Write;

use clap::Args;
use miharu_api::Server;

use super::Context;
use crate::error::Failure;
use crate::remote;

/// `local:`, as users of Incus and LXD may write it.
#[derive(Debug, Args)]
pub(crate) struct VersionArgs {
    #[arg(hide = true)]
    remote: Option<String>,
}

/// Asks and prints. A server that cannot be reached is no failure here: the version of this program is an answer too.
pub(crate) async fn run(
    context: &Context<'_>,
    args: &VersionArgs,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    args.remote.as_deref().map(remote::strip).transpose()?;
    let server = match context.client.get::<Server>("/1.0").await {
        Ok(server) => server.environment.unwrap_or_default().server_version,
        Err(_) => "unreachable".to_owned(),
    };
    writeln!(out, "Client version: {}", env!("CARGO_PKG_VERSION"))?;
    Ok(writeln!(out, "Server version: {server}")?)
}

#[cfg(test)]
mod tests {
    use crate::testing::{Canned, Fake};

    #[test]
    fn both_are_printed() {
        let fake = Fake::start(vec![Canned::sync(r#"{"environment":{"server_version":"9.8.7"}}"#)]);
        let (result, out) = fake.miharu(&["version"]);
        result.unwrap();
        assert_eq!(out, format!("Client version: {}\nServer version: 9.8.7\n", env!("CARGO_PKG_VERSION")));
    }

    #[test]
    fn a_server_that_is_down_is_unreachable() {
        let (result, out) = Fake::start(vec![]).miharu(&["version"]);
        result.unwrap();
        assert!(out.ends_with("Server version: unreachable\n"), "{out}");
    }
}
