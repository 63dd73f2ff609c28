//! Envoy Gateway's extensions (`gateway.envoyproxy.io`): backends, and limits on HTTP requests.

pub(crate) mod backend;
pub(crate) mod backend_traffic_policy;
pub(crate) mod local_limit;

pub(crate) const GROUP: &str = "gateway.envoyproxy.io";
