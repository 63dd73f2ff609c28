//! The kernel half, in the kernel: run as root.
//!
//! `fixtures`, `limits` and `contention` give the program made-up packets (`BPF_PROG_TEST_RUN`) and
//! need no interface; `life` attaches it to veth pairs in network namespaces of its own.

#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "clippy takes the helpers of integration tests for production code"
)]

mod contention;
mod fixtures;
mod life;
mod limits;
mod netns;
mod packet;
mod support;
