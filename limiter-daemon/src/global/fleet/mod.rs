//! The nodes that share a store: each says that it lives, and what one blocks all block.
//!
//! One task, on the control thread, with connections of its own. Over the first it asks: a **beat**
//! every two seconds, one script that writes that this node lives and answers who else does; and what
//! this node has blocked or lifted. On the second it waits for the stream of **events** that the
//! scripts write, so that a block is known everywhere in the time of a round trip. A waiting `XREAD`
//! would hold up what comes after it on the same connection.
//!
//! **Catching up.** After connecting, the last event's place is read, then the table of blocks, piece
//! by piece, then the events from that place on. What changes while the table is read is told again by
//! an event; events say what is, so hearing one twice is hearing it once. Rejected: reading all of it
//! in one script, for which the server would stand still, and with it every node's limits. When a beat
//! finds that the store has forgotten (another epoch), went back, or that events are gone that were
//! not heard, this begins anew.
//!
//! All times are the server's (`TIME` in the scripts); what comes here is how much is left.

mod asking;
mod driver;
mod feed;
mod view;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::RedisLedger;
use crate::engine::fleet::{Alive, Blocks, ServerClock};
use crate::engine::time::Now;
use asking::Asking;
pub use driver::Driver;
pub use view::{Member, View};

/// How often a node says that it lives.
const BEAT: Duration = Duration::from_secs(2);
/// One that has been silent for so long is gone.
const GONE: Duration = Duration::from_secs(10);
/// For an answer.
const ANSWER: Duration = Duration::from_secs(1);
/// For a block on its way to the store, for which somebody waits.
const PATIENCE: Duration = Duration::from_secs(2);
/// Orders that wait at once.
const ORDERS: usize = 256;
/// Nodes at most.
const NODES: usize = 4_096;
/// Events kept, about.
const EVENTS: usize = 100_000;

/// What [`Connector`](super::connect::Connector) makes.
type Connection = redis::aio::MultiplexedConnection;

/// Reads both clocks; the monotonic one is the kernel's.
pub type Clock = Arc<dyn Fn() -> Now + Send + Sync>;

/// What a node says of itself.
#[derive(Clone, Debug)]
pub struct Me {
    /// For people; two may have the same.
    pub name: String,
    /// Its admin address.
    pub address: String,
    pub version: &'static str,
}

/// This node's part in the fleet.
#[derive(Debug)]
pub struct Fleet {
    shared: Arc<Shared>,
    orders: mpsc::Sender<Order>,
}

struct Shared {
    me: Me,
    /// 128 random bits, in hexadecimal.
    id: String,
    store: Arc<RedisLedger>,
    asking: Asking,
    alive: Arc<Alive>,
    blocks: Arc<Blocks>,
    clock: Clock,
    /// What the server's clock said at the last beat.
    server: Mutex<ServerClock>,
    view: Mutex<View>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("me", &self.me)
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
enum Order {
    /// Tell the store what is pending, and say when it has all of it.
    Push(oneshot::Sender<()>),
    /// Say that this node goes, and end.
    Leave(oneshot::Sender<()>),
}

/// The store does not have it yet: it is told when it is there again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the store does not answer: the other nodes are told when it does")]
pub struct Away;

/// Why there is no random number.
#[derive(Debug, thiserror::Error)]
#[error("no id for this node: {0}")]
pub struct NoId(rustix::io::Errno);

impl Fleet {
    /// The fleet of the nodes that share `store`, where keys begin with `prefix`; how many of them live
    /// is told to `alive`. The driver is to be run, and ends when this node
    /// leaves.
    ///
    /// # Errors
    /// When the system has no random numbers.
    pub fn join(
        (store, prefix): (&Arc<RedisLedger>, &str),
        alive: Arc<Alive>,
        me: Me,
        blocks: Arc<Blocks>,
        clock: Clock,
    ) -> Result<(Self, Driver), NoId> {
        let id = random_id()?;
        let store = Arc::clone(store);
        let shared = Arc::new(Shared {
            asking: Asking::new(prefix),
            alive,
            server: Mutex::default(),
            view: Mutex::new(View::new(&id)),
            me,
            id,
            store,
            blocks,
            clock,
        });
        let (sender, orders) = mpsc::channel(ORDERS);
        let driver = Driver::new(Arc::clone(&shared), orders);
        let orders = sender;
        Ok((Self { shared, orders }, driver))
    }

    /// Who is there, as last heard.
    #[must_use]
    pub fn view(&self) -> View {
        let now = (self.shared.clock)();
        self.shared.view().at(now.mono)
    }

    /// Nodes last seen alive.
    #[must_use]
    pub fn nodes(&self) -> u32 {
        self.shared.alive.nodes()
    }

    /// Tells the store what was blocked and lifted here, and waits until it has it.
    ///
    /// # Errors
    /// When it does not in two seconds.
    pub async fn push(&self) -> Result<(), Away> {
        if !self.shared.view().connected {
            return Err(Away);
        }
        self.order(Order::Push, PATIENCE).await
    }

    /// Says that this node goes; the driver ends.
    pub async fn leave(&self) {
        // Who cannot be told sees that it is silent.
        let _away = self.order(Order::Leave, ANSWER).await;
    }

    async fn order(
        &self,
        order: impl FnOnce(oneshot::Sender<()>) -> Order,
        within: Duration,
    ) -> Result<(), Away> {
        let (done, told) = oneshot::channel();
        let sent = async {
            self.orders.send(order(done)).await.ok()?;
            told.await.ok()
        };
        timeout(within, sent).await.ok().flatten().ok_or(Away)
    }
}

impl Shared {
    fn server(&self) -> ServerClock {
        *self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn random_id() -> Result<String, NoId> {
    use std::fmt::Write as _;
    let mut bytes = [0u8; 16];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).map_err(NoId)?;
    let mut id = String::with_capacity(32);
    for byte in bytes {
        // Writing to a String does not fail.
        let _infallible = write!(id, "{byte:02x}");
    }
    Ok(id)
}
