//! The daemon's log as events, for as long as somebody reads it.

use std::collections::BTreeMap;
use std::fmt::Debug;

use miharu_api::Logging;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::dynamic_filter_fn;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use super::Events;

/// Turns the daemon's own log lines into events.
#[derive(Debug)]
pub(crate) struct LogEvents(Events);

impl LogEvents {
    /// The layer, which sleeps while nobody reads the log. What others' crates log stays out: it tells of connections,
    /// the reader's own among them, which would make a line for each line sent.
    pub(crate) fn layer<S>(events: Events) -> impl Layer<S> + Send + Sync
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        let hub = events.clone();
        let wanted = move |metadata: &Metadata<'_>, _: &Context<'_, S>| {
            hub.is_log_read() && *metadata.level() <= Level::DEBUG && metadata.target().starts_with("miharu")
        };
        Self(events).with_filter(dynamic_filter_fn(wanted).with_max_level_hint(LevelFilter::DEBUG))
    }
}

impl<S: Subscriber> Layer<S> for LogEvents {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let level = match *event.metadata().level() {
            Level::ERROR => "error",
            Level::WARN => "warning",
            Level::INFO => "info",
            _ => "debug",
        };
        self.0.logging(&Logging { level: level.to_owned(), message: fields.message, context: fields.others });
    }
}

#[derive(Debug, Default)]
struct Fields {
    message: String,
    others: BTreeMap<String, String>,
}

impl Fields {
    fn put(&mut self, field: &Field, value: String) {
        if field.name() == "message" {
            self.message = value;
        } else {
            self.others.insert(field.name().to_owned(), value);
        }
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.put(field, format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::super::{Next, Topic};
    use super::*;

    #[tokio::test]
    async fn a_line_of_the_log_is_an_event_for_those_who_read_it() {
        let events = Events::default();
        let subscriber = tracing_subscriber::registry().with(LogEvents::layer(events.clone()));
        let _log = tracing::subscriber::set_default(subscriber);
        tracing::info!("nobody reads this");
        let mut reader = events.subscribe(&[Topic::Logging]).unwrap();
        tracing::info!(target: "hyper", "somebody else's");
        tracing::warn!(instances = 3, name = "u1", "a {}", "line");
        let Next::Event(event) = reader.next().await else { panic!("no event") };
        let read: miharu_api::Event = serde_json::from_str(&event.text).unwrap();
        let expected = serde_json::json!({
            "level": "warning", "message": "a line", "context": {"instances": "3", "name": "u1"},
        });
        assert_eq!(read.metadata, expected);
    }
}
