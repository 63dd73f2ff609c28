//! The kernel half, in the kernel: run as root.
//!
//! `life`, `hooks`, `interfaces`, `stacked` and `privileges` attach the program to veth pairs in network namespaces of their own; the others
//! give it made-up packets (`BPF_PROG_TEST_RUN`) and need no interface.

#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "clippy takes the helpers of integration tests for production code"
)]

mod contention;
mod fixtures;
mod hooks;
mod interfaces;
mod life;
mod limits;
mod netns;
mod packet;
mod policies;
mod privileges;
mod sentences;
mod sources;
mod stacked;
mod support;
mod swap;
