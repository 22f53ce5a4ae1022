//! `/1.0/usage` and `/1.0/instances/NAME/history`: what instances use, as rates and levels, for who looks rather than computes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use http::{HeaderMap, StatusCode};
use miharu_api::usage::{FULL, NEW, OFF, RECENT, Unit};
use miharu_api::{History, InstanceUsage, Usage};
use miharu_metrics::{InstanceFigures, InstanceType};

use super::metrics::{elsewhere, right};
use crate::app::App;
use crate::auth::{Caller, MetricsRight};
use crate::cache::{Collected, Wish};
use crate::clock::Moment;
use crate::forward::Wanted;
use crate::respond::{Answer, ApiError, Name, Parameters, ok_compressed, path};
use crate::unread::Recipient;
use crate::usage::{
    Keep, RECENT_SLOTS, Recorded, Rings, SLOTS, STEP, UNASKED, Values, cpu_seconds, keep, wall,
};

/// How old figures may be where somebody asks for less than `metrics.cache_seconds`, and the most that can be asked for.
const MAX_AGE: std::ops::RangeInclusive<f64> = 1.0..=3600.0;
/// Digits of a figure of a history: it is kept to a thousandth.
const DIGITS: i32 = 4;

/// Of the instances, those that are shown: what was asked for, as far as the rights go.
#[derive(Debug)]
struct Shown {
    right: MetricsRight,
    asked: Option<BTreeSet<String>>,
}

impl Shown {
    /// Nothing where the caller may read no metrics.
    fn of(app: &App, caller: &Caller, parameters: &Parameters) -> Result<Self, ApiError> {
        match right(&app.plan().settings, caller) {
            MetricsRight::None => Err(ApiError::forbidden()),
            right => Ok(Self { right, asked: parameters.projects() }),
        }
    }

    fn has(&self, project: &str) -> bool {
        let may = match &self.right {
            MetricsRight::All => true,
            MetricsRight::Projects(own) => own.contains(project),
            MetricsRight::None => false,
        };
        may && self.asked.as_ref().is_none_or(|asked| asked.contains(project))
    }
}

/// `GET /1.0/usage`.
pub(super) async fn show(
    State(app): State<Arc<App>>,
    caller: Caller,
    recipient: Recipient,
    parameters: Parameters,
    headers: HeaderMap,
) -> Answer {
    let shown = Shown::of(&app, &caller, &parameters)?;
    let recent = Recent::of(&parameters)?;
    let max_age = max_age(&parameters)?;
    if let Some(member) = elsewhere(&app, &caller, parameters.get("target"))? {
        let query: &[_] = if recent == Recent::Shown { &[("recent", "true")] } else { &[] };
        let Shown { right, asked: projects } = shown;
        let wanted = Wanted { path: "/1.0/usage", query, right, projects, headers: &headers };
        return app.forward.ask(app.tls.identity(), &member, wanted, &recipient).await;
    }
    let cache = app.plan().settings.cache;
    // A collection costs the host, so it is not for everybody to ask for more of them.
    let may_hurry = matches!(caller, Caller::Local | Caller::Client);
    let max_age = max_age.filter(|_| may_hurry).map_or(cache, |max_age| max_age.min(cache));
    let collected = collected(&app, max_age).await?;
    // It is long, and waits for a thread to be written on.
    let _turn = recipient.turn().await?;
    let usage = usage(&app, &collected, &shown, recent);
    ok_compressed(usage, &headers).await
}

/// `GET /1.0/instances/NAME/history`.
pub(super) async fn history(
    State(app): State<Arc<App>>,
    caller: Caller,
    recipient: Recipient,
    Name(name): Name,
    parameters: Parameters,
    headers: HeaderMap,
) -> Answer {
    let shown = Shown::of(&app, &caller, &parameters)?;
    if let Some(member) = elsewhere(&app, &caller, parameters.get("target"))? {
        let path = format!("{}/history", path("instances", &name));
        let Shown { right, asked: projects } = shown;
        let wanted = Wanted { path: &path, query: &[], right, projects, headers: &headers };
        return app.forward.ask(app.tls.identity(), &member, wanted, &recipient).await;
    }
    let collected = collected(&app, UNASKED).await?;
    let _turn = recipient.turn().await?;
    let history = history_of(&app, &collected, &shown, &name)?;
    ok_compressed(history, &headers).await
}

/// `GET /1.0/usage` where nobody but another member is served it.
pub(super) async fn show_to_member(
    state: State<Arc<App>>,
    caller: Caller,
    recipient: Recipient,
    parameters: Parameters,
    headers: HeaderMap,
) -> Answer {
    if !matches!(caller, Caller::Member(_)) {
        return Err(ApiError::not_found());
    }
    show(state, caller, recipient, parameters, headers).await
}

/// `GET /1.0/instances/NAME/history` where nobody but another member is served it.
pub(super) async fn history_to_member(
    state: State<Arc<App>>,
    caller: Caller,
    recipient: Recipient,
    name: Name,
    parameters: Parameters,
    headers: HeaderMap,
) -> Answer {
    if !matches!(caller, Caller::Member(_)) {
        return Err(ApiError::not_found());
    }
    history(state, caller, recipient, name, parameters, headers).await
}

/// Whether the last half hour is to be shown, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Recent {
    Shown,
    LeftOut,
}

impl Recent {
    fn of(parameters: &Parameters) -> Result<Self, ApiError> {
        match parameters.get("recent").unwrap_or_default() {
            "true" | "1" => Ok(Self::Shown),
            "" | "false" | "0" => Ok(Self::LeftOut),
            _ => Err(ApiError::bad_request("recent: expected true or false")),
        }
    }
}

fn max_age(parameters: &Parameters) -> Result<Option<Duration>, ApiError> {
    let Some(text) = parameters.get("max_age").filter(|text| !text.is_empty()) else { return Ok(None) };
    let seconds = text.parse::<f64>().ok().filter(|seconds| MAX_AGE.contains(seconds));
    let seconds =
        seconds.ok_or_else(|| ApiError::bad_request("max_age: expected seconds, from 1 to 3600"))?;
    Ok(Duration::try_from_secs_f64(seconds).ok())
}

/// Figures as scrapes have them, so that a page that is open costs no other collections than theirs. What no family shows is
/// not known.
async fn collected(app: &App, max_age: Duration) -> Result<Arc<Collected>, ApiError> {
    let wish = Wish { options: Arc::clone(&app.plan().scrape), max_age, patience: None };
    app.cache.get(wish).await.map_err(|reason| ApiError::new(StatusCode::SERVICE_UNAVAILABLE, reason))
}

fn usage(app: &App, collected: &Collected, shown: &Shown, recent: Recent) -> Usage {
    let (host, snapshot) = (collected.gathered.host, &collected.gathered.snapshot);
    let (location, server) = (app.location(), app.server_name());
    app.usage.look(collected, keep(app), |book| {
        let end = book.slot(Moment::now());
        let one = |instance: &InstanceFigures| {
            let recent = match (recent, book.recorded(instance.key())) {
                (Recent::Shown, Recorded::History(rings)) => recent_of(rings, end),
                _ => BTreeMap::new(),
            };
            let values = book.values(instance);
            InstanceUsage { location: location.clone(), recent, ..described(instance, &values) }
        };
        let instances = snapshot.instances.iter().filter(|instance| shown.has(&instance.project));
        Usage {
            server: server.clone(),
            time: snapshot.server.collect_timestamp_seconds.unwrap_or_else(|| wall(collected.begun())),
            interval: book.interval().map(|seconds| rounded(seconds, 1e3)),
            host_cpus: host.cpus,
            host_memory: host.memory,
            instances: instances.map(one).collect(),
        }
    })
}

fn described(instance: &InstanceFigures, values: &Values) -> InstanceUsage {
    let figures = &instance.figures;
    let info = figures.info.as_ref();
    let shown = values.known().map(|(name, unit, value)| (name.to_owned(), plain(unit, value)));
    InstanceUsage {
        name: instance.name.clone(),
        project: instance.project.clone(),
        instance_type: instance.instance_type.as_str().to_owned(),
        runtime: info.map(|info| info.runtime.clone()).unwrap_or_default(),
        boot_time: figures.boot_time_seconds,
        cpu_seconds: cpu_seconds(figures).map(|seconds| rounded(seconds, 1e3)),
        readable: figures.scrape.is_none_or(|scrape| scrape.success),
        source: info.map(|info| info.source.to_owned()).unwrap_or_default(),
        figures: shown.collect(),
        ..InstanceUsage::default()
    }
}

fn recent_of(rings: &Rings, end: u64) -> BTreeMap<String, Vec<Option<f32>>> {
    let series = rings.series(end, RECENT_SLOTS).filter(|(name, _)| RECENT.contains(name));
    series.map(|(name, values)| (name.to_owned(), short(values))).collect()
}

fn history_of(app: &App, collected: &Collected, shown: &Shown, name: &str) -> Result<History, ApiError> {
    app.usage.look(collected, keep(app), |book| {
        let found = collected.gathered.found.iter().filter(|found| found.name == name);
        let found = found.map(|found| (found.project.as_str(), found.instance_type));
        let known: BTreeSet<(&str, InstanceType)> =
            found.chain(book.named(name)).filter(|(project, _)| shown.has(project)).collect();
        let projects: BTreeSet<&str> = known.iter().map(|(project, _)| *project).collect();
        if projects.len() > 1 {
            let projects: Vec<_> = projects.into_iter().collect();
            let message =
                format!("Instance '{name}' is in several projects, name one of: {}", projects.join(", "));
            return Err(ApiError::new(StatusCode::CONFLICT, message));
        }
        let Some((project, _)) = known.first().copied() else {
            return Err(ApiError::new(StatusCode::NOT_FOUND, "Instance not found"));
        };
        let slot = book.slot(Moment::now());
        let empty = History { end: wall(book.end_of(slot)), step: STEP.as_secs_f64(), ..History::default() };
        let without = |reason: &str| History { missing: Some(reason.to_owned()), ..empty.clone() };
        if keep(app) == Keep::Rates {
            return Ok(without(OFF));
        }
        let mut missing = without(NEW);
        // A container and a machine may be called the same; mostly there is one.
        for (_, instance_type) in known {
            match book.recorded((project, name, instance_type)) {
                Recorded::History(rings) => {
                    let series = rings.series(slot, SLOTS);
                    let figures = series.map(|(name, values)| (name.to_owned(), short(values))).collect();
                    return Ok(History { figures, ..empty });
                }
                Recorded::Full => missing = without(FULL),
                Recorded::Nothing => {}
            }
        }
        Ok(missing)
    })
}

/// A figure without digits that say nothing.
fn plain(unit: Unit, value: f64) -> f64 {
    match unit {
        Unit::Bytes | Unit::Count => value.round(),
        Unit::BytesPerSecond => rounded(value, 10.0),
        Unit::PerSecond => rounded(value, 1e4),
        Unit::Cores | Unit::Ratio => rounded(value, 1e6),
    }
}

fn rounded(value: f64, scale: f64) -> f64 {
    (value * scale).round() / scale
}

/// Values with as many digits as they are worth.
fn short(values: Vec<Option<f32>>) -> Vec<Option<f32>> {
    let short = |value: f32| {
        if value == 0.0 {
            return 0.0;
        }
        // Between -31 and 97 in powers of two, so that nothing overflows.
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a small whole number, then a value as large as before"
        )]
        {
            let scale = 10_f64.powi(DIGITS - 1 - f64::from(value).log10().floor() as i32);
            rounded(f64::from(value), scale) as f32
        }
    };
    values.into_iter().map(|value| value.map(short)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_that_say_nothing_are_left_out() {
        let kept = [0.0, 0.012_345_6, 1.234_567, 12_345_678.0, 4.768_37e-10].map(Some);
        let shown = short(kept.into_iter().chain([None]).collect());
        let expected = [0.0, 0.012_35, 1.235, 12_350_000.0, 4.768e-10].map(Some);
        assert_eq!(shown, expected.into_iter().chain([None]).collect::<Vec<_>>());
        assert_eq!(plain(Unit::Cores, 0.123_456_78), 0.123_457);
        assert_eq!(plain(Unit::BytesPerSecond, 1234.567), 1234.6);
        assert_eq!(plain(Unit::Bytes, 1_234.6), 1235.0);
    }
}
