//! Kubernetes' own resources, as far as the Gateway API refers to them.

pub(crate) mod config_map;
pub(crate) mod endpoint_slice;
pub(crate) mod labels;
pub(crate) mod namespace;
pub(crate) mod pem;
pub(crate) mod secret;
pub(crate) mod service;

/// The group of the resources of `v1`.
pub(crate) const GROUP: &str = "";
/// The group of EndpointSlices.
pub(crate) const DISCOVERY_GROUP: &str = "discovery.k8s.io";
