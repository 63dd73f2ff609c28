//! Envoy Gateway's extensions (`gateway.envoyproxy.io`): backends, how clients are spoken to, and
//! limits on HTTP requests; and where Envoy Gateway says that global limits are counted.

pub(crate) mod backend;
pub(crate) mod backend_traffic_policy;
pub(crate) mod client_traffic_policy;
#[expect(
    clippy::module_inception,
    reason = "the kind has the name of its dialect"
)]
pub(crate) mod envoy_gateway;
pub(crate) mod rate_limit;
pub(crate) mod store;
pub(crate) mod targets;

pub(crate) const GROUP: &str = "gateway.envoyproxy.io";
