//! `deploy/kubernetes`: what kubectl and helm make of it, and pods that run as it says.

mod documented;
mod edge;
mod render;
mod rls_only;
mod support;
