//! This CPU's own words: looked up once a packet, and handed down.

use core::ptr::NonNull;

use limiter_common::Local;
use limiter_common::local::Pressure;

use crate::maps::LOCAL;

/// [`Local`] of this CPU.
///
/// Programs on a packet's way in run in softirq, which nothing of their kind interrupts on the same
/// CPU: so reading and then writing is safe.
#[derive(Clone, Copy)]
pub(crate) struct Own(NonNull<Local>);

impl Own {
    #[inline(always)]
    pub(crate) fn get() -> Option<Self> {
        LOCAL.get_ptr_mut(0).and_then(NonNull::new).map(Self)
    }

    /// The words.
    #[inline(always)]
    pub(crate) fn words(&mut self) -> &mut Local {
        // SAFETY: a lookup returned it, so it points into a map value, which stays for the whole run
        // of the program; only this CPU writes it.
        unsafe { self.0.as_mut() }
    }

    /// Counts a drop of which there is no sample.
    #[inline(always)]
    pub(crate) fn lose_sample(&mut self) {
        let lost = &mut self.words().lost;
        *lost = lost.wrapping_add(1);
    }

    /// Counts one event of the table of sources.
    #[inline(always)]
    pub(crate) fn press(&mut self, event: Pressure) {
        let words = self.words();
        let count = match event {
            Pressure::Placed => &mut words.pressure[0],
            Pressure::Sketched => &mut words.pressure[1],
            Pressure::Evicted => &mut words.pressure[2],
            Pressure::Lost => &mut words.pressure[3],
        };
        *count = count.wrapping_add(1);
    }
}
