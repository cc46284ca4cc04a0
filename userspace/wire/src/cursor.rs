//! A bounds-checked reader over bytes that nobody vouches for.
//!
//! The cursor carries the *end pointer*, not a length: the kernel's verifier proves packet accesses by comparing
//! pointers, and a length would hide the comparison from it. All pointer arithmetic of the decoder is in this file.

use core::marker::PhantomData;
use zerocopy::FromBytes;

/// The bytes ended before the value did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Short;

/// A position in a packet and the packet's end.
#[derive(Clone, Copy)]
pub struct Cursor<'a> {
    at: *const u8,
    end: *const u8,
    bytes: PhantomData<&'a [u8]>,
}

impl<'a> Cursor<'a> {
    /// A cursor at the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Cursor<'a> {
        let range = bytes.as_ptr_range();
        Cursor { at: range.start, end: range.end, bytes: PhantomData }
    }

    /// A cursor over a packet given by its first byte and the byte past its last, as XDP has it.
    ///
    /// # Safety
    /// `start..end` must be one readable range that nobody else writes for the lifetime `'a`.
    #[inline(always)]
    pub unsafe fn from_raw(start: *const u8, end: *const u8) -> Cursor<'a> {
        Cursor { at: start, end, bytes: PhantomData }
    }

    /// Where the cursor stands.
    #[inline(always)]
    pub fn position(&self) -> *const u8 {
        self.at
    }

    /// How many bytes are left.
    #[inline(always)]
    pub fn remaining(&self) -> usize {
        (self.end as usize).saturating_sub(self.at as usize)
    }

    /// Reads a `T` and moves past it.
    #[inline(always)]
    pub fn read<T: FromBytes>(&mut self) -> Result<T, Short> {
        let next = self.at.wrapping_add(size_of::<T>());
        if compared(next) > self.end {
            return Err(Short);
        }
        // SAFETY: `at..next` lies inside the packet, checked above, and any bytes are a valid `T`.
        let value = unsafe { load(self.at.cast::<T>()) };
        self.at = next;
        Ok(value)
    }

    /// Moves past `N` bytes.
    #[inline(always)]
    pub fn skip<const N: usize>(&mut self) -> Result<(), Short> {
        let next = self.at.wrapping_add(N);
        if compared(next) > self.end {
            return Err(Short);
        }
        self.at = next;
        Ok(())
    }

    /// The next `length` bytes as a slice, moving past them. For user space: the verifier cannot follow it.
    #[inline(always)]
    pub fn take(&mut self, length: usize) -> Result<&'a [u8], Short> {
        if length > self.remaining() {
            return Err(Short);
        }
        // SAFETY: `length` bytes are left in the packet, which stays readable and unwritten for `'a`.
        let slice = unsafe { core::slice::from_raw_parts(self.at, length) };
        self.at = self.at.wrapping_add(length);
        Ok(slice)
    }
}

/// A pointer that is about to be compared with the packet's end. In loops LLVM would move the addition to the other
/// side of the comparison, and the verifier forbids arithmetic on the end pointer; BPF therefore hides the sum.
#[inline(always)]
fn compared(pointer: *const u8) -> *const u8 {
    #[cfg(target_arch = "bpf")]
    {
        let mut pointer = pointer;
        // SAFETY: copies a register to itself. An empty template would do, but gives one instruction two entries in
        // the line info, which the kernel refuses.
        unsafe { core::arch::asm!("{0} = {0}", inout(reg) pointer, options(pure, nomem, nostack)) };
        pointer
    }
    #[cfg(not(target_arch = "bpf"))]
    pointer
}

/// Reads a value where it stands.
///
/// # Safety
/// `at` must point to `size_of::<T>()` readable bytes.
#[inline(always)]
unsafe fn load<T: FromBytes>(at: *const T) -> T {
    // LLVM splits unaligned reads for BPF into byte loads, which doubles the program. The kernel allows unaligned
    // packet loads on the architectures we run on, so BPF reads as if aligned.
    #[cfg(target_arch = "bpf")]
    // SAFETY: the caller's; alignment as explained above.
    return unsafe { core::ptr::read(at) };
    #[cfg(not(target_arch = "bpf"))]
    // SAFETY: the caller's.
    return unsafe { core::ptr::read_unaligned(at) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_to_the_last_byte_and_no_further() {
        let bytes = [1, 2, 3, 4, 5];
        let mut cursor = Cursor::new(&bytes);
        assert_eq!(cursor.read::<u32>(), Ok(u32::from_le_bytes([1, 2, 3, 4])));
        assert_eq!(cursor.read::<u16>(), Err(Short));
        assert_eq!(cursor.take(1), Ok(&[5][..]));
        assert_eq!(cursor.skip::<1>(), Err(Short));
        assert_eq!(cursor.remaining(), 0);
    }
}
