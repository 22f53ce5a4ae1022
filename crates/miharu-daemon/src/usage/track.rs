//! One instance from collection to collection: its last readings, and its last hour.

use std::time::Duration;

use miharu_api::usage::FIGURES;
use miharu_metrics::{InstanceFigures, InstanceType};

use super::reading::{COUNT, Reading, Values, is_rate, levels};
use super::ring::{Ring, SLOTS};
use crate::clock::Moment;

/// How long a slot of a history is.
pub(crate) const STEP: Duration = Duration::from_secs(30);
/// How many slots sparklines show: half an hour.
pub(crate) const RECENT_SLOTS: usize = 60;
/// Slots without a collection of their own that the next one speaks for: what lies between two collections of the keeper's, which are
/// ten minutes apart at most.
const BRIDGED: u64 = 20;

/// An instance.
#[derive(Debug)]
pub(super) struct Track {
    pub(super) project: String,
    pub(super) name: String,
    pub(super) instance_type: InstanceType,
    /// The reading that rates are counted from, and the last one.
    base: Option<Reading>,
    last: Option<Reading>,
    pub(super) seen: Moment,
    pub(super) rings: Option<Rings>,
}

impl Track {
    pub(super) fn new(instance: &InstanceFigures, seen: Moment) -> Self {
        Self {
            project: instance.project.clone(),
            name: instance.name.clone(),
            instance_type: instance.instance_type,
            base: None,
            last: None,
            seen,
            rings: None,
        }
    }

    pub(super) fn key(&self) -> (&str, &str, InstanceType) {
        (&self.project, &self.name, self.instance_type)
    }

    /// Takes what a collection told; rates are counted from the reading of the collection at `base`.
    pub(super) fn read(&mut self, instance: &InstanceFigures, at: Moment, base: Option<Moment>) {
        // One that was not there, or could not be read, at the last collection has nothing to be counted from.
        self.base = self.last.take().filter(|last| Some(last.at) == base);
        self.last = Some(Reading::of(&instance.figures, at));
        self.seen = at;
    }

    /// What it uses, its levels taken from these figures.
    pub(super) fn values(&self, instance: &InstanceFigures) -> Values {
        let mut values = Values::NONE;
        levels(&instance.figures, &mut values);
        if let (Some(last), Some(base)) = (&self.last, &self.base) {
            last.rates_since(base, &mut values);
        }
        values
    }
}

/// The last hour of an instance: a ring for each figure that was ever known.
#[derive(Debug, Clone)]
pub(crate) struct Rings {
    rings: [Option<Ring>; COUNT],
    /// The slot that was written last.
    slot: u64,
    /// Seconds of that slot that its values speak for.
    weight: f32,
}

impl Rings {
    pub(super) fn new(slot: u64) -> Self {
        Self { rings: [const { None }; COUNT], slot, weight: 0.0 }
    }

    /// Adds what was read in this slot, which speaks for `seconds`: the values of a slot are means.
    pub(super) fn add(&mut self, slot: u64, seconds: f32, values: &Values) {
        if slot < self.slot {
            return;
        }
        let before = self.slot;
        if slot > before {
            (self.slot, self.weight) = (slot, 0.0);
        }
        let seconds = seconds.clamp(0.0, STEP.as_secs_f32());
        let weight = self.weight + seconds;
        for (place, (ring, value)) in self.rings.iter_mut().zip(values.iter()).enumerate() {
            // The largest figures have more digits than a chart has points, so what is dropped is not seen.
            #[expect(clippy::cast_possible_truncation, reason = "a chart's precision is enough")]
            let value = value as f32;
            if ring.is_none() && value.is_nan() {
                continue;
            }
            let ring = ring.get_or_insert_with(Ring::new);
            let last = ring.get(before);
            for skipped in (before + 1..slot).rev().take(SLOTS) {
                let bridge = if is_rate(place) { value } else { last.unwrap_or(f32::NAN) };
                ring.put(skipped, if slot - before <= BRIDGED + 1 { bridge } else { f32::NAN });
            }
            let so_far = ring.get(slot).filter(|_| slot == before);
            let mean = match so_far {
                Some(so_far) if value.is_nan() => so_far,
                Some(so_far) => so_far + (value - so_far) * (seconds / weight),
                None => value,
            };
            ring.put(slot, mean);
        }
        self.weight = weight;
    }

    /// The values of the `slots` slots up to `end` of each figure that was ever known, by its name.
    pub(crate) fn series(
        &self,
        end: u64,
        slots: usize,
    ) -> impl Iterator<Item = (&'static str, Vec<Option<f32>>)> + '_ {
        let named = FIGURES.iter().zip(&self.rings);
        named.filter_map(move |((name, _), ring)| {
            let ring = ring.as_ref()?;
            let first = (end + 1).saturating_sub(slots as u64);
            let is_kept = |slot: u64| slot <= self.slot && self.slot - slot < SLOTS as u64;
            let mut values =
                vec![None; slots.saturating_sub(usize::try_from(end + 1 - first).unwrap_or(slots))];
            values.extend((first..=end).map(|slot| if is_kept(slot) { ring.get(slot) } else { None }));
            Some((*name, values))
        })
    }

    /// Bytes that it takes, its own included.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>() + self.rings.iter().flatten().count() * 2 * SLOTS
    }
}
