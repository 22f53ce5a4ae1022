//! The log, on standard error.

use anyhow::{Context, bail};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::args::LogFormat;
use crate::events::{Events, LogEvents};

/// Starts the log. `level` is a level or a filter of tracing's; `events` get the lines too, while somebody listens.
pub(crate) fn start(level: &str, format: LogFormat, events: Events) -> anyhow::Result<()> {
    check(level)?;
    // That the schema was brought up to date is no news for an operator, and of what a peer does wrong rustls would tell as often
    // as the peer does it.
    let filter = EnvFilter::try_new(format!("rusqlite_migration=warn,rustls=error,{level}"))
        .with_context(|| format!("--log-level {level}"))?;
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match format {
        LogFormat::Text => {
            let colours = std::io::IsTerminal::is_terminal(&std::io::stderr())
                && std::env::var_os("NO_COLOR").is_none();
            lines.with_ansi(colours).with_target(false).with_filter(filter).boxed()
        }
        LogFormat::Json => lines.json().flatten_event(true).with_filter(filter).boxed(),
    };
    let log = tracing_subscriber::registry().with(lines).with(LogEvents::layer(events));
    log.try_init().map_err(|error| anyhow::anyhow!("{error}"))
}

/// A filter takes a mistyped level for the name of a module, and would then log nothing at all without a word.
fn check(level: &str) -> anyhow::Result<()> {
    for part in level.split(',').map(str::trim) {
        if !part.contains('=') && (part.is_empty() || part.parse::<LevelFilter>().is_err()) {
            bail!(
                "--log-level: '{part}' is no level: expected error, warn, info, debug or trace, or a filter such as \
                 info,miharu_collect=debug"
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_level_is_told() {
        for level in ["info", "WARN", "off", "info,miharu_collect=debug", "miharu_collect=trace"] {
            assert!(check(level).is_ok(), "{level}");
        }
        for level in ["", "verbose", "inof,miharu_collect=debug", "info,"] {
            assert!(check(level).is_err(), "{level}");
        }
    }
}
