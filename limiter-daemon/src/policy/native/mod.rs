//! limiterd's own resources (`limiterd.io`): limits in the kernel, and the daemon's settings.

mod access_log;
pub(crate) mod limiter_config;
pub(crate) mod network_rate_limit_policy;
pub(crate) mod rate_limit_service;

pub(crate) const GROUP: &str = "limiterd.io";
