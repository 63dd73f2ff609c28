//! `tcpKeepalive` and `dns`: how endpoints are found and connections kept.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde::Deserialize;

use super::merge::{by_field, whole};
use super::numbers;
use crate::policy::decode::At;
use crate::policy::findings::Scope;
use crate::policy::plan::{self, LookupFamily};
use crate::policy::units;

/// What Linux takes (`MAX_TCP_KEEPCNT`, `MAX_TCP_KEEPIDLE`, `MAX_TCP_KEEPINTVL`).
const PROBES: RangeInclusive<u32> = 1..=127;
const MAX_SECONDS: u64 = 32_767;
/// Envoy's.
const LEAST_REFRESH: Duration = Duration::from_millis(1);

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawTcpKeepalive {
    probes: Option<At<u32>>,
    idle_time: Option<At<String>>,
    interval: Option<At<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawDns {
    dns_refresh_rate: Option<At<String>>,
    respect_dns_ttl: Option<bool>,
    lookup_family: Option<RawFamily>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
enum RawFamily {
    IPv4,
    IPv6,
    IPv4Preferred,
    IPv6Preferred,
    IPv4AndIPv6,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct TcpKeepalive {
    probes: Option<u32>,
    idle: Option<Duration>,
    interval: Option<Duration>,
}

by_field!(TcpKeepalive {
    probes,
    idle,
    interval
});

#[derive(Clone, Debug, Default)]
pub(crate) struct Dns {
    refresh: Option<Duration>,
    respect_ttl: Option<bool>,
    family: Option<LookupFamily>,
}

by_field!(Dns {
    refresh,
    respect_ttl,
    family
});
whole!(LookupFamily);

/// Checks `tcpKeepalive`.
pub(super) fn lower_keepalive(raw: RawTcpKeepalive, scope: &mut Scope<'_>) -> TcpKeepalive {
    TcpKeepalive {
        probes: raw
            .probes
            .and_then(|at| numbers::within(&at, &PROBES, scope)),
        idle: whole_seconds(raw.idle_time.as_ref(), scope),
        interval: whole_seconds(raw.interval.as_ref(), scope),
    }
}

/// The kernel counts these by the second.
fn whole_seconds(text: Option<&At<String>>, scope: &mut Scope<'_>) -> Option<Duration> {
    let text = text?;
    let time = units::positive_duration(text, scope)?;
    if time.subsec_nanos() > 0 || time.as_secs() > MAX_SECONDS {
        scope.error(
            &text.mark,
            format!("`{}` is no time that the kernel can take", text.value),
            format!("write whole seconds, `1s` to `{MAX_SECONDS}s`"),
        );
        return None;
    }
    Some(time)
}

/// Checks `dns`.
pub(super) fn lower_dns(raw: RawDns, scope: &mut Scope<'_>) -> Dns {
    Dns {
        refresh: numbers::time_of_at_least(raw.dns_refresh_rate.as_ref(), LEAST_REFRESH, scope),
        respect_ttl: raw.respect_dns_ttl,
        family: raw.lookup_family.map(|family| match family {
            RawFamily::IPv4 => LookupFamily::Ipv4,
            RawFamily::IPv6 => LookupFamily::Ipv6,
            RawFamily::IPv4Preferred => LookupFamily::Ipv4Preferred,
            RawFamily::IPv6Preferred => LookupFamily::Ipv6Preferred,
            RawFamily::IPv4AndIPv6 => LookupFamily::Ipv4AndIpv6,
        }),
    }
}

impl TcpKeepalive {
    pub(super) const fn plan(&self) -> plan::TcpKeepalive {
        plan::TcpKeepalive {
            probes: self.probes,
            idle: self.idle,
            interval: self.interval,
        }
    }
}

impl Dns {
    pub(super) fn plan(&self) -> plan::Dns {
        let default = plan::Dns::default();
        plan::Dns {
            refresh: self.refresh.unwrap_or(default.refresh),
            respect_ttl: self.respect_ttl.unwrap_or(default.respect_ttl),
            family: self.family.unwrap_or(default.family),
        }
    }
}
