//! What the store calls a bucket.
//!
//! `<prefix>{<policy>@<route>:<shared values>}<rule>@<route>+<candidate>#<algorithm>:<values>`. What is
//! in braces is the hash tag: in a cluster it decides where a key lies, and a script sees keys of one
//! place together. All rules of a policy that a request may meet have one tag. It has the route, if
//! none of them has buckets for all routes, and the values that all of them go by
//! ([`crate::engine::spread`]): so the users of a busy policy are spread over all nodes. Where they
//! have nothing in common, the policy alone is the tag.
//!
//! Values are hashed (SHA-256, 128 bits of it): keys have a bounded length, and no address, token or
//! name of a user lies in a store that others read.

use std::fmt::Write as _;
use std::hash::Hasher;
use std::rc::Rc;
use std::sync::Arc;

use ring::digest::{Context, SHA256};

use crate::engine::meter::Meter;
use crate::engine::request::RequestView;
use crate::engine::rule::Rule;
use crate::engine::spread::Pins;
use crate::engine::state::ScopeName;

/// Bytes of a digest that are used.
const USED: usize = 16;

/// How keys are made.
#[derive(Debug)]
pub(super) struct Names {
    prefix: String,
}

/// The digests of the values that a request's buckets are for, in hexadecimal.
pub(super) struct Values {
    /// Of those that are in the tag, after a colon; empty: none are.
    tag: Rc<str>,
    /// Of all; empty for rules with one bucket, and where the tag has them all.
    all: String,
    /// The route is in the tag.
    by_route: bool,
}

/// The tag of the rule before: most have the same.
#[derive(Default)]
pub(super) struct Tags(Option<(Arc<Pins>, Rc<str>)>);

impl Values {
    pub(super) fn of(rule: &Rule, request: &RequestView<'_>, tags: &mut Tags) -> Self {
        let all = if rule.is_distinct() && !rule.spread.whole() {
            hex_of(|mut digest| rule.feed(request, &mut digest))
        } else {
            String::new()
        };
        Self {
            tag: tags.of(rule, request),
            all,
            by_route: rule.spread.by_route(),
        }
    }
}

impl Tags {
    fn of(&mut self, rule: &Rule, request: &RequestView<'_>) -> Rc<str> {
        let pins = rule.spread.pins();
        if let Some((same, tag)) = &self.0
            && Arc::ptr_eq(same, pins)
        {
            return Rc::clone(tag);
        }
        let tag = if pins.is_empty() {
            Rc::from("")
        } else {
            let values = hex_of(|mut digest| rule.feed_spread(request, &mut digest));
            Rc::from(format!(":{values}"))
        };
        self.0 = Some((Arc::clone(pins), Rc::clone(&tag)));
        tag
    }
}

impl Names {
    pub(super) fn new(prefix: &str) -> Self {
        let prefix = prefix.to_owned();
        Self { prefix }
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
        let Values { tag, all, by_route } = values;
        let (at, place) = if *by_route { ("@", &**route) } else { ("", "") };
        format!("{prefix}{{{policy}{at}{place}{tag}}}{rule}@{route}+{candidate}#{kind}:{all}")
    }
}

/// The digest of what `feed` writes, in hexadecimal.
pub(in crate::engine) fn hex_of(feed: impl FnOnce(&mut dyn Hasher)) -> String {
    let mut digest = Digest(Context::new(&SHA256));
    feed(&mut digest);
    let mut text = String::with_capacity(2 * USED);
    for byte in digest.0.finish().as_ref().iter().take(USED) {
        // Writing to a String does not fail.
        let _infallible = write!(text, "{byte:02x}");
    }
    text
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
