//! Reading a frame within its bounds, in the form that the verifier can follow.

use aya_ebpf::programs::XdpContext;
use limiter_common::Reason;

/// The bytes of a frame. Copies of the two pointers: the program never moves the packet's ends.
pub(crate) struct Frame {
    start: usize,
    end: usize,
}

impl Frame {
    #[inline(always)]
    pub(crate) fn new(ctx: &XdpContext) -> Self {
        Self {
            start: ctx.data(),
            end: ctx.data_end(),
        }
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
