//! Instances that appear and go, looked for as long as somebody wants to know.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use miharu_api::Lifecycle;
use miharu_instances::Chosen;
use serde_json::Value;
use tokio::time::MissedTickBehavior;

use super::Events;
use crate::app::App;
use crate::cache::Found;

/// The pause between two looks.
const PAUSE: Duration = Duration::from_secs(2);

/// Tells of instances that appear and go. Ends with the daemon.
pub(crate) async fn watch(app: Arc<App>) {
    let mut readers = app.events.watching();
    while readers.wait_for(|readers| *readers > 0).await.is_ok() {
        // Who was there before anybody listened is no news.
        let mut known: Option<(Seen, Arc<Chosen>)> = None;
        let mut pause = tokio::time::interval(PAUSE);
        pause.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while *readers.borrow_and_update() > 0 {
            pause.tick().await;
            let chosen = app.chosen();
            match app.finder.find(Arc::clone(&chosen)).await {
                Ok(found) => {
                    let now = Seen::of(&found);
                    // Nor is what the server keys leave out since, or no longer leave out.
                    if let Some((before, _)) = known.take().filter(|(_, of)| *of == chosen) {
                        tell(&app.events, &before, &now);
                    }
                    known = Some((now, chosen));
                }
                Err(error) => tracing::debug!("no look for instances: {error}"),
            }
        }
    }
}

/// Who runs: an instance, and the process that it is this time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Seen(BTreeMap<(String, String, &'static str), Found>);

impl Seen {
    fn of(found: &[Found]) -> Self {
        let key = |instance: &Found| {
            (instance.project.clone(), instance.name.clone(), instance.instance_type.as_str())
        };
        Self(found.iter().map(|instance| (key(instance), instance.clone())).collect())
    }

    /// Those of this that are not in the other, or as another process.
    fn without<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = &'a Found> {
        let same = |key, instance: &Found| {
            other.0.get(key).is_some_and(|known: &Found| known.pid == instance.pid && known.id == instance.id)
        };
        self.0.iter().filter(move |(key, instance)| !same(*key, instance)).map(|(_, instance)| instance)
    }
}

fn tell(events: &Events, before: &Seen, now: &Seen) {
    for gone in before.without(now) {
        events.lifecycle(Some(&gone.project), &lifecycle("instance-stopped", gone));
    }
    for new in now.without(before) {
        events.lifecycle(Some(&new.project), &lifecycle("instance-started", new));
    }
}

fn lifecycle(action: &str, instance: &Found) -> Lifecycle {
    let context = [("runtime", instance.runtime.as_str()), ("type", instance.instance_type.as_str())];
    let context = context.map(|(key, value)| (key.to_owned(), Value::from(value)));
    Lifecycle {
        action: action.to_owned(),
        source: crate::routes::instance_path(instance),
        context: context.into(),
        requestor: None,
    }
}

#[cfg(test)]
mod tests {
    use miharu_metrics::InstanceType;

    use super::super::{Next, Topic};
    use super::*;

    fn found(name: &str, pid: u32) -> Found {
        Found {
            project: "lxc".to_owned(),
            name: name.to_owned(),
            instance_type: InstanceType::Container,
            runtime: "lxc".to_owned(),
            id: name.to_owned(),
            image: None,
            pid: Some(pid),
        }
    }

    #[tokio::test]
    async fn what_came_went_or_was_started_again_is_told() {
        let events = Events::default();
        let mut reader = events.subscribe(&[Topic::Lifecycle]).unwrap();
        let before = Seen::of(&[found("same", 1), found("gone", 2), found("again", 3)]);
        tell(&events, &before, &Seen::of(&[found("same", 1), found("again", 4), found("new", 5)]));
        let mut told = Vec::new();
        for _ in 0..4 {
            let Next::Event(event) = reader.next().await else { panic!("no event") };
            assert_eq!(event.project.as_deref(), Some("lxc"));
            let read: miharu_api::Event = serde_json::from_str(&event.text).unwrap();
            let lifecycle: Lifecycle = serde_json::from_value(read.metadata).unwrap();
            assert_eq!(lifecycle.context["runtime"], "lxc");
            told.push((lifecycle.action, lifecycle.source));
        }
        let expected = [
            ("instance-stopped", "again"),
            ("instance-stopped", "gone"),
            ("instance-started", "again"),
            ("instance-started", "new"),
        ];
        let expected =
            expected.map(|(action, name)| (action.to_owned(), format!("/1.0/instances/{name}?project=lxc")));
        assert_eq!(told, expected);
    }
}
