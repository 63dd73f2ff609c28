//! What a node knows of the others.

use crate::engine::fleet::StreamId;

/// The fleet as last heard of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// This node's id.
    pub id: String,
    /// Whether the store answers now.
    pub connected: bool,
    /// Why it does not.
    pub away: Option<String>,
    /// Last event in the store.
    pub last: StreamId,
    /// Blocks in the store.
    pub stored: u64,
    /// Nodes last seen alive, by name.
    pub nodes: Vec<Member>,
    /// When that was, by the kernel's clock; 0: never.
    pub heard: u64,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub id: String,
    pub name: String,
    pub address: String,
    pub version: String,
    /// Since when it runs: milliseconds since 1970, by the server's clock.
    pub since: u64,
    /// Milliseconds since its last beat.
    pub silent: u64,
    /// Blocks in force there, of the fleet and of its own.
    pub blocks: u64,
    /// Whether it had heard of all blocks when it beat last.
    pub caught_up: bool,
}

impl View {
    pub(super) fn new(id: &str) -> Self {
        Self {
            id: id.to_owned(),
            ..Self::default()
        }
    }

    /// The same, some time later.
    pub(super) fn at(&self, now: u64) -> Self {
        let later = now.saturating_sub(self.heard) / 1_000_000;
        let mut view = self.clone();
        for node in &mut view.nodes {
            node.silent = node.silent.saturating_add(later);
        }
        view
    }
}
