//! Which local limit a route draws from.
//!
//! There are four levels: the gateway, the virtual service (a `VirtualHostOption`), its virtual host
//! (options in it) and the route. A limit is one bucket for everything under it that has none of its
//! own; what has one draws from that and no longer from the one above.

use std::sync::Arc;

use crate::policy::gloo::listener_options::LocalLimits;
use crate::policy::gloo::token_bucket::Bucket;
use crate::policy::plan::{LimitRule, PolicyLimits, Quota};

/// How a gateway has local limits.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Manner {
    /// Clients are told of them.
    pub(super) headers: bool,
    /// They are buckets of each connection.
    pub(super) per_connection: bool,
}

impl Manner {
    /// As the gateway's `httpLocalRatelimit` says.
    pub(super) fn of(limits: Option<&LocalLimits>) -> Self {
        limits.map_or_else(Self::default, |limits| Self {
            headers: limits.headers,
            per_connection: limits.per_connection,
        })
    }
}

/// A limit in force, and what it is of.
#[derive(Clone, Debug, Default)]
pub(super) struct Local {
    limit: Option<(Arc<str>, Bucket)>,
}

impl Local {
    /// The limit that holds below: `own`, called by `label`, or else this one.
    pub(super) fn under(&self, label: &str, own: Option<&Bucket>) -> Self {
        match own {
            Some(bucket) => Self {
                limit: Some((label.into(), bucket.clone())),
            },
            None => self.clone(),
        }
    }

    /// This limit, or where there is none the one `above`.
    pub(super) fn or(&self, above: &Self) -> Self {
        let limit = self.limit.as_ref().or(above.limit.as_ref());
        Self {
            limit: limit.cloned(),
        }
    }

    /// As the plan has it.
    pub(super) fn plan(&self, manner: Manner) -> Option<PolicyLimits> {
        let (label, bucket) = self.limit.as_ref()?;
        let quota = Quota::bucket(bucket.limit, bucket.window);
        let name = format!("{label}/localRatelimit");
        Some(PolicyLimits {
            policy: label.to_string(),
            rules: Vec::new(),
            default: Some(LimitRule {
                shared: true,
                headers: Some(manner.headers),
                per_connection: manner.per_connection,
                written: bucket.written.clone(),
                ..LimitRule::new(name, Vec::new(), quota)
            }),
        })
    }
}
