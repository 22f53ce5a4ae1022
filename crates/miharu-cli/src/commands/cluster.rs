//! `miharu cluster`: the servers that belong together. A lone one says so.

use std::io::Write;

use clap::{Args, Subcommand};
use miharu_api::Cluster;

use super::Context;
use crate::error::Failure;
use crate::remote;

/// What to do with the cluster.
#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// List the members of the cluster
    #[command(visible_alias = "ls")]
    List(ListArgs),
}

/// Nothing but a remote, for those who type one.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    #[arg(hide = true)]
    remote: Option<String>,
    /// Accepted for users of Incus and LXD: the form of the list
    #[arg(short, long, value_name = "FORMAT", hide = true)]
    format: Option<String>,
}

/// Does it.
pub(crate) async fn run(
    context: &Context<'_>,
    ClusterCommand::List(args): &ClusterCommand,
    _: &mut dyn Write,
) -> Result<(), Failure> {
    args.remote.as_deref().map(remote::strip).transpose()?;
    let cluster: Cluster = context.client.get("/1.0/cluster").await?;
    if cluster.enabled {
        return Err(Failure::request("the server is newer than this miharu: its cluster cannot be listed"));
    }
    Err(Failure::request("Server isn't part of a cluster"))
}

#[cfg(test)]
mod tests {
    use crate::testing::{Canned, Fake};

    #[test]
    fn a_lone_server_says_so() {
        let fake =
            Fake::start(vec![Canned::sync(r#"{"server_name":"","enabled":false,"member_config":[]}"#)]);
        let failure = fake.miharu(&["cluster", "list"]).0.unwrap_err().to_string();
        assert_eq!(failure, "Server isn't part of a cluster");
        assert_eq!(fake.requests()[0].line(), "GET /1.0/cluster");
    }
}
