//! What a policy says, joined with what its parent says (`mergeType`): field by field, down to what is
//! one value.

use std::time::Duration;

use crate::policy::findings::Mark;
use crate::policy::plan::Fraction;

/// Something that a policy may say in part.
pub(super) trait Merge: Clone {
    /// What is not said here as `parent` says it.
    #[must_use]
    fn over(self, parent: &Self) -> Self;
}

impl<T: Merge> Merge for Option<T> {
    fn over(self, parent: &Self) -> Self {
        match (self, parent) {
            (Some(own), Some(parent)) => Some(own.over(parent)),
            (own, parent) => own.or_else(|| parent.clone()),
        }
    }
}

/// Types of which the closer value stands as a whole, as lists do.
macro_rules! whole {
    ($($type:ty),* $(,)?) => {$(
        impl $crate::policy::envoy_gateway::backend_traffic_policy::merge::Merge for $type {
            fn over(self, _parent: &Self) -> Self {
                self
            }
        }
    )*};
}

/// Structs of which each field is joined with its like.
macro_rules! by_field {
    ($type:ident { $($field:ident),* $(,)? }) => {
        impl $crate::policy::envoy_gateway::backend_traffic_policy::merge::Merge for $type {
            fn over(self, parent: &Self) -> Self {
                Self { $($field: self.$field.over(&parent.$field)),* }
            }
        }
    };
}

pub(super) use {by_field, whole};

/// A bound on a time; `None`: there is none, and a policy says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bound(pub(crate) Option<Duration>);

whole!(bool, u32, u64, Bound, Duration, Fraction, Mark, String);

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Bound, Merge as _};

    #[derive(Clone, Debug, PartialEq)]
    struct Block {
        number: Option<u32>,
        bound: Option<Bound>,
        inner: Option<Inner>,
    }

    #[derive(Clone, Debug, PartialEq)]
    struct Inner {
        flag: Option<bool>,
        name: Option<String>,
    }

    by_field!(Block {
        number,
        bound,
        inner
    });
    by_field!(Inner { flag, name });

    #[test]
    fn the_closer_value_stands_and_the_others_are_the_parents() {
        let parent = Block {
            number: Some(1),
            bound: Some(Bound(Some(Duration::from_secs(1)))),
            inner: Some(Inner {
                flag: Some(true),
                name: Some("parent".into()),
            }),
        };
        let own = Block {
            number: None,
            bound: Some(Bound(None)),
            inner: Some(Inner {
                flag: Some(false),
                name: None,
            }),
        };
        let joined = Block {
            number: Some(1),
            bound: Some(Bound(None)),
            inner: Some(Inner {
                flag: Some(false),
                name: Some("parent".into()),
            }),
        };
        assert_eq!(own.over(&parent), joined);
    }
}
