//! What a policy holds besides rate limits, and what it comes to.

use serde::Deserialize;

use super::admission_control::{self, AdmissionControl, RawAdmissionControl};
use super::circuit_breaker::{self, CircuitBreaker, RawCircuitBreaker};
use super::connections::{self, Dns, RawDns, RawTcpKeepalive, TcpKeepalive};
use super::fault_injection::{self, Fault, RawFault};
use super::health_check::{self, HealthCheck, RawHealthCheck};
use super::load_balancer::{self, LoadBalancer, RawLoadBalancer};
use super::merge::{Bound, Merge as _, by_field};
use super::response_override::{self, Override, RawOverride};
use super::retry::{self, RawRetry, Retry};
use super::timeout::{self, RawTimeout, Timeout};
use crate::policy::decode::{At, NumberOrText};
use crate::policy::findings::{Mark, Scope};
use crate::policy::plan::{BackendSettings, RouteTraffic};
use crate::policy::quantity;
use crate::policy::resource::{Deprecated, Meta};

/// Of a request that is read whole, in bytes: it is held in memory.
const MAX_BUFFER: u64 = 1 << 30;

/// The blocks as files write them.
#[derive(Debug)]
pub(super) struct RawBlocks {
    pub(super) circuit_breaker: Option<RawCircuitBreaker>,
    pub(super) health_check: Option<RawHealthCheck>,
    pub(super) load_balancer: Option<At<RawLoadBalancer>>,
    pub(super) retry: Option<RawRetry>,
    pub(super) timeout: Option<RawTimeout>,
    pub(super) fault_injection: Option<At<RawFault>>,
    pub(super) response_override: Option<At<Vec<At<RawOverride>>>>,
    pub(super) request_buffer: Option<RawRequestBuffer>,
    pub(super) admission_control: Option<RawAdmissionControl>,
    pub(super) tcp_keepalive: Option<RawTcpKeepalive>,
    pub(super) dns: Option<RawDns>,
}

#[derive(Debug, Deserialize)]
pub(super) struct RawRequestBuffer {
    limit: At<NumberOrText>,
}

/// The blocks, each as far as the policy says it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Blocks {
    circuit_breaker: Option<CircuitBreaker>,
    health_check: Option<HealthCheck>,
    load_balancer: Option<LoadBalancer>,
    retry: Option<Retry>,
    timeout: Option<Timeout>,
    fault: Option<Fault>,
    overrides: Option<Vec<Override>>,
    request_buffer: Option<u64>,
    admission_control: Option<AdmissionControl>,
    tcp_keepalive: Option<TcpKeepalive>,
    dns: Option<Dns>,
}

by_field!(Blocks {
    circuit_breaker,
    health_check,
    load_balancer,
    retry,
    timeout,
    fault,
    overrides,
    request_buffer,
    admission_control,
    tcp_keepalive,
    dns,
});

/// Checks the blocks; `grpc`: the policy is for GRPCRoutes alone.
pub(super) fn lower(
    raw: RawBlocks,
    grpc: bool,
    meta: &Meta,
    deprecated: &mut Vec<Deprecated>,
    scope: &mut Scope<'_>,
) -> Blocks {
    Blocks {
        circuit_breaker: raw
            .circuit_breaker
            .map(|raw| circuit_breaker::lower(raw, scope)),
        health_check: raw.health_check.map(|raw| health_check::lower(raw, scope)),
        load_balancer: raw
            .load_balancer
            .map(|raw| load_balancer::lower(raw, deprecated, scope)),
        retry: raw.retry.map(|raw| retry::lower(raw, grpc, scope)),
        timeout: raw.timeout.map(|raw| timeout::lower(raw, scope)),
        fault: raw
            .fault_injection
            .map(|raw| fault_injection::lower(raw, scope)),
        overrides: raw
            .response_override
            .map(|raw| response_override::lower(raw, meta, scope)),
        request_buffer: raw
            .request_buffer
            .and_then(|raw| request_buffer(&raw.limit, scope)),
        admission_control: raw
            .admission_control
            .map(|raw| admission_control::lower(raw, scope)),
        tcp_keepalive: raw
            .tcp_keepalive
            .map(|raw| connections::lower_keepalive(raw, scope)),
        dns: raw.dns.map(|raw| connections::lower_dns(raw, scope)),
    }
}

fn request_buffer(limit: &At<NumberOrText>, scope: &mut Scope<'_>) -> Option<u64> {
    let bytes = quantity::read(limit, scope)?;
    if bytes == 0 || bytes > MAX_BUFFER {
        let message = format!("{bytes} is out of range");
        scope.error(&limit.mark, message, "write 1 byte to `1Gi`, as `10Mi`");
        return None;
    }
    Some(bytes)
}

impl Blocks {
    /// These, and what they do not say as `parent` says it.
    #[must_use]
    pub(crate) fn joined(self, parent: &Self) -> Self {
        self.over(parent)
    }

    /// Whether they say anything at all.
    pub(crate) const fn is_empty(&self) -> bool {
        !self.is_about_backends()
            && self.retry.is_none()
            && self.timeout.is_none()
            && self.fault.is_none()
            && self.overrides.is_none()
            && self.request_buffer.is_none()
            && self.admission_control.is_none()
    }

    /// Whether they say how backends are treated.
    pub(crate) const fn is_about_backends(&self) -> bool {
        let timeouts = match &self.timeout {
            Some(timeout) => timeout.is_about_backends(),
            None => false,
        };
        timeouts
            || self.circuit_breaker.is_some()
            || self.health_check.is_some()
            || self.load_balancer.is_some()
            || self.tcp_keepalive.is_some()
            || self.dns.is_some()
    }

    /// Where it says how many endpoints may be ejected.
    pub(crate) fn ejection_mark(&self) -> Option<&Mark> {
        Some(self.health_check.as_ref()?.passive()?.mark())
    }

    pub(crate) fn overrides(&self) -> Option<&[Override]> {
        self.overrides.as_deref()
    }

    /// For requests to which the route itself gives no time.
    pub(crate) fn request_timeout(&self) -> Option<Bound> {
        self.timeout.as_ref()?.request
    }

    /// How backends are treated.
    pub(crate) fn backend_settings(&self) -> BackendSettings {
        let default = BackendSettings::default();
        let health = self.health_check.as_ref();
        let timeout = self.timeout.as_ref();
        BackendSettings {
            circuit_breaker: self
                .circuit_breaker
                .as_ref()
                .map_or(default.circuit_breaker, CircuitBreaker::plan),
            load_balancer: self
                .load_balancer
                .as_ref()
                .map_or(default.load_balancer, LoadBalancer::plan),
            outlier_detection: health
                .and_then(HealthCheck::passive)
                .map(|passive| passive.plan()),
            health_check: health.and_then(HealthCheck::plan),
            panic_threshold: health
                .and_then(HealthCheck::panic_threshold)
                .unwrap_or(default.panic_threshold),
            connect_timeout: timeout
                .and_then(|timeout| timeout.connect)
                .unwrap_or(default.connect_timeout),
            idle_timeout: timeout
                .and_then(|timeout| timeout.connection_idle)
                .map_or(default.idle_timeout, |bound| bound.0),
            max_connection_age: timeout
                .and_then(|timeout| timeout.max_connection)
                .map_or(default.max_connection_age, |bound| bound.0),
            tcp_keepalive: self.tcp_keepalive.as_ref().map(TcpKeepalive::plan),
            dns: self.dns.as_ref().map_or(default.dns, Dns::plan),
        }
    }

    /// What is done to requests of routes; without overrides, which have references.
    pub(crate) fn route_traffic(&self, policy: String) -> RouteTraffic {
        let timeout = self.timeout.as_ref();
        let stream_idle = timeout.and_then(|timeout| timeout.stream_idle);
        RouteTraffic {
            policy,
            retry: self.retry.as_ref().and_then(Retry::plan),
            max_stream_duration: timeout
                .and_then(|timeout| timeout.max_stream)
                .and_then(|bound| bound.0),
            stream_idle: stream_idle.and_then(|bound| bound.0),
            stream_idle_unbounded: stream_idle == Some(Bound(None)),
            fault: self.fault.as_ref().and_then(Fault::plan),
            overrides: Vec::new(),
            request_buffer: self.request_buffer,
            admission_control: self.admission_control.as_ref().map(AdmissionControl::plan),
        }
    }
}
