//! Gloo's dialect: gateways, virtual services and route tables, options that are given in them or
//! attached to them, upstreams, and what the rate limit server is configured with.
//!
//! Facts: the API reference of Gloo Gateway (`gateway.solo.io`, `gloo.solo.io`,
//! `ratelimit.solo.io`). A field that Gloo has and that means nothing here is named: in an error
//! where requests would be treated otherwise without it, in a warning where not.

pub(crate) mod action;
pub(crate) mod balancer;
pub(crate) mod gateway;
mod health;
pub(crate) mod listener_options;
pub(crate) mod matcher;
pub(crate) mod rate_limit;
pub(crate) mod references;
pub(crate) mod route;
pub(crate) mod route_options;
pub(crate) mod route_table;
pub(crate) mod set_descriptors;
pub(crate) mod settings;
pub(crate) mod ssl;
pub(crate) mod tcp;
pub(crate) mod token_bucket;
pub(crate) mod traffic;
pub(crate) mod upstream;
pub(crate) mod virtual_host_options;
pub(crate) mod virtual_service;

pub(crate) mod rate_limit_config;

/// The group of gateways, virtual services and route tables, and of options.
pub(crate) const GATEWAY_GROUP: &str = "gateway.solo.io";
/// The group of upstreams and settings.
pub(crate) const GLOO_GROUP: &str = "gloo.solo.io";
/// The group of the rate limit server's configuration.
pub(crate) const RATE_LIMIT_GROUP: &str = "ratelimit.solo.io";
