//! Envoy Gateway's extensions (`gateway.envoyproxy.io`): backends, how clients are spoken to, and
//! limits on HTTP requests.

pub(crate) mod backend;
pub(crate) mod backend_traffic_policy;
pub(crate) mod client_traffic_policy;
pub(crate) mod rate_limit;
pub(crate) mod targets;

pub(crate) const GROUP: &str = "gateway.envoyproxy.io";
