//! What the store calls a bucket.
//!
//! `<prefix>{<policy>}<rule>@<route>+<candidate>#<algorithm>:<values>`. The policy is the hash tag:
//! in a cluster all rules of one are in one slot, so that a script sees them together. The values
//! that a bucket is for are hashed (SHA-256, 128 bits of it): keys have one length, and no address,
//! token or name of a user lies in a store that others read.

use std::fmt::Write as _;
use std::hash::Hasher;

use ring::digest::{Context, SHA256};

use crate::engine::meter::Meter;
use crate::engine::request::RequestView;
use crate::engine::rule::Rule;
use crate::engine::state::ScopeName;

/// Bytes of a digest that are used.
const USED: usize = 16;

/// How keys are made.
#[derive(Debug)]
pub(super) struct Names {
    prefix: String,
}

/// The digest of the values that a request's buckets are for, in hexadecimal; empty for rules with
/// one bucket.
pub(super) struct Values(String);

impl Values {
    pub(super) fn of(rule: &Rule, request: &RequestView<'_>) -> Self {
        let mut text = String::new();
        if rule.is_distinct() {
            let mut digest = Digest(Context::new(&SHA256));
            rule.feed(request, &mut digest);
            for byte in digest.0.finish().as_ref().iter().take(USED) {
                // Writing to a String does not fail.
                let _infallible = write!(text, "{byte:02x}");
            }
        }
        Self(text)
    }
}

impl Names {
    pub(super) fn new(prefix: &str) -> Self {
        let prefix = prefix.to_owned();
        Self { prefix }
    }

    /// What all keys begin with.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The key of the rule's bucket, or of that of a candidate, by the name of its scope.
    pub(super) fn key(
        &self,
        policy: &str,
        scope: &ScopeName,
        meter: &Meter,
        values: &Values,
    ) -> String {
        let Self { prefix } = self;
        let ScopeName {
            rule,
            route,
            candidate,
            ..
        } = scope;
        let kind = meter.kind();
        let values = &values.0;
        format!("{prefix}{{{policy}}}{rule}@{route}+{candidate}#{kind}:{values}")
    }
}

/// Takes bytes into a digest; 64 bits would not tell values apart.
struct Digest(Context);

impl Hasher for Digest {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        0
    }
}
