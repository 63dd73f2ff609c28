//! Ejections by example, beside a plain model, and under threads.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::thread;

use proptest::prelude::*;

use super::*;
use crate::policy::plan::BackendSettings;

const SECOND: u64 = 1_000_000_000;
const BAD: Exchange = Exchange::Answered(500);
const GOOD: Exchange = Exchange::Answered(200);

fn hosts(count: usize) -> Hosts {
    let hosts = (0..count).map(|n| Arc::new(Host::new(format!("192.0.2.{n}:80"), 0)));
    Hosts::new(&BackendSettings::default(), hosts.collect())
}

/// Everybody may be ejected.
fn settings() -> OutlierDetection {
    OutlierDetection {
        max_ejection_percent: 100,
        ..OutlierDetection::default()
    }
}

#[test]
fn failures_in_a_row_eject_for_longer_each_time() {
    let (hosts, settings) = (hosts(2), settings());
    let outliers = Outliers::default();
    let report = |exchange, now| outliers.report(Some(&settings), &hosts, 0, exchange, now);
    for _ in 0..4 {
        assert_eq!(report(BAD, 0), None);
    }
    // A success begins the row anew.
    assert_eq!(report(GOOD, 0), None);
    let mut now = 0;
    for times in 1..=12 {
        for _ in 0..4 {
            assert_eq!(report(BAD, now), None);
        }
        let ejected = report(BAD, now).unwrap();
        let wanted = Duration::from_secs(30 * u64::from(times.min(10)));
        assert_eq!((ejected.time, ejected.times), (wanted, times.min(10)));
        assert_eq!((ejected.host, ejected.kind), (0, Kind::Consecutive5xx));
        assert_eq!(hosts.ejected(now), 1);
        // What comes in while it is ejected is not counted.
        assert_eq!([(); 9].map(|()| report(BAD, now)), [None; 9]);
        now += nanos(wanted);
        assert_eq!(hosts.ejected(now - 1), 1);
        assert_eq!(hosts.ejected(now), 0);
    }
    assert_eq!(outliers.enforced(Kind::Consecutive5xx), 12);
    assert_eq!(outliers.enforced_total(), 12);
}

#[test]
fn the_growth_goes_back_with_each_interval_without_ejection() {
    let (hosts, settings) = (hosts(2), settings());
    let outliers = Outliers::default();
    let mut now = 0;
    let eject = |now| {
        let reports = (0..5).map(|_| outliers.report(Some(&settings), &hosts, 0, BAD, now));
        reports.last().flatten().unwrap().times
    };
    let tick = |now| outliers.tick(&settings, &hosts, now, |_| panic!("nobody fails"));
    for times in 1..=3 {
        assert_eq!(eject(now), times);
        now += 300 * SECOND;
    }
    // The interval in which the ejection ended is none without.
    tick(now);
    tick(now);
    assert_eq!(eject(now), 3);
    tick(now + SECOND);
    now += 300 * SECOND;
    for _ in 0..9 {
        tick(now);
    }
    assert_eq!(eject(now), 1);
}

#[test]
fn an_ejection_longer_than_the_longest_stays_as_it_is() {
    let hosts = hosts(1);
    let settings = OutlierDetection {
        base_ejection_time: Duration::from_secs(1_000),
        consecutive_5xx: Some(1),
        ..settings()
    };
    let outliers = Outliers::default();
    for now in [0, 1_000 * SECOND] {
        let ejected = outliers.report(Some(&settings), &hosts, 0, BAD, now);
        assert_eq!(ejected.unwrap().time, Duration::from_secs(1_000));
    }
}

/// What a host has to do to be ejected.
#[test]
fn kinds_of_failures_are_told_apart() {
    use Exchange::{Answered, Broken, ConnectFailed, TimedOut};
    use Kind::{Consecutive5xx, ConsecutiveGatewayFailure, ConsecutiveLocalOriginFailure};
    let of = |c5xx, gateway, split, local| OutlierDetection {
        consecutive_5xx: c5xx,
        consecutive_gateway_errors: gateway,
        split_local_origin: split,
        consecutive_local_origin_failures: local,
        ..settings()
    };
    let joined = of(Some(3), Some(2), false, Some(1));
    let split = of(Some(3), Some(2), true, Some(2));
    let local_only = of(None, None, true, Some(2));
    let nothing = of(None, None, false, None);
    for (settings, exchanges, wanted) in [
        (
            joined,
            &[Answered(502), Answered(503)][..],
            Some(ConsecutiveGatewayFailure),
        ),
        (
            joined,
            &[ConnectFailed, TimedOut],
            Some(ConsecutiveGatewayFailure),
        ),
        (
            joined,
            &[Broken, Answered(500), Answered(504)],
            Some(Consecutive5xx),
        ),
        (
            joined,
            &[Answered(500), Answered(599), Answered(501)],
            Some(Consecutive5xx),
        ),
        (
            joined,
            &[Answered(500), Answered(404), Answered(500), Answered(500)],
            None,
        ),
        (
            joined,
            &[Answered(503), Answered(500), Answered(499), Answered(503)],
            None,
        ),
        (
            split,
            &[ConnectFailed, TimedOut],
            Some(ConsecutiveLocalOriginFailure),
        ),
        (split, &[ConnectFailed, Answered(503), Broken], None),
        (
            split,
            &[Answered(503), Broken, Answered(504)],
            Some(ConsecutiveGatewayFailure),
        ),
        (local_only, &[Answered(503); 9], None),
        (
            local_only,
            &[Broken, Broken],
            Some(ConsecutiveLocalOriginFailure),
        ),
        (nothing, &[ConnectFailed; 9], None),
    ] {
        let hosts = hosts(3);
        let outliers = Outliers::default();
        let reports: Vec<_> = exchanges
            .iter()
            .map(|exchange| outliers.report(Some(&settings), &hosts, 1, *exchange, 0))
            .collect();
        let (last, before) = reports.split_last().unwrap();
        assert!(
            before.iter().all(Option::is_none),
            "{settings:?} {exchanges:?}"
        );
        let kind = last.map(|ejected| ejected.kind);
        assert_eq!(kind, wanted, "{settings:?} {exchanges:?}");
        assert_eq!(outliers.enforced_total(), u64::from(wanted.is_some()));
    }
}

#[test]
fn only_so_many_are_ejected_at_once() {
    let hosts = hosts(4);
    let mut settings = OutlierDetection {
        consecutive_5xx: Some(1),
        max_ejection_percent: 50,
        ..OutlierDetection::default()
    };
    let outliers = Outliers::default();
    let eject = |settings: &OutlierDetection, host, now| {
        let ejected = outliers.report(Some(settings), &hosts, host, BAD, now);
        ejected.is_some()
    };
    assert!(eject(&settings, 0, 0) && eject(&settings, 1, 0));
    assert!(!eject(&settings, 2, 0));
    assert_eq!(
        (outliers.overflow(), outliers.detected(Kind::Consecutive5xx)),
        (1, 3)
    );
    // There is room again when one comes back.
    assert!(eject(&settings, 2, 30 * SECOND));
    settings.max_ejection_percent = 10;
    let later = 100 * SECOND;
    assert!(!eject(&settings, 3, later));
    settings.always_eject_one = true;
    assert!(eject(&settings, 3, later) && !eject(&settings, 0, later));
}

#[test]
fn a_share_of_failures_ejects_if_there_were_enough_requests() {
    let settings = OutlierDetection {
        consecutive_5xx: None,
        failure_percentage: Some(20),
        ..settings()
    };
    // The host's requests, those of each other one, how many of the host's fail: out or not.
    for (requests, others, failures, out) in [
        (50, 50, 10, true),
        (50, 50, 9, false),
        (49, 50, 49, false),
        (50, 49, 50, false),
        (1_000, 50, 199, false),
    ] {
        let hosts = hosts(5);
        let outliers = Outliers::default();
        let report = |host, exchange| outliers.report(Some(&settings), &hosts, host, exchange, 0);
        for n in 0..requests {
            report(0, if n < failures { BAD } else { GOOD });
        }
        for n in 0..4 * others {
            report(1 + n % 4, GOOD);
        }
        let mut ejected = Vec::new();
        outliers.tick(&settings, &hosts, 1, |one| {
            ejected.push((one.host, one.kind))
        });
        let wanted = if out {
            &[(0, Kind::FailurePercentage)][..]
        } else {
            &[]
        };
        assert_eq!(ejected, wanted, "{requests} {others} {failures}");
        // The next interval begins at nothing.
        outliers.tick(&settings, &hosts, 2, |_| panic!("no requests"));
    }
}

#[test]
fn without_settings_it_is_known_who_could_be_reached() {
    let hosts = hosts(1);
    let outliers = Outliers::default();
    for _ in 0..9 {
        assert_eq!(
            outliers.report(None, &hosts, 0, Exchange::ConnectFailed, 0),
            None
        );
    }
    assert!(hosts.all()[0].is_unreachable());
    assert_eq!(outliers.report(None, &hosts, 0, BAD, 0), None);
    assert!(!hosts.all()[0].is_unreachable());
    assert_eq!(outliers.report(None, &hosts, 7, BAD, 0), None);
}

/// How many of `count` may be ejected, as the setting says it.
fn allowed(settings: &OutlierDetection, count: usize) -> usize {
    let percent = settings.max_ejection_percent as usize;
    (count * percent / 100).max(usize::from(settings.always_eject_one))
}

/// One more may be ejected, and two threads report a failure of another host each at the same moment,
/// again and again.
#[test]
fn the_bound_holds_under_threads() {
    const ROUNDS: usize = 3_000;
    const THREADS: usize = 2;
    let settings = OutlierDetection {
        consecutive_5xx: Some(1),
        max_ejection_percent: 1,
        ..OutlierDetection::default()
    };
    let rounds: Vec<_> = (0..ROUNDS)
        .map(|_| (hosts(100), Outliers::default(), AtomicUsize::new(0)))
        .collect();
    let enforced = AtomicUsize::new(0);
    thread::scope(|scope| {
        for host in 0..THREADS {
            let (rounds, settings, enforced) = (&rounds, &settings, &enforced);
            scope.spawn(move || {
                for (hosts, outliers, here) in rounds {
                    here.fetch_add(1, Ordering::Relaxed);
                    while here.load(Ordering::Relaxed) < THREADS {
                        thread::yield_now();
                    }
                    let done = outliers.report(Some(settings), hosts, host, BAD, 0);
                    enforced.fetch_add(usize::from(done.is_some()), Ordering::Relaxed);
                }
            });
        }
    });
    for (hosts, outliers, _) in &rounds {
        assert_eq!(hosts.ejected(0), 1);
        assert_eq!((outliers.enforced_total(), outliers.overflow()), (1, 1));
    }
    assert_eq!(enforced.into_inner(), ROUNDS);
}

proptest! {
    /// Beside a model that keeps the exchanges of each host since its last success or ejection.
    #[test]
    fn ejections_are_those_of_a_plain_model(
        count in 1usize..8,
        percent in 0u32..=100,
        always_eject_one in any::<bool>(),
        threshold in 1u32..5,
        steps in prop::collection::vec((0usize..8, 0u8..4, 0u64..20), 1..200),
    ) {
        let hosts = hosts(count);
        let settings = OutlierDetection {
            consecutive_5xx: Some(threshold),
            max_ejection_percent: percent,
            always_eject_one,
            ..OutlierDetection::default()
        };
        let outliers = Outliers::default();
        let mut rows = vec![0; count];
        let mut until = vec![0u64; count];
        let mut times = vec![0u64; count];
        let mut now = 0;
        for (host, exchange, pause) in steps {
            now += pause * SECOND;
            let host = host % count;
            let exchange = match exchange {
                0 => GOOD,
                1 => BAD,
                2 => Exchange::ConnectFailed,
                _ => Exchange::TimedOut,
            };
            let mut wanted = None;
            if until[host] <= now {
                rows[host] = if exchange == GOOD { 0 } else { rows[host] + 1 };
                if rows[host] == threshold {
                    rows[host] = 0;
                    let out = until.iter().filter(|until| **until > now).count();
                    if out < allowed(&settings, count) {
                        times[host] = (times[host] + 1).min(10);
                        until[host] = now + 30 * times[host] * SECOND;
                        wanted = Some(Duration::from_secs(30 * times[host]));
                    }
                }
            }
            let done = outliers.report(Some(&settings), &hosts, host, exchange, now);
            prop_assert_eq!(done.map(|done| done.time), wanted);
            let out = until.iter().filter(|until| **until > now).count();
            prop_assert_eq!(hosts.ejected(now), out);
            prop_assert!(out <= allowed(&settings, count));
        }
    }
}
