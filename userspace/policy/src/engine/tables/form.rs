//! The forms that keys of numbers come in: none, one number, or words. Each has code of its own, so that the most frequent
//! ones pay for no other.

use super::Table;

pub trait Form {
    fn words(&self) -> &[u64];

    /// The number that the key has; a use, where the table counts uses.
    fn number<'t>(&self, table: &'t mut Table) -> Option<&'t mut u64>;
}

/// Of a table that has one value.
impl Form for () {
    #[inline(always)]
    fn words(&self) -> &[u64] {
        &[]
    }

    #[inline(always)]
    fn number<'t>(&self, table: &'t mut Table) -> Option<&'t mut u64> {
        table.values.cell_mut()
    }
}

impl Form for u64 {
    #[inline(always)]
    fn words(&self) -> &[u64] {
        std::slice::from_ref(self)
    }

    #[inline(always)]
    fn number<'t>(&self, table: &'t mut Table) -> Option<&'t mut u64> {
        table.number_by_number(*self)
    }
}

impl Form for [u64] {
    #[inline(always)]
    fn words(&self) -> &[u64] {
        self
    }

    #[inline(never)]
    fn number<'t>(&self, table: &'t mut Table) -> Option<&'t mut u64> {
        table.values.number_mut(table.keys.find(self)?)
    }
}
