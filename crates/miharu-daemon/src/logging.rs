//! The log, on standard error.

use anyhow::Context;
use tracing_subscriber::EnvFilter;

use crate::args::LogFormat;

/// Starts the log. `level` is a level or a filter of tracing's.
pub(crate) fn start(level: &str, format: LogFormat) -> anyhow::Result<()> {
    // That the schema was brought up to date is no news for an operator.
    let filter = EnvFilter::try_new(format!("rusqlite_migration=warn,{level}"))
        .with_context(|| format!("--log-level {level}"))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => {
            let colours = std::io::IsTerminal::is_terminal(&std::io::stderr())
                && std::env::var_os("NO_COLOR").is_none();
            builder.with_ansi(colours).with_target(false).try_init()
        }
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    }
    .map_err(|error| anyhow::anyhow!("{error}"))
}
