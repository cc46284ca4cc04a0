//! Reading and writing the fields of a flat block.
//!
//! A field sits at a fixed offset. A block shorter than the field's end was written by a peer that does not know the
//! field: it reads as absent.

/// A flat block as received.
#[derive(Clone, Copy, Debug)]
pub struct FlatView<'a>(pub &'a [u8]);

macro_rules! number {
    ($($name:ident: $type:ty),*) => {$(
        /// The number at `offset`, or `None` where the block does not have it.
        #[inline]
        pub fn $name(&self, offset: usize) -> Option<$type> {
            let bytes = self.0.get(offset..)?.first_chunk::<{ size_of::<$type>() }>()?;
            Some(<$type>::from_le_bytes(*bytes))
        }
    )*};
}

impl<'a> FlatView<'a> {
    number!(u8: u8, u16: u16, u32: u32, u64: u64, i32: i32, i64: i64, f32: f32, f64: f64);

    /// The boolean at `offset`; any byte but 0 is true.
    #[inline]
    pub fn bool(&self, offset: usize) -> Option<bool> {
        self.u8(offset).map(|byte| byte != 0)
    }

    /// The inline string or bytes at `offset`: a length byte, then room for `max_len` bytes. A length over `max_len`
    /// is a lie and reads as absent.
    #[inline]
    pub fn bytes(&self, offset: usize, max_len: usize) -> Option<&'a [u8]> {
        let field = self.0.get(offset..)?.get(..1 + max_len)?;
        let (length, bytes) = field.split_first()?;
        bytes.get(..usize::from(*length))
    }

    /// Like [`FlatView::bytes`], for text: what is not UTF-8 reads as absent.
    #[inline]
    pub fn str(&self, offset: usize, max_len: usize) -> Option<&'a str> {
        core::str::from_utf8(self.bytes(offset, max_len)?).ok()
    }

    /// The fixed-size bytes at `offset`.
    #[inline]
    pub fn fixed(&self, offset: usize, width: usize) -> Option<&'a [u8]> {
        self.0.get(offset..)?.get(..width)
    }
}

/// The value does not fit its field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong {
    /// Bytes the value has.
    pub length: usize,
    /// Bytes the field has room for.
    pub max_len: usize,
}

/// Writes bytes at `offset`; the block must be zeroed and long enough, as generated code guarantees.
///
/// # Errors
/// Where the block ends before the value does: nothing is written.
#[inline]
pub fn put(block: &mut [u8], offset: usize, value: &[u8]) -> Result<(), TooLong> {
    let max_len = block.len().saturating_sub(offset);
    match block.get_mut(offset..offset + value.len()) {
        Some(field) => field.copy_from_slice(value),
        None => return Err(TooLong { length: value.len(), max_len }),
    }
    Ok(())
}

/// Writes an inline string or bytes at `offset`: a length byte, the bytes, zeros up to `max_len` (at most 255).
///
/// # Errors
/// A value longer than `max_len`: never truncated, nothing is written.
#[inline]
pub fn put_bytes(block: &mut [u8], offset: usize, max_len: usize, value: &[u8]) -> Result<(), TooLong> {
    let too_long = TooLong { length: value.len(), max_len };
    if value.len() > max_len {
        return Err(too_long);
    }
    let length = u8::try_from(value.len()).map_err(|_| too_long)?;
    put(block, offset, &[length])?;
    put(block, offset + 1, value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_field_past_the_block_is_absent() {
        let view = FlatView(&[1, 0, 0, 0, 5]);
        assert_eq!(view.u32(0), Some(1));
        assert_eq!(view.u32(1), Some(0x0500_0000));
        assert_eq!(view.u32(2), None);
        assert_eq!(view.u8(usize::MAX), None);
        assert_eq!(view.bytes(4, 0), None, "length 5 in a field of 0 is a lie");
        assert_eq!(view.bytes(4, 1), None);
    }

    proptest! {
        #[test]
        fn strings_round_trip_and_are_never_cut(value in ".{0,40}", max_len in 0..30usize) {
            let mut block = [0u8; 64];
            match put_bytes(&mut block, 3, max_len, value.as_bytes()) {
                Ok(()) => prop_assert_eq!(FlatView(&block).str(3, max_len), Some(value.as_str())),
                Err(error) => {
                    prop_assert_eq!(error, TooLong { length: value.len(), max_len });
                    prop_assert_eq!(block, [0; 64]);
                }
            }
        }
    }
}
