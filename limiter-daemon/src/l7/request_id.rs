//! `X-Request-Id`.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::policy::plan::RequestIdPolicy;

pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Unpredictable numbers: a keyed hash (SipHash, seeded by the operating system) of a counter.
#[derive(Debug, Default)]
pub(super) struct Random {
    keys: RandomState,
    counter: AtomicU64,
}

impl Random {
    pub(super) fn next(&self) -> u64 {
        self.keys
            .hash_one(self.counter.fetch_add(1, Ordering::Relaxed))
    }

    /// From 0 to 1.
    pub(super) fn fraction(&self) -> f64 {
        self.next() as f64 / u64::MAX as f64
    }

    /// A UUID, version 4 (RFC 9562).
    fn uuid(&self) -> [u8; 36] {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let bits = u128::from(self.next()) << 64 | u128::from(self.next());
        let bits = bits & !(0xf << 76 | 0b11 << 62) | 0x4 << 76 | 0b10 << 62;
        let mut text = [b'-'; 36];
        let mut at = 0;
        for byte in bits.to_be_bytes() {
            if matches!(at, 8 | 13 | 18 | 23) {
                at += 1;
            }
            text[at] = HEX[usize::from(byte >> 4)];
            text[at + 1] = HEX[usize::from(byte & 0xf)];
            at += 2;
        }
        text
    }
}

/// Sets or removes the header as `policy` has it.
pub(super) fn apply(policy: RequestIdPolicy, headers: &mut HeaderMap, random: &Random) {
    let generate = match policy {
        RequestIdPolicy::Generate => true,
        RequestIdPolicy::PreserveOrGenerate => !headers.contains_key(X_REQUEST_ID),
        RequestIdPolicy::Preserve => false,
        RequestIdPolicy::Disable => {
            headers.remove(X_REQUEST_ID);
            false
        }
    };
    if generate
        && let Ok(id) = HeaderValue::from_maybe_shared(Bytes::copy_from_slice(&random.uuid()))
    {
        headers.insert(X_REQUEST_ID, id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_uuids_of_version_4_and_each_another() {
        let random = Random::default();
        let mut seen = std::collections::HashSet::new();
        for _ in 0..1000 {
            let id = String::from_utf8(random.uuid().to_vec()).unwrap();
            let groups: Vec<_> = id.split('-').map(str::len).collect();
            assert_eq!(groups, [8, 4, 4, 4, 12], "{id}");
            assert_eq!(&id[14..15], "4", "{id}");
            assert!(matches!(&id[19..20], "8" | "9" | "a" | "b"), "{id}");
            assert!(seen.insert(id));
        }
    }

    #[test]
    fn the_policy_says_whose_id_it_is() {
        let random = Random::default();
        for (policy, sent, absent) in [
            (RequestIdPolicy::Generate, Some(false), true),
            (RequestIdPolicy::PreserveOrGenerate, Some(true), true),
            (RequestIdPolicy::Preserve, Some(true), false),
            (RequestIdPolicy::Disable, None, false),
        ] {
            let mut headers = HeaderMap::new();
            apply(policy, &mut headers, &random);
            assert_eq!(headers.contains_key(X_REQUEST_ID), absent, "{policy:?}");
            headers.insert(X_REQUEST_ID, HeaderValue::from_static("mine"));
            apply(policy, &mut headers, &random);
            let kept = headers.get(X_REQUEST_ID).map(|id| id == "mine");
            assert_eq!(kept, sent, "{policy:?}");
        }
    }
}
