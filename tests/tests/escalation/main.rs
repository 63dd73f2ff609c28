//! Sentences: who keeps offending over HTTP is dropped in the kernel for a time, and nobody else is.

mod fleet;
mod full;
mod growth;
mod ipv6;
mod offences;
mod protected;
mod seen;
mod support;
