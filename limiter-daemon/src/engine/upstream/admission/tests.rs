//! The formula, and the window beside exact models, also under threads.

use std::sync::atomic::AtomicU32;
use std::thread;

use proptest::prelude::*;

use super::super::mix::splitmix64;
use super::*;
use crate::policy::plan::Fraction;

fn settings(window: u64) -> AdmissionControl {
    AdmissionControl {
        sampling_window: Duration::from_secs(window),
        min_success_rate: Fraction::percent(95),
        aggression: 1.0,
        min_request_rate: 0,
        max_rejection: Fraction::percent(80),
        http_success: vec![100..=499],
        grpc_success: vec![0..=0],
    }
}

fn admission(settings: &AdmissionControl) -> Admission {
    Admission::new("d/p".into(), "d/r".into(), settings.sampling_window)
}

#[test]
fn the_probability_is_that_of_the_formula() {
    let with = |change: fn(&mut AdmissionControl)| {
        let mut settings = settings(30);
        change(&mut settings);
        settings
    };
    for (settings, successes, failures, wanted) in [
        (settings(30), 0, 0, 0.0),
        (settings(30), 95, 5, 0.0),
        (settings(30), 100, 0, 0.0),
        // (100 - 38 / 0.95) / 101
        (settings(30), 38, 62, 60.0 / 101.0),
        // It would be 100 / 101.
        (settings(30), 0, 100, 0.8),
        (
            with(|s| s.aggression = 2.0),
            38,
            62,
            (60.0f64 / 101.0).sqrt(),
        ),
        (
            with(|s| s.min_success_rate = Fraction::percent(50)),
            38,
            62,
            24.0 / 101.0,
        ),
        // Four a second are 120 in the window.
        (with(|s| s.min_request_rate = 4), 0, 119, 0.0),
        (with(|s| s.min_request_rate = 4), 0, 120, 0.8),
    ] {
        let admission = admission(&settings);
        for n in 0..successes + failures {
            admission.record(n < successes, SECOND);
        }
        let rejection = admission.rejection(&settings, SECOND);
        assert!(
            (rejection - wanted).abs() < 1e-9,
            "{successes} {failures}: {rejection}"
        );
        let mut random = 1;
        let rejected = (0..10_000).filter(|_| {
            random = splitmix64(random);
            !admission.admit(&settings, random, SECOND)
        });
        let rejected = rejected.count();
        assert!(
            (rejected as f64 - wanted * 10_000.0).abs() < 200.0,
            "{rejected}"
        );
        assert_eq!(admission.rejected.load(Ordering::Relaxed), rejected as u64);
    }
}

#[test]
fn grpc_calls_succeed_by_their_own_status() {
    let settings = settings(30);
    for (status, grpc, wanted) in [
        (200, None, true),
        (499, None, true),
        (500, None, false),
        (200, Some(0), true),
        (200, Some(14), false),
        (503, Some(0), true),
    ] {
        let success = Admission::is_success(&settings, status, grpc);
        assert_eq!(success, wanted, "{status} {grpc:?}");
    }
}

#[test]
fn what_is_older_than_the_window_is_forgotten() {
    let settings = settings(30);
    let admission = admission(&settings);
    for _ in 0..100 {
        admission.record(false, 0);
    }
    assert_eq!(admission.counts(30 * SECOND - 1), (100, 0));
    assert_eq!(admission.counts(30 * SECOND), (0, 0));
    assert!(admission.admit(&settings, 0, 30 * SECOND));
    // An hour later the slots begin anew.
    admission.record(true, 3_600 * SECOND);
    assert_eq!(admission.counts(3_600 * SECOND), (1, 1));
}

#[test]
fn a_full_slot_keeps_its_share() {
    let mut slot = Slot::new(7);
    for n in 0..Slot::FULL + 9 {
        slot = slot.with(n % 2 == 0);
    }
    assert!(slot.is_of(7) && slot.is_of(7 + 65_536));
    assert_eq!(
        (slot.requests(), slot.successes()),
        (Slot::FULL, Slot::FULL / 2 + 1)
    );
}

/// Nothing is lost or counted twice while slots are begun by several at once.
#[test]
fn threads_count_exactly() {
    let settings = settings(60);
    let admission = admission(&settings);
    let successes = AtomicU32::new(0);
    thread::scope(|scope| {
        for thread in 0..4u64 {
            let (admission, successes) = (&admission, &successes);
            scope.spawn(move || {
                for n in 0..60_000u64 {
                    let success = (n + thread) % 3 == 0;
                    successes.fetch_add(u32::from(success), Ordering::Relaxed);
                    admission.record(success, n / 1_000 * SECOND);
                }
            });
        }
    });
    let wanted = (240_000, u64::from(successes.into_inner()));
    assert_eq!(admission.counts(59 * SECOND), wanted);
}

proptest! {
    /// Beside a list of everything that was recorded.
    #[test]
    fn the_window_is_that_of_an_exact_model(
        window in prop::sample::select(vec![1u64, 2, 30, 60, 61, 600, 7_200]),
        steps in prop::collection::vec((0u64..90_000, any::<bool>()), 1..150),
    ) {
        let settings = settings(window);
        let admission = admission(&settings);
        let slot = window.div_ceil(60);
        let slots = window.div_ceil(slot);
        let mut all: Vec<(u64, bool)> = Vec::new();
        let mut now = 0;
        for (pause, success) in steps {
            now += pause * SECOND / 1_000;
            admission.record(success, now);
            let number = now / SECOND / slot;
            all.push((number, success));
            let within = all.iter().filter(|(at, _)| at + slots > number);
            let (requests, successes) = within.fold((0, 0), |(requests, successes), (_, ok)| {
                (requests + 1, successes + u64::from(*ok))
            });
            prop_assert_eq!(admission.counts(now), (requests, successes));
        }
    }
}
