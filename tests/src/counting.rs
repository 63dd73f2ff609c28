//! What a Redis is asked, counted: so that a test knows when all of it is done.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use limiter_daemon::engine::store::ledger::{Asking, Change, Ledger, Question};
use limiter_daemon::engine::store::parts::{Parts, Place};
use limiter_daemon::engine::time::Now;
use limiter_daemon::global::RedisLedger;
use limiter_daemon::policy::plan::StoreAddress;

/// A Redis that counts what it is asked.
#[derive(Clone, Debug)]
pub struct Counting {
    ledger: Arc<RedisLedger>,
    questions: Arc<AtomicU64>,
}

impl Counting {
    #[must_use]
    pub fn new(ledger: Arc<RedisLedger>) -> Self {
        Self {
            ledger,
            questions: Arc::default(),
        }
    }

    /// The same as a ledger of all its parts, if it has any.
    #[must_use]
    pub fn whole(&self, address: &StoreAddress) -> Arc<dyn Ledger> {
        let ledger = Arc::new(self.clone());
        if matches!(address, StoreAddress::Cluster(_)) {
            let slots = true;
            Arc::new(Parts::new(Place { ledger, slots }, None))
        } else {
            ledger
        }
    }

    /// Waits until all that was asked is answered.
    pub async fn settled(&self) {
        while self.ledger.counts().asked()[0].1 < self.questions.load(Ordering::Relaxed) {
            tokio::task::yield_now().await;
        }
    }
}

impl Ledger for Counting {
    fn ask(&self, question: Question, now: Now) -> Option<Asking> {
        self.questions.fetch_add(1, Ordering::Relaxed);
        self.ledger.ask(question, now)
    }

    fn change(&self, changes: Vec<Change>, now: Now) {
        self.questions.fetch_add(1, Ordering::Relaxed);
        self.ledger.change(changes, now);
    }
}
