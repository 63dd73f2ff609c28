//! What docs/envoy-gateway.md and docs/policy.md promise about HTTP, from the files to the bytes on the
//! wire. Limits are per hour, so that nothing comes back in the time that a test takes.

mod attachment;
mod extension;
mod filters;
mod https;
mod rules;
mod selectors;
