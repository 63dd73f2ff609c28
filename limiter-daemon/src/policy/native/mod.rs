//! limiterd's own resources (`limiterd.io`): limits in the kernel, whom to ask about requests, and the
//! daemon's settings.

mod access_log;
mod admin_access;
pub(crate) mod http_rate_limit_policy;
pub(crate) mod limiter_config;
pub(crate) mod network_rate_limit_policy;
pub(crate) mod rate_limit_service;
mod runtime;

pub(crate) const GROUP: &str = "limiterd.io";
