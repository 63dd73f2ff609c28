//! By chance.

use super::View;

pub(super) fn pick(view: &View<'_>, random: u64) -> Option<usize> {
    view.any(random)
}
