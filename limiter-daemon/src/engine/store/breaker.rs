//! When a store that fails is asked again: a state machine, with the time as a parameter.
//!
//! ```text
//! closed ──[so many failures in a row]──▶ open ──[the pause is over]──▶ half-open
//!    ▲                                      ▲                             │
//!    └──────[so many probes in a row]───────┼─────────────────────────────┤
//!                                           └────[a probe fails]──────────┘
//! ```
//!
//! While it is open nobody waits for the store. When the pause is over, requests are let through as
//! probes, one at a time; each probe that fails doubles the pause. A pause is drawn from its second
//! half, so that nodes that lost the store together do not come back together; and the load comes
//! back only after several probes.

/// Numbers of a [`Breaker`], times in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Failures in a row that open it; at least 1.
    pub failures: u32,
    /// Probes in a row that close it; at least 1.
    pub probes: u32,
    pub first_pause: u64,
    pub longest_pause: u64,
    /// A probe of which nothing is heard for so long is given up.
    pub probe_timeout: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            failures: 5,
            probes: 3,
            first_pause: 100_000_000,
            longest_pause: 5_000_000_000,
            probe_timeout: 2_000_000_000,
        }
    }
}

/// Whether a store may be asked.
#[derive(Debug)]
pub struct Breaker {
    settings: Settings,
    state: State,
    /// How often it has; what was asked before the last time is of no interest any more.
    opened: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed {
        failures: u32,
    },
    Open {
        until: u64,
        pause: u64,
    },
    HalfOpen {
        pause: u64,
        passed: u32,
        /// When the probe that is out was sent.
        probe: Option<u64>,
    },
}

/// For metrics and events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    Closed,
    HalfOpen,
    Open,
}

impl Condition {
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half_open",
            Self::Open => "open",
        }
    }
}

/// Leave to ask once. Whoever has one says what came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permit {
    pub probe: bool,
    /// Which opening it follows.
    era: u64,
}

impl Permit {
    /// What a breaker that is well and has opened so often gives out.
    #[must_use]
    pub const fn well(openings: u64) -> Self {
        Self {
            probe: false,
            era: openings,
        }
    }
}

impl Breaker {
    #[must_use]
    pub const fn new(settings: Settings) -> Self {
        Self {
            settings,
            state: State::Closed { failures: 0 },
            opened: 0,
        }
    }

    #[must_use]
    pub const fn condition(&self) -> Condition {
        match self.state {
            State::Closed { .. } => Condition::Closed,
            State::Open { .. } => Condition::Open,
            State::HalfOpen { .. } => Condition::HalfOpen,
        }
    }

    /// Closed, and the last that was asked succeeded.
    #[must_use]
    pub const fn is_well(&self) -> bool {
        matches!(self.state, State::Closed { failures: 0 })
    }

    /// How often it has opened.
    #[must_use]
    pub const fn openings(&self) -> u64 {
        self.opened
    }

    /// Leave to ask at `now`; `None`: not now.
    pub fn permit(&mut self, now: u64) -> Option<Permit> {
        let era = self.opened;
        match self.state {
            State::Closed { .. } => Some(Permit { probe: false, era }),
            State::Open { until, .. } if now < until => None,
            State::Open { pause, .. } => Some(self.send_probe(pause, 0, now)),
            State::HalfOpen {
                pause,
                passed,
                probe,
            } => {
                let lost = |sent: u64| now.saturating_sub(sent) >= self.settings.probe_timeout;
                probe
                    .is_none_or(lost)
                    .then(|| self.send_probe(pause, passed, now))
            }
        }
    }

    const fn send_probe(&mut self, pause: u64, passed: u32, now: u64) -> Permit {
        self.state = State::HalfOpen {
            pause,
            passed,
            probe: Some(now),
        };
        Permit {
            probe: true,
            era: self.opened,
        }
    }

    /// The store answered.
    pub fn succeeded(&mut self, permit: Permit) {
        if permit.era != self.opened {
            return;
        }
        match self.state {
            State::Closed { .. } => self.state = State::Closed { failures: 0 },
            State::HalfOpen { pause, passed, .. } if permit.probe => {
                let passed = passed + 1;
                self.state = if passed >= self.settings.probes {
                    State::Closed { failures: 0 }
                } else {
                    State::HalfOpen {
                        pause,
                        passed,
                        probe: None,
                    }
                };
            }
            State::Open { .. } | State::HalfOpen { .. } => {}
        }
    }

    /// It did not, or not in time. `jitter` is any number.
    pub fn failed(&mut self, permit: Permit, now: u64, jitter: u64) {
        if permit.era != self.opened {
            return;
        }
        match self.state {
            State::Closed { failures } if failures + 1 < self.settings.failures => {
                self.state = State::Closed {
                    failures: failures + 1,
                };
            }
            State::Closed { .. } => self.open(self.settings.first_pause, now, jitter),
            State::HalfOpen { pause, .. } if permit.probe => {
                let pause = pause.saturating_mul(2).min(self.settings.longest_pause);
                self.open(pause, now, jitter);
            }
            State::Open { .. } | State::HalfOpen { .. } => {}
        }
    }

    /// Nobody waits for the answer any more, so nothing is known.
    pub const fn abandoned(&mut self, permit: Permit) {
        if permit.era == self.opened
            && permit.probe
            && let State::HalfOpen { pause, passed, .. } = self.state
        {
            self.state = State::HalfOpen {
                pause,
                passed,
                probe: None,
            };
        }
    }

    const fn open(&mut self, pause: u64, now: u64, jitter: u64) {
        let half = pause / 2;
        let until = now.saturating_add(half).saturating_add(jitter % (half + 1));
        self.state = State::Open { until, pause };
        self.opened += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn open_at(now: u64) -> Breaker {
        let mut breaker = Breaker::new(Settings::default());
        for _ in 0..5 {
            let permit = breaker.permit(now).unwrap();
            breaker.failed(permit, now, u64::MAX);
        }
        assert_eq!(breaker.condition(), Condition::Open);
        breaker
    }

    /// When the pause that begins at `now` ends, with the longest jitter.
    fn pause(breaker: &mut Breaker, now: u64) -> u64 {
        (0..20_000)
            .map(|ms| now + ms * MS)
            .find(|at| match breaker.permit(*at) {
                Some(permit) => {
                    breaker.failed(permit, *at, 0);
                    true
                }
                None => false,
            })
            .unwrap()
            - now
    }

    #[test]
    fn failures_in_a_row_open_it_others_do_not() {
        let mut breaker = Breaker::new(Settings::default());
        for _ in 0..10 {
            for _ in 0..4 {
                let permit = breaker.permit(0).unwrap();
                breaker.failed(permit, 0, 0);
            }
            let permit = breaker.permit(0).unwrap();
            breaker.succeeded(permit);
            assert!(breaker.is_well());
        }
        assert_eq!(open_at(0).permit(49 * MS), None);
    }

    #[test]
    fn probes_go_one_at_a_time_and_three_of_them_close_it() {
        let mut breaker = open_at(0);
        let now = 200 * MS;
        for passed in 1..=3 {
            let permit = breaker.permit(now).unwrap();
            assert!(permit.probe);
            assert_eq!(breaker.permit(now), None, "one at a time");
            breaker.succeeded(permit);
            let closed = breaker.condition() == Condition::Closed;
            assert_eq!(closed, passed == 3);
        }
        assert!(!breaker.permit(now).unwrap().probe);
    }

    #[test]
    fn each_failed_probe_doubles_the_pause_up_to_the_longest() {
        let mut breaker = open_at(0);
        let mut now = 0;
        let mut pauses = Vec::new();
        for _ in 0..9 {
            let took = pause(&mut breaker, now);
            pauses.push(took / MS);
            now += took;
        }
        // The first with the longest jitter, the others with none: half of 200 ms, 400 ms and so on.
        let first = pauses.remove(0);
        assert!((50..=100).contains(&first), "{first}");
        assert_eq!(pauses, [100, 200, 400, 800, 1600, 2500, 2500, 2500]);
    }

    #[test]
    fn what_was_asked_before_it_opened_changes_nothing() {
        let mut breaker = Breaker::new(Settings::default());
        let early = breaker.permit(0).unwrap();
        for _ in 0..5 {
            let permit = breaker.permit(0).unwrap();
            breaker.failed(permit, 0, 0);
        }
        breaker.succeeded(early);
        assert_eq!(breaker.condition(), Condition::Open);
        let probe = breaker.permit(200 * MS).unwrap();
        breaker.failed(early, 200 * MS, 0);
        assert_eq!(breaker.condition(), Condition::HalfOpen);
        breaker.succeeded(probe);
        assert_eq!(breaker.permit(200 * MS).map(|p| p.probe), Some(true));
    }

    #[test]
    fn a_probe_that_is_never_heard_of_makes_room_for_another() {
        let mut breaker = open_at(0);
        let lost = breaker.permit(200 * MS).unwrap();
        assert_eq!(breaker.permit(2_100 * MS), None);
        assert!(breaker.permit(2_200 * MS).is_some());
        let mut breaker = open_at(0);
        let given_up = breaker.permit(200 * MS).unwrap();
        breaker.abandoned(given_up);
        assert!(breaker.permit(200 * MS).is_some());
        assert!(lost.probe);
    }
}
