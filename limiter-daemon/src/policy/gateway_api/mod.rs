//! The Gateway API (`gateway.networking.k8s.io`): which requests come in, and where they go.

pub(crate) mod gateway;
pub(crate) mod hostname;
pub(crate) mod http_route;
pub(crate) mod route_match;

pub(crate) const GROUP: &str = "gateway.networking.k8s.io";
