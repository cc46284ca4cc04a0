//! The arithmetic of `take()`, the same in both back ends: a token bucket as the theoretical arrival time of the next
//! call (the generic cell rate algorithm).

/// By how much `amount` calls at `count` per `period_ns` move the time: `amount · period / count`, saturating at every
/// step. `None` where nothing is to get through at all.
pub(crate) fn share(amount: u64, period_ns: u64, count: u64) -> Option<u64> {
    amount.saturating_mul(period_ns).checked_div(count)
}
