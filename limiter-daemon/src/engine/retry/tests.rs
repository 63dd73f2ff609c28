//! Triggers, pauses and bounds of retries.

use proptest::prelude::*;

use super::*;

fn policy(triggers: &[Trigger]) -> Retry {
    Retry {
        triggers: triggers.iter().copied().collect(),
        any_method: true,
        ..Retry::default()
    }
}

fn status(status: u16) -> Attempt {
    Attempt::Answered {
        status: StatusCode::from_u16(status).unwrap(),
        grpc: None,
        retry_after: None,
    }
}

fn grpc(code: u8) -> Attempt {
    Attempt::Answered {
        status: StatusCode::OK,
        grpc: Some(code),
        retry_after: None,
    }
}

fn retried(policy: &Retry, method: &Method, attempt: Attempt) -> bool {
    matches!(
        Retries::of(method).next(policy, attempt, 0),
        Next::Again { .. }
    )
}

#[test]
fn each_trigger_has_its_cases() {
    use Attempt::{Broken, NotConnected, NotSent, Refused, TimedOut};
    let none = [NotConnected, Refused, NotSent, Broken, TimedOut];
    let table: &[(Trigger, Vec<Attempt>)] = &[
        (
            Trigger::ServerError,
            [
                vec![status(500), status(502), status(503), status(504)],
                none.to_vec(),
            ]
            .concat(),
        ),
        (
            Trigger::GatewayError,
            [vec![status(502), status(503), status(504)], none.to_vec()].concat(),
        ),
        (Trigger::Reset, none.to_vec()),
        (
            Trigger::ResetBeforeRequest,
            vec![NotConnected, Refused, NotSent],
        ),
        (Trigger::ConnectFailure, vec![NotConnected]),
        (Trigger::Retriable4xx, vec![status(409)]),
        (Trigger::RefusedStream, vec![Refused]),
        (Trigger::RetriableStatusCodes, vec![status(503)]),
        (Trigger::Cancelled, vec![grpc(1)]),
        (Trigger::DeadlineExceeded, vec![grpc(4)]),
        (Trigger::ResourceExhausted, vec![grpc(8)]),
        (Trigger::Internal, vec![grpc(13)]),
        (Trigger::Unavailable, vec![grpc(14)]),
    ];
    let all: Vec<Attempt> = [200, 404, 409, 429, 500, 502, 503, 504]
        .map(status)
        .into_iter()
        .chain((0..=16).map(grpc))
        .chain(none)
        .collect();
    for (trigger, wanted) in table {
        for attempt in &all {
            assert_eq!(
                retried(&policy(&[*trigger]), &Method::GET, *attempt),
                wanted.contains(attempt),
                "{trigger:?} {attempt:?}"
            );
        }
    }
}

#[test]
fn by_default_what_may_have_been_done_is_not_done_twice() {
    let default = Retry::default();
    for method in [Method::POST, Method::PATCH, Method::CONNECT] {
        assert!(!retried(&default, &method, status(503)), "{method}");
        assert!(!retried(&default, &method, grpc(14)), "{method}");
        assert!(
            retried(&default, &method, Attempt::NotConnected),
            "{method}"
        );
        assert!(retried(&default, &method, Attempt::Refused), "{method}");
    }
    for method in [Method::GET, Method::PUT, Method::DELETE, Method::HEAD] {
        assert!(retried(&default, &method, status(503)), "{method}");
    }
    let named = policy(&[Trigger::ServerError]);
    assert!(retried(&named, &Method::POST, status(500)));
}

#[test]
fn pauses_double_up_to_the_longest_and_the_last_failure_is_the_answer() {
    let policy = Retry {
        max_retries: 6,
        base_interval: Duration::from_millis(25),
        max_interval: Duration::from_millis(250),
        ..policy(&[Trigger::ServerError])
    };
    let mut retries = Retries::of(&Method::GET);
    let pauses: Vec<_> = (0..6)
        .map(|_| match retries.next(&policy, status(500), u64::MAX) {
            Next::Again { pause, asked } => (pause.as_micros().div_ceil(1000), asked),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        pauses,
        [25, 50, 100, 200, 250, 250].map(|pause| (pause, false))
    );
    assert_eq!(retries.next(&policy, status(500), 0), Next::Exhausted);
    assert_eq!(retries.next(&policy, status(200), 0), Next::Done);
    assert_eq!(retries.made(), 6);
}

#[test]
fn an_answer_may_ask_for_a_longer_pause_within_a_bound() {
    let asks = |value: &'static str| {
        let headers = HeaderMap::from_iter([(header::RETRY_AFTER, value.parse().unwrap())]);
        let attempt = Attempt::answered(StatusCode::SERVICE_UNAVAILABLE, &headers, 784_111_775);
        Retries::of(&Method::GET).next(&Retry::default(), attempt, 0)
    };
    let again = |seconds, asked| Next::Again {
        pause: Duration::from_secs(seconds),
        asked,
    };
    assert_eq!(asks("2"), again(2, true));
    assert_eq!(asks("10"), again(10, true));
    assert_eq!(asks("11"), Next::Done);
    // Two seconds from the instant above; and one that has passed.
    assert_eq!(asks("Sun, 06 Nov 1994 08:49:37 GMT"), again(2, true));
    assert_eq!(asks("Sun, 06 Nov 1994 08:49:30 GMT"), again(0, false));
    assert_eq!(asks("soon"), again(0, false));
    assert_eq!(asks("-1"), again(0, false));
}

proptest! {
    #[test]
    fn never_more_retries_and_never_longer_pauses_than_the_policy_says(
        max_retries in 0..40u32, base in 1..10_000u64, longer in 0..10_000u64, random: u64,
    ) {
        let policy = Retry {
            max_retries,
            base_interval: Duration::from_millis(base),
            max_interval: Duration::from_millis(base + longer),
            ..policy(&[Trigger::ServerError])
        };
        let mut retries = Retries::of(&Method::GET);
        let mut made = 0;
        while let Next::Again { pause, .. } = retries.next(&policy, status(500), random) {
            made += 1;
            prop_assert!(pause <= policy.max_interval);
        }
        prop_assert_eq!(made, max_retries);
    }
}
