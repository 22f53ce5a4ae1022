//! The last hour of one figure, in 240 bytes.

/// Slots of a ring: an hour.
pub(crate) const SLOTS: usize = 120;

/// A value of 2 bytes: no sign, as no figure has one, 7 bits of exponent and 9 of fraction, so that what is read again differs
/// from what was kept by a thousandth at most. That is less than a chart shows, and half of what an `f32` would take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Packed(u16);

/// The least value that is not kept as 0 is 2⁻³¹, the largest one nearly 2⁹⁷.
const LEAST_EXPONENT: u32 = 127 - 31;
/// The bits of an `f32`'s fraction that are dropped.
const DROPPED: u32 = 14;
const LEAST: u32 = LEAST_EXPONENT << (23 - DROPPED);

impl Packed {
    /// Nothing was read.
    const NONE: Self = Self(u16::MAX);

    fn new(value: f32) -> Self {
        if value.is_nan() {
            return Self::NONE;
        }
        if value <= 0.0 {
            return Self(0);
        }
        // Half of what is dropped is added, so that it is rounded; a carry into the exponent is right.
        let bits = value.to_bits().saturating_add(1 << (DROPPED - 1)) >> DROPPED;
        let code = bits.saturating_sub(LEAST).min(u32::from(u16::MAX - 1));
        Self(u16::try_from(code).unwrap_or(u16::MAX))
    }

    fn get(self) -> Option<f32> {
        match self {
            Self::NONE => None,
            Self(0) => Some(0.0),
            Self(code) => Some(f32::from_bits((u32::from(code) + LEAST) << DROPPED)),
        }
    }
}

/// The values of an hour, by the number of their slot. It does not know which slots are old: who owns it does.
#[derive(Debug, Clone)]
pub(super) struct Ring(Box<[Packed; SLOTS]>);

impl Ring {
    pub(super) fn new() -> Self {
        Self(Box::new([Packed::NONE; SLOTS]))
    }

    pub(super) fn get(&self, slot: u64) -> Option<f32> {
        self.0.get(place(slot)).copied().and_then(Packed::get)
    }

    /// Puts a value into a slot; NaN empties it.
    pub(super) fn put(&mut self, slot: u64, value: f32) {
        if let Some(place) = self.0.get_mut(place(slot)) {
            *place = Packed::new(value);
        }
    }
}

fn place(slot: u64) -> usize {
    // Less than the divisor, whatever it is divided from.
    usize::try_from(slot % SLOTS as u64).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_kept_differs_by_a_thousandth_at_most(value in 1e-9_f32..1e28) {
            let kept = Packed::new(value).get().unwrap();
            prop_assert!((kept - value).abs() <= value / 1000.0, "{value} was kept as {kept}");
            prop_assert_eq!(Packed::new(kept).get(), Some(kept));
        }

        #[test]
        fn no_value_becomes_nothing_and_none_is_negative(bits in any::<u32>()) {
            let value = f32::from_bits(bits);
            let kept = Packed::new(value).get();
            prop_assert_eq!(kept.is_none(), value.is_nan());
            prop_assert!(kept.unwrap_or_default() >= 0.0);
        }
    }

    #[test]
    fn zero_is_zero_and_nothing_is_nothing() {
        for (value, kept) in
            [(0.0, Some(0.0)), (-0.0, Some(0.0)), (1.0, Some(1.0)), (f32::NAN, None), (1e-12, Some(0.0))]
        {
            assert_eq!(Packed::new(value).get(), kept, "{value}");
        }
        assert!(Packed::new(f32::INFINITY).get().unwrap() > 1e28);
        assert_eq!(size_of::<[Packed; SLOTS]>(), 240);
    }

    #[test]
    fn a_slot_is_written_over_after_an_hour() {
        let mut ring = Ring::new();
        ring.put(7, 5.0);
        assert_eq!((ring.get(7), ring.get(8), ring.get(127)), (Some(5.0), None, Some(5.0)));
        ring.put(127, f32::NAN);
        assert_eq!(ring.get(7), None);
    }
}
