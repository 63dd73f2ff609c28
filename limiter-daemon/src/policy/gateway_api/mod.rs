//! The Gateway API (`gateway.networking.k8s.io`): which requests come in, and where they go.

pub(crate) mod filters;
pub(crate) mod gateway;
pub(crate) mod grpc_match;
pub(crate) mod hostname;
pub(crate) mod listener;
pub(crate) mod listener_set;
pub(crate) mod parents;
pub(crate) mod references;
mod retry;
pub(crate) mod route;
pub(crate) mod route_match;

pub(crate) const GROUP: &str = "gateway.networking.k8s.io";
