//! Reading a frame within its bounds, in the form that the verifier can follow.

use limiter_common::Reason;

/// The bytes of a frame. Copies of the two pointers: nothing moves the packet's ends once it is parsed.
pub(crate) struct Frame {
    start: usize,
    end: usize,
}

impl Frame {
    #[inline(always)]
    pub(crate) const fn new(start: usize, end: usize) -> Self {
        Self { start, end }
    }

    /// The `N` bytes at `offset`.
    ///
    /// # Errors
    /// [`Reason::Unparsable`] where the frame ends before them.
    #[inline(always)]
    pub(crate) fn read<const N: usize>(&self, offset: usize) -> Result<&[u8; N], Reason> {
        let at = self.start + offset;
        if at + N > self.end {
            return Err(Reason::Unparsable);
        }
        // SAFETY: the frame has `N` bytes at `at`, as was just checked (and the verifier checks
        // again); they stay while the program runs, and a byte array needs no alignment.
        Ok(unsafe { &*(at as *const [u8; N]) })
    }
}
