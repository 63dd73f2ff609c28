//! The clocks that decisions look at, as parameters.

/// One instant, as both clocks read it.
///
/// Token buckets go by the monotonic clock: steps of the wall clock neither fill nor empty them.
/// Windows go by the wall clock, for they begin at multiples of their length since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Nanoseconds of one monotonic clock, since an instant of its own.
    pub mono: u64,
    /// Nanoseconds since 1970 (UTC).
    pub unix: u64,
}
