//! Bytes as whatever is wanted of them.

/// Takes values off the front; zeros and empty texts once it is at the end.
#[derive(Debug)]
pub(crate) struct Cursor<'a>(pub(crate) &'a [u8]);

impl<'a> Cursor<'a> {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    pub(crate) fn bytes(&mut self, most: usize) -> &'a [u8] {
        let length = usize::from(self.byte()).min(most).min(self.0.len());
        let Some((head, tail)) = self.0.split_at_checked(length) else { return &[] };
        self.0 = tail;
        head
    }

    pub(crate) fn text(&mut self) -> String {
        String::from_utf8_lossy(self.bytes(40)).into_owned()
    }

    /// Small and huge numbers alike.
    pub(crate) fn number(&mut self) -> u64 {
        let shift = u32::from(self.byte() % 64);
        let value = u64::from(self.byte()) << 8 | u64::from(self.byte());
        value.wrapping_shl(shift).wrapping_sub(u64::from(shift == 63))
    }

    pub(crate) fn some<T>(&mut self, take: impl FnOnce(&mut Self) -> T) -> Option<T> {
        (!self.byte().is_multiple_of(4)).then(|| take(self))
    }
}
