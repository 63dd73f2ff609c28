//! Which clients limits on requests deny, in bounded memory: for whoever asks, never for a metric.
//!
//! Each worker has an account of its own ([`Account`]), which only denials touch: two tables of
//! [`Top`], for the minute that is under way and for the one before, so that what is told is never
//! older than two minutes. Once they have their size they allocate nothing. Who asks has the accounts
//! of all workers added up; counts are never too high.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::state::{RouteStats, Scope};
use super::top::{Seen, Top};

/// Clients that each worker keeps of a minute, at least; twice as many at most.
const KEPT: usize = 256;
const SECOND: u64 = 1_000_000_000;
/// Nanoseconds of a window.
const WINDOW: u64 = 60 * SECOND;

/// What denied a request.
#[derive(Clone, Debug)]
pub enum By {
    /// A limit.
    Limit(Arc<Scope>),
    /// A rate limit service that this route asks.
    Service(Arc<RouteStats>),
}

impl By {
    /// Rule and route; no rule: a rate limit service; no route: all share the rule.
    #[must_use]
    pub fn names(&self) -> (&str, &str) {
        match self {
            Self::Limit(scope) => (&scope.name.rule, &scope.name.route),
            Self::Service(route) => ("", &route.route),
        }
    }
}

impl PartialEq for By {
    fn eq(&self, other: &Self) -> bool {
        self.names() == other.names()
    }
}

impl Eq for By {}

impl PartialOrd for By {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for By {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.names().cmp(&other.names())
    }
}

impl std::hash::Hash for By {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.names().hash(state);
    }
}

type Key = (IpAddr, By);

/// What one worker denied.
#[derive(Debug)]
pub struct Account(Mutex<Windows>);

#[derive(Debug)]
struct Windows {
    /// Nanoseconds, by the clock of who counts.
    began: u64,
    current: Top<Key>,
    previous: Top<Key>,
}

impl Default for Account {
    fn default() -> Self {
        Self(Mutex::new(Windows {
            began: 0,
            current: Top::new(KEPT),
            previous: Top::new(KEPT),
        }))
    }
}

/// A client that was denied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// An IPv4 address, or the first one of an IPv6 /64.
    pub address: IpAddr,
    pub by: By,
    /// Denials, at least; [`Clients::missing`] more at most.
    pub denied: u64,
    /// Nanoseconds: of the first and of the last of them.
    pub first: u64,
    pub last: u64,
}

impl Client {
    /// Denials a second, over the time that the client has been known.
    #[must_use]
    pub fn per_second(&self, now: u64) -> f64 {
        let known = now.saturating_sub(self.first).max(SECOND);
        self.denied as f64 * SECOND as f64 / known as f64
    }
}

/// Those that were denied most, the first first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Clients {
    pub most: Vec<Client>,
    /// By how much a count may be too low: who was denied more often than that is among all that are
    /// known.
    pub missing: u64,
}

impl Account {
    fn windows(&self) -> MutexGuard<'_, Windows> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request of `client` was denied.
    pub fn denied(&self, client: IpAddr, by: By, now: u64) {
        let windows = &mut *self.windows();
        windows.turn(now);
        windows.current.add((one(client), by), now);
    }
}

impl Windows {
    /// Begins a window anew if the one under way is over.
    fn turn(&mut self, now: u64) {
        let age = now.saturating_sub(self.began);
        if age < WINDOW {
            return;
        }
        std::mem::swap(&mut self.current, &mut self.previous);
        self.current.clear();
        if age >= 2 * WINDOW {
            self.previous.clear();
        }
        self.began = now - age % WINDOW;
    }
}

/// What counts as one client: an IPv4 address, an IPv6 /64.
fn one(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V4(ip) => IpAddr::V4(ip),
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64)),
    }
}

/// The `number` clients that all accounts together denied most in the last one to two minutes.
#[expect(
    clippy::mutable_key_type,
    reason = "keys are told apart by their names, which do not change"
)]
pub fn most<'a>(
    accounts: impl IntoIterator<Item = &'a Account>,
    number: usize,
    now: u64,
) -> Clients {
    let mut sum: HashMap<Key, Seen> = HashMap::new();
    let mut missing = 0;
    for account in accounts {
        let windows = &mut *account.windows();
        windows.turn(now);
        for window in [&windows.previous, &windows.current] {
            missing += window.missing();
            for (key, seen) in window.all() {
                let of = sum.entry(key.clone()).or_insert(Seen {
                    count: 0,
                    first: seen.first,
                    last: seen.last,
                });
                of.count += seen.count;
                of.first = of.first.min(seen.first);
                of.last = of.last.max(seen.last);
            }
        }
    }
    let mut all: Vec<Client> = sum
        .into_iter()
        .map(|((address, by), seen)| Client {
            address,
            by,
            denied: seen.count,
            first: seen.first,
            last: seen.last,
        })
        .collect();
    all.sort_by(|a, b| {
        let order = |one: &Client| (Reverse(one.denied), one.address);
        order(a).cmp(&order(b)).then_with(|| a.by.cmp(&b.by))
    });
    all.truncate(number);
    Clients { most: all, missing }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by(route: &str) -> By {
        By::Service(Arc::new(RouteStats {
            route: route.to_owned(),
            ..RouteStats::default()
        }))
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn told(clients: &Clients) -> Vec<(String, &str, u64)> {
        let most = clients.most.iter();
        most.map(|one| (one.address.to_string(), one.by.names().1, one.denied))
            .collect()
    }

    #[test]
    fn workers_are_added_up_and_the_busiest_come_first() {
        let [one, other] = [Account::default(), Account::default()];
        for at in 0..4 {
            one.denied(ip("192.0.2.1"), by("a"), at * SECOND);
            other.denied(ip("::ffff:192.0.2.1"), by("a"), (at + 1) * SECOND);
        }
        one.denied(ip("192.0.2.1"), by("b"), SECOND);
        // Addresses of one customer.
        other.denied(ip("2001:db8::1"), by("a"), SECOND);
        other.denied(ip("2001:db8::2"), by("a"), SECOND);
        let clients = most([&one, &other], 10, 10 * SECOND);
        let wanted = [
            ("192.0.2.1".to_owned(), "a", 8),
            ("2001:db8::".to_owned(), "a", 2),
            ("192.0.2.1".to_owned(), "b", 1),
        ];
        assert_eq!(told(&clients), wanted);
        assert_eq!(clients.missing, 0);
        let first = &clients.most[0];
        assert_eq!((first.first, first.last), (0, 4 * SECOND));
        assert!((first.per_second(10 * SECOND) - 0.8).abs() < 1e-9);
        assert_eq!(most([&one, &other], 1, 10 * SECOND).most.len(), 1);
    }

    #[test]
    fn what_is_older_than_two_minutes_is_forgotten() {
        let account = Account::default();
        let denied = |at| account.denied(ip("192.0.2.1"), by("a"), at * SECOND);
        let count = |now| {
            let clients = most([&account], 1, now * SECOND);
            clients.most.first().map_or(0, |one| one.denied)
        };
        denied(10);
        denied(59);
        assert_eq!(count(59), 2);
        denied(60);
        assert_eq!(count(119), 3);
        // Asking is enough: nobody has to be denied.
        assert_eq!(count(120), 1);
        assert_eq!(count(180), 0);
        denied(1_000);
        assert_eq!(count(1_001), 1);
    }

    #[test]
    fn a_flood_of_clients_takes_bounded_memory_and_hides_nobody() {
        let account = Account::default();
        for n in 0..100_000_u32 {
            let stranger = IpAddr::from(n.to_be_bytes());
            account.denied(stranger, by("a"), u64::from(n));
            if n % 50 == 0 {
                account.denied(ip("2001:db8::1"), by("a"), u64::from(n));
            }
        }
        let windows = account.windows();
        assert!(windows.current.known() <= 2 * KEPT);
        drop(windows);
        let clients = most([&account], 3, 200_000);
        let first = &clients.most[0];
        assert_eq!(first.address, ip("2001:db8::"));
        assert!((1..=2_000).contains(&first.denied));
        assert!(first.denied + clients.missing >= 2_000);
    }
}
