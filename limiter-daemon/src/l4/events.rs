//! Samples of dropped packets as they come.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use aya::maps::{MapData, RingBuf};
use limiter_common::DropEvent;

/// The receiving end of the samples. It stands apart from [`Kernel`](super::Kernel), so that one
/// task can wait on it (its descriptor is readable when there are samples) while others call the
/// kernel half.
///
/// The ring has a fixed size, and each CPU a cap on its samples; what does not fit is counted by
/// [`Kernel::samples_lost`](super::Kernel::samples_lost).
pub struct Events(pub(super) RingBuf<MapData>);

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

impl Events {
    /// Gives `each` the samples that are there, oldest first.
    pub fn drain(&mut self, mut each: impl FnMut(DropEvent)) {
        while let Some(bytes) = self.0.next() {
            if let Some(event) = parse(&bytes) {
                each(event);
            }
        }
    }
}

fn parse(bytes: &[u8]) -> Option<DropEvent> {
    if bytes.len() < size_of::<DropEvent>() {
        return None;
    }
    // SAFETY: the slice is long enough, the read needs no alignment, and a `DropEvent` is made of
    // integers: any bytes are one.
    Some(unsafe { bytes.as_ptr().cast::<DropEvent>().read_unaligned() })
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Events {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_short_is_no_event() {
        assert_eq!(parse(&[0; 47]), None);
        assert_eq!(parse(&[0; 48]), Some(DropEvent::default()));
        const fn sends<T: Send>() {}
        sends::<Events>();
    }
}
