//! A block: a network whose packets are dropped for a time, by whom, why, and how far that is known.

use std::fmt::Debug;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::counts::Event;

/// Who is to block a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// This node.
    Node,
    /// All nodes that share the store.
    Fleet,
}

/// Who wants what is in the kernel there. It lies there as well, and so outlives the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// This node.
    Node,
    /// The fleet.
    Fleet,
    /// The fleet is to be told.
    Unsent,
}

/// A network that the kernel drops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sentence {
    pub net: IpNet,
    /// Its end, in nanoseconds of the clock that the kernel goes by.
    pub until: u64,
    pub origin: Origin,
}

/// What enforces blocks.
pub trait Gate: Debug + Send + Sync {
    /// Drops what comes from the network until the sentence's end. One that lasts longer already
    /// stays as long, and is from then on of this origin.
    ///
    /// # Errors
    /// When that cannot be.
    fn block(&self, sentence: Sentence) -> Result<(), GateError>;

    /// Lets the network through again; those around it and inside it are not touched.
    ///
    /// # Errors
    /// When that cannot be.
    fn lift(&self, net: IpNet) -> Result<(), GateError>;

    /// What is blocked now, also by an earlier process.
    fn served(&self) -> Vec<Sentence>;

    /// Something has come of a block, to be told on. The table is locked meanwhile.
    fn note(&self, event: Event, told: Told<'_>);
}

/// Of what something has come.
#[derive(Clone, Copy, Debug)]
pub struct Told<'a> {
    pub net: IpNet,
    pub scope: Scope,
    /// By whom and why it was passed, or lifted.
    pub cause: &'a Cause,
    /// Its end, by the kernel's clock, where it is in force from now on.
    pub until: Option<u64>,
}

/// Why the kernel does not do it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct GateError(pub String);

/// By whom, why, and by which rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// Name of the node that passed it.
    pub by: String,
    /// For people.
    #[serde(default)]
    pub why: String,
    /// What decided; `manual` by hand.
    #[serde(default)]
    pub rule: String,
}

impl Cause {
    /// Of what an earlier process left in the kernel.
    pub(super) fn unknown() -> Self {
        Self::told("passed before this process started")
    }

    /// Of what follows from the tables.
    pub(super) fn told(why: &str) -> Self {
        Self {
            why: why.to_owned(),
            ..Self::default()
        }
    }
}

/// A block as the store has it, in milliseconds by the server's clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remote {
    pub since: u64,
    pub until: u64,
    #[serde(flatten)]
    pub cause: Cause,
}

/// What the store is to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pending {
    Block {
        net: IpNet,
        /// Milliseconds that are left.
        left: u64,
        /// Milliseconds since it was passed.
        age: u64,
        cause: Cause,
        /// Which of several blocks of the same network it is.
        mark: u64,
    },
    Lift {
        net: IpNet,
        by: Cause,
        /// The end of what is lifted, by the server's clock: one that lasts longer is another.
        until: Option<u64>,
    },
}

/// A block in force, to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    pub net: IpNet,
    pub scope: Scope,
    /// The other nodes do not know it yet.
    pub unsent: bool,
    /// Milliseconds since 1970, by the clock of the store, or of this node where it did not come from
    /// there; `None`: not known.
    pub since: Option<u64>,
    pub until: u64,
    /// Nanoseconds that are left.
    pub left: u64,
    pub cause: Cause,
}

/// Why a block is not passed or lifted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    #[error(
        "{max} networks are blocked already, each for longer; lift some, or block a wider network"
    )]
    Full { max: usize },
    #[error("{0} is not blocked")]
    NotBlocked(IpNet),
    #[error("{0} is blocked for the fleet; without --node it is unblocked on all nodes")]
    OfTheFleet(IpNet),
    #[error(
        "there is no store that nodes share, so a block is for this node: name one in rateLimit of the LimiterConfig or EnvoyGateway, or add --node"
    )]
    NoStore,
    #[error(transparent)]
    Gate(#[from] GateError),
}
