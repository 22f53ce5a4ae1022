//! Every instance from collection to collection.

use std::cmp::Ordering;
use std::time::Duration;

use miharu_metrics::{InstanceFigures, InstanceType};

use super::reading::Values;
use super::track::{Rings, STEP, Track};
use crate::cache::Collected;
use crate::clock::Moment;

/// The most instances whose histories are kept: about 11 MB.
const LIMIT: usize = 2000;
/// The shortest time that rates are over.
const SHORTEST: Duration = Duration::from_secs(1);
/// How long an instance that is gone is remembered, so that a restart leaves a gap in its history and no end.
const FORGOTTEN: Duration = Duration::from_secs(300);

/// What is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    /// The last hour.
    History,
    /// What rates are counted from.
    Rates,
}

/// What is recorded of an instance.
#[derive(Debug)]
pub(crate) enum Recorded<'a> {
    /// Its last hour.
    History(&'a Rings),
    /// Nothing, as as many are recorded as may be.
    Full,
    /// Nothing yet, or no more.
    Nothing,
}

/// The instances.
#[derive(Debug)]
pub(crate) struct Book {
    /// When slot 0 began. Slots go by a clock that nobody sets, so that none is lost, or filled twice, when somebody does, and that goes
    /// on while the host sleeps, so that what came before a sleep stays where it was.
    opened: Moment,
    /// When the collection that rates are counted from began, and the last one.
    base: Option<Moment>,
    last: Option<Moment>,
    /// By project, name and type, as the instances of a collection are, so that both are walked together.
    tracks: Vec<Track>,
    /// How many of them have rings.
    recorded: usize,
    asked: Moment,
}

impl Book {
    pub(super) fn new(opened: Moment) -> Self {
        Self { opened, base: None, last: None, tracks: Vec::new(), recorded: 0, asked: opened }
    }

    /// Somebody looks.
    pub(super) fn asked(&mut self, now: Moment) {
        self.asked = now;
    }

    /// No history is to be kept: forgets all that there is of it, and the rest when nobody has looked for so long.
    pub(super) fn rest(&mut self, now: Moment, patience: Duration) {
        self.drop_rings();
        if now.saturating_duration_since(self.asked) > patience {
            *self = Self::new(self.opened);
        }
    }

    fn drop_rings(&mut self) {
        self.tracks.iter_mut().for_each(|track| track.rings = None);
        self.recorded = 0;
    }

    /// Takes what a collection told, unless it is no later than the last one, or so little that rates over it would say more
    /// about the collection than about the instances.
    pub(super) fn enter(&mut self, collected: &Collected, keep: Keep) {
        self.enter_at(&collected.gathered.snapshot.instances, collected.begun(), keep);
    }

    fn enter_at(&mut self, instances: &[InstanceFigures], at: Moment, keep: Keep) {
        if keep == Keep::Rates && self.recorded > 0 {
            self.drop_rings();
        }
        let since = self.last.map(|last| at.saturating_duration_since(last));
        if since.is_some_and(|since| since < SHORTEST) {
            return;
        }
        self.base = self.last;
        self.last = Some(at);
        let slot = self.slot(at);
        let is_new_slot = since.is_none_or(|since| self.slot(at - since) != slot);
        let seconds = since.unwrap_or_default().as_secs_f32();
        let mut new = Vec::new();
        let mut tracks = self.tracks.iter_mut().peekable();
        for instance in instances {
            while tracks.next_if(|track| track.key() < instance.key()).is_some() {}
            let known = tracks.next_if(|track| track.key().cmp(&instance.key()) == Ordering::Equal);
            let mut made = known.is_none().then(|| Track::new(instance, at));
            let Some(track) = known.or(made.as_mut()) else { continue };
            track.read(instance, at, self.base);
            if keep == Keep::History {
                if track.rings.is_none() && self.recorded < LIMIT {
                    track.rings = Some(Rings::new(slot));
                    self.recorded += 1;
                }
                let values = track.values(instance);
                if let Some(rings) = &mut track.rings {
                    rings.add(slot, seconds, &values);
                }
            }
            new.extend(made);
        }
        if is_new_slot {
            self.tracks.retain(|track| at.saturating_duration_since(track.seen) < FORGOTTEN);
        }
        if !new.is_empty() {
            self.tracks.append(&mut new);
            self.tracks.sort_by(|a, b| a.key().cmp(&b.key()));
        }
        if is_new_slot {
            self.recorded = self.tracks.iter().filter(|track| track.rings.is_some()).count();
        }
    }

    /// Seconds that the rates are over.
    pub(crate) fn interval(&self) -> Option<f64> {
        Some(self.last?.saturating_duration_since(self.base?).as_secs_f64())
    }

    /// What this instance uses, its levels as in these figures.
    pub(crate) fn values(&self, instance: &InstanceFigures) -> Values {
        self.track(instance.key()).map_or(Values::NONE, |track| track.values(instance))
    }

    /// What is recorded of this instance.
    pub(crate) fn recorded(&self, key: (&str, &str, InstanceType)) -> Recorded<'_> {
        match self.track(key) {
            Some(Track { rings: Some(rings), .. }) => Recorded::History(rings),
            Some(_) if self.recorded >= LIMIT => Recorded::Full,
            _ => Recorded::Nothing,
        }
    }

    /// The projects and types of the instances of this name that are remembered.
    pub(crate) fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a str, InstanceType)> + 'a {
        let named = self.tracks.iter().filter(move |track| track.name == name);
        named.map(|track| (track.project.as_str(), track.instance_type))
    }

    fn track(&self, key: (&str, &str, InstanceType)) -> Option<&Track> {
        let at = self.tracks.binary_search_by(|track| track.key().cmp(&key)).ok()?;
        self.tracks.get(at)
    }

    /// The slot of this moment.
    pub(crate) fn slot(&self, at: Moment) -> u64 {
        at.saturating_duration_since(self.opened).as_secs() / STEP.as_secs()
    }

    /// When this slot ends.
    pub(crate) fn end_of(&self, slot: u64) -> Moment {
        let seconds = slot.saturating_add(1).saturating_mul(STEP.as_secs());
        self.opened + Duration::from_secs(seconds)
    }

    /// Bytes that everything takes.
    #[cfg(test)]
    fn bytes(&self) -> usize {
        let of = |track: &Track| {
            size_of::<Track>()
                + track.project.capacity()
                + track.name.capacity()
                + track.rings.as_ref().map_or(0, |rings| rings.bytes() - size_of::<Rings>())
        };
        self.tracks.iter().map(of).sum()
    }
}

#[cfg(test)]
mod tests;
