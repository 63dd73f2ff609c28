//! Which host a request goes to.
//!
//! Health is looked at when a host comes up, not before: with all hosts well, a choice costs what the
//! algorithm costs, however many hosts there are. Only when an unhealthy one comes up, or a request
//! is sent again, are all of them counted.

mod least_request;
mod maglev;
mod random;
mod round_robin;
mod slow_start;

use std::cell::OnceCell;
use std::sync::Arc;

use super::host::Host;
use super::mix::{below, splitmix64};
use crate::policy::plan::{BackendSettings, Balancing};
use maglev::Table;
use round_robin::Turns;
use slow_start::SlowStart;

/// The hosts of a backend under one policy, and how requests are spread over them. Immutable: made
/// anew when hosts or settings change.
#[derive(Debug)]
pub struct Hosts {
    all: Vec<Arc<Host>>,
    /// Percent; 0: health always counts.
    panic_threshold: u32,
    slow_start: SlowStart,
    algorithm: Algorithm,
}

#[derive(Debug)]
enum Algorithm {
    LeastRequest,
    RoundRobin(Turns),
    Random,
    Maglev(Table),
}

/// What a host is worth to a request, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// Healthy, not tried, and the last one that tried reached it.
    Best,
    /// Healthy, not tried.
    Untried,
    /// Not tried, and ejected; in a panic, unhealthy in any way.
    Doubtful,
    /// Healthy, and tried by this request.
    Tried,
    /// The same, unhealthy: only in a panic.
    Last,
    Never,
}

impl Hosts {
    #[must_use]
    pub fn new(settings: &BackendSettings, hosts: Vec<Arc<Host>>) -> Self {
        let balancer = &settings.load_balancer;
        let algorithm = match &balancer.algorithm {
            Balancing::LeastRequest => Algorithm::LeastRequest,
            Balancing::RoundRobin => Algorithm::RoundRobin(Turns::default()),
            Balancing::Random => Algorithm::Random,
            Balancing::ConsistentHash { table_size, .. } => {
                Algorithm::Maglev(Table::new(&hosts, *table_size))
            }
        };
        Self {
            all: hosts,
            panic_threshold: settings.panic_threshold,
            slow_start: SlowStart::new(balancer.slow_start),
            algorithm,
        }
    }

    #[must_use]
    pub fn all(&self) -> &[Arc<Host>] {
        &self.all
    }

    /// How many are neither ejected nor failed by checks (Envoy: `membership_healthy`).
    #[must_use]
    pub fn healthy(&self, now: u64) -> usize {
        self.all.iter().filter(|host| host.is_healthy(now)).count()
    }

    /// How many active checks found well (Envoy: `health_check.healthy`).
    #[must_use]
    pub fn passing(&self) -> usize {
        let passing = |host: &&Arc<Host>| host.has_passed_checks();
        self.all.iter().filter(passing).count()
    }

    /// How many are ejected (Envoy: `outlier_detection_ejections_active`).
    #[must_use]
    pub fn ejected(&self, now: u64) -> usize {
        let ejected = |host: &&Arc<Host>| host.record.is_ejected(now);
        self.all.iter().filter(ejected).count()
    }

    /// Whether so few are healthy that health is not looked at.
    #[must_use]
    pub fn panics(&self, now: u64) -> bool {
        // As in Envoy, exactly at the threshold there is no panic.
        let healthy = self.healthy(now) as u64 * 100;
        healthy < u64::from(self.panic_threshold) * self.all.len() as u64
    }

    /// Index of the host for a request; `None`: there is none that it may go to.
    ///
    /// `hash` is of what a consistent hash goes by; without it, one is taken by chance. `random` are
    /// 64 evenly spread bits. `tried` are the hosts that this request went to before. A request that
    /// was sent before prefers, in this order: hosts that are healthy and could be reached the last
    /// time; that are healthy; that are ejected, unless health always counts; and only then those
    /// that it has tried. In a panic, a first attempt does not look at health, and later ones still
    /// prefer hosts that are well.
    #[must_use]
    pub fn pick(&self, hash: Option<u64>, tried: &[usize], random: u64, now: u64) -> Option<usize> {
        let view = View::new(self, tried, now);
        let picked = match &self.algorithm {
            Algorithm::LeastRequest => least_request::pick(&view, random),
            Algorithm::RoundRobin(turns) => turns.pick(&view, random),
            Algorithm::Random => random::pick(&view, random),
            Algorithm::Maglev(table) => match hash {
                Some(hash) => table.pick(&view, hash),
                None => random::pick(&view, random),
            },
        };
        // Hosts may change during a choice, so that the best that there was is not found any more.
        picked.or_else(|| View::new(self, tried, now).best_host())
    }
}

/// The hosts as one request sees them at one instant.
struct View<'a> {
    hosts: &'a Hosts,
    tried: &'a [usize],
    now: u64,
    panics: OnceCell<bool>,
    best: OnceCell<Rank>,
}

/// Hosts that are tried by chance before all are counted.
const CHANCES: usize = 4;

impl<'a> View<'a> {
    const fn new(hosts: &'a Hosts, tried: &'a [usize], now: u64) -> Self {
        Self {
            hosts,
            tried,
            now,
            panics: OnceCell::new(),
            best: OnceCell::new(),
        }
    }

    fn count(&self) -> usize {
        self.hosts.all.len()
    }

    fn host(&self, index: usize) -> &Host {
        &self.hosts.all[index]
    }

    fn panics(&self) -> bool {
        *self.panics.get_or_init(|| self.hosts.panics(self.now))
    }

    /// Whether the request may go to this host: no other is worth more to it.
    fn takes(&self, index: usize) -> bool {
        if self.tried.is_empty() {
            return self.host(index).is_healthy(self.now) || self.panics();
        }
        let rank = self.rank(index);
        rank == Rank::Best || (rank != Rank::Never && rank == self.best())
    }

    /// The best rank there is for a request that was sent before.
    fn best(&self) -> Rank {
        let ranks = || (0..self.count()).map(|index| self.rank(index));
        *self
            .best
            .get_or_init(|| ranks().min().unwrap_or(Rank::Never))
    }

    /// One that is worth most to the request, by one look at each.
    fn best_host(&self) -> Option<usize> {
        let ranks = (0..self.count()).map(|index| (self.rank(index), index));
        let (rank, index) = ranks.min()?;
        let may = !self.tried.is_empty() || self.takes(index);
        (may && rank != Rank::Never).then_some(index)
    }

    fn rank(&self, index: usize) -> Rank {
        let host = self.host(index);
        let tried = self.tried.contains(&index);
        if host.is_healthy(self.now) {
            return match (tried, host.is_unreachable()) {
                (true, _) => Rank::Tried,
                (false, true) => Rank::Untried,
                (false, false) => Rank::Best,
            };
        }
        let panics = self.panics();
        let ejected_only = self.hosts.panic_threshold > 0 && !host.has_failed_checks();
        match tried {
            false if panics || ejected_only => Rank::Doubtful,
            true if panics => Rank::Last,
            _ => Rank::Never,
        }
    }

    /// One of those that may be taken, each as likely as any other.
    fn any(&self, random: u64) -> Option<usize> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        let mut random = random;
        for _ in 0..CHANCES {
            let index = below(random, count);
            if self.takes(index) {
                return Some(index);
            }
            random = splitmix64(random);
        }
        let may = || (0..count).filter(|index| self.takes(*index));
        let nth = below(random, may().count());
        // Health may have changed between the two looks.
        may().nth(nth).or_else(|| may().next())
    }
}

#[cfg(test)]
mod tests;
