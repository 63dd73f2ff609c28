//! The table of offenders: bounded, and of all who offend the last ones are remembered.

use std::hash::{BuildHasher as _, RandomState};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ipnet::IpNet;
use lru::LruCache;

use super::offender::Offender;
use super::proxies::Proxies;

/// Offenders that are remembered at most.
pub const MAX_OFFENDERS: usize = SHARDS * IN_SHARD.get();
const SHARDS: usize = 64;
const IN_SHARD: NonZeroUsize = NonZeroUsize::new(1_024).unwrap();

/// Under which policy an offender is known, by a hash of its name, and who it is.
type Key = (u64, IpNet);

/// What is known of offenders, over all policies; it outlives a plan.
#[derive(Debug)]
pub struct Offenders {
    shards: Box<[Mutex<LruCache<Key, Offender>>]>,
    hasher: RandomState,
    forgotten: AtomicU64,
    proxies: Proxies,
}

impl Default for Offenders {
    fn default() -> Self {
        // Room is taken as it is needed: who has no escalation pays nothing for it.
        let shard = |_| Mutex::new(LruCache::unbounded());
        Self {
            shards: (0..SHARDS).map(shard).collect(),
            hasher: RandomState::new(),
            forgotten: AtomicU64::new(0),
            proxies: Proxies::default(),
        }
    }
}

impl Offenders {
    /// How many are remembered.
    #[must_use]
    pub fn known(&self) -> usize {
        let shards = self.shards.iter();
        shards.map(|shard| lock(shard).len()).sum()
    }

    /// Offenders forgotten because others had offended since.
    #[must_use]
    pub fn forgotten(&self) -> u64 {
        self.forgotten.load(Ordering::Relaxed)
    }

    /// Peers by which requests of others come.
    #[must_use]
    pub const fn proxies(&self) -> &Proxies {
        &self.proxies
    }

    /// Under what a policy's offenders are known.
    pub(super) fn policy(&self, name: &str) -> u64 {
        self.hasher.hash_one(name)
    }

    /// Does something about an offender, known or new.
    pub(super) fn of<T>(
        &self,
        policy: u64,
        net: IpNet,
        with: impl FnOnce(&mut Offender) -> T,
    ) -> T {
        let key = (policy, net);
        let shard = &mut *lock(self.shard(&key));
        if let Some(known) = shard.get_mut(&key) {
            return with(known);
        }
        if shard.len() >= IN_SHARD.get() {
            shard.pop_lru();
            self.forgotten.fetch_add(1, Ordering::Relaxed);
        }
        with(shard.get_or_insert_mut(key, Offender::default))
    }

    /// Does something about an offender if it is known.
    pub(super) fn known_as(&self, policy: u64, net: IpNet, with: impl FnOnce(&mut Offender)) {
        let key = (policy, net);
        if let Some(known) = lock(self.shard(&key)).peek_mut(&key) {
            with(known);
        }
    }

    /// Forgets all that is known of an offender.
    pub(super) fn pardon(&self, policy: u64, net: IpNet) {
        let key = (policy, net);
        lock(self.shard(&key)).pop(&key);
    }

    fn shard(&self, key: &Key) -> &Mutex<LruCache<Key, Offender>> {
        let hash = self.hasher.hash_one(key);
        let at = hash % SHARDS as u64;
        &self.shards[usize::try_from(at).unwrap_or_default()]
    }
}

fn lock(shard: &Mutex<LruCache<Key, Offender>>) -> MutexGuard<'_, LruCache<Key, Offender>> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}
