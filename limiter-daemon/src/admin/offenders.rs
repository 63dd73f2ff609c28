//! `GET /offenders`: the clients that limits on requests deny most. What the kernel drops is under
//! `/l4/top`.

use std::net::IpAddr;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use serde::{Deserialize, Serialize};

use super::{Admin, l4, text};
use crate::engine::limited::Client;

/// Clients told at most.
const MOST: usize = 100;
const SECOND: u64 = 1_000_000_000;

/// Clients that were denied in the last one to two minutes.
#[derive(Debug, Default, Deserialize, Serialize)]
pub struct OffendersView {
    /// The busiest first.
    pub limited: Vec<LimitedView>,
    /// By how much counts may be too low; nobody who was denied more often is left out of the first
    /// hundred for want of memory.
    pub missing: u64,
}

/// A client that a limit on requests denies.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct LimitedView {
    /// The address that its requests are attributed to; of IPv6 the /64.
    pub client: String,
    /// Empty: a rate limit service that the route asks.
    pub rule: String,
    /// Empty: all routes share the rule.
    pub route: String,
    /// Requests denied, at least.
    pub limited: u64,
    /// Over the time that the client has been known, two minutes at most.
    pub limited_per_second: f64,
    pub seconds_ago: u64,
}

impl LimitedView {
    fn new(client: &Client, now: u64) -> Self {
        let (rule, route) = client.by.names();
        Self {
            client: match client.address {
                IpAddr::V4(address) => address.to_string(),
                IpAddr::V6(address) => format!("{address}/64"),
            },
            rule: rule.to_owned(),
            route: route.to_owned(),
            limited: client.denied,
            limited_per_second: client.per_second(now),
            seconds_ago: now.saturating_sub(client.last) / SECOND,
        }
    }
}

impl Admin {
    pub(super) fn offenders(&self) -> Response<Full<Bytes>> {
        let now = self.clock.now();
        let clients = self.metrics.counters().limited(MOST, now);
        let view = |client| LimitedView::new(client, now);
        let answer = l4::json(&OffendersView {
            limited: clients.most.iter().map(view).collect(),
            missing: clients.missing,
        });
        answer
            .unwrap_or_else(|(status, why): (StatusCode, String)| text(status, format!("{why}\n")))
    }
}
