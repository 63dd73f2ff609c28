//! When what is due, and what is kept.

use super::*;

const SECOND: u64 = 1_000_000_000;

fn question(host: &str, refresh: u64, respect_ttl: bool) -> Question {
    let dns = Dns {
        refresh: Duration::from_secs(refresh),
        respect_ttl,
        ..Dns::default()
    };
    Question::new(host, dns)
}

fn set_of(questions: &[Question]) -> Set {
    let mut set = Set::default();
    apply(&mut set, questions, 0);
    set
}

fn apply(set: &mut Set, questions: &[Question], now: u64) {
    let questions = questions.iter().cloned().collect();
    set.apply(BTreeMap::from([("d/b", questions)]), now);
}

fn ip(last: u8) -> IpAddr {
    [192, 0, 2, last].into()
}

fn answer(addresses: &[u8], ttl: u64) -> Result<Answer, Failure> {
    Ok(Answer {
        addresses: addresses.iter().copied().map(ip).collect(),
        ttl: Duration::from_secs(ttl),
        left_out: 0,
    })
}

/// Seconds until it is due again after `answer` at `now`, without jitter.
fn pause(set: &mut Set, question: &Question, answer: Result<Answer, Failure>) -> u64 {
    let now = set.wake().unwrap();
    assert_eq!(set.due(now, 16), std::slice::from_ref(question));
    assert_eq!(set.wake(), None);
    set.answered(question, answer, now, 0);
    (set.wake().unwrap() - now) / SECOND
}

#[test]
fn a_name_is_due_after_its_interval_or_its_ttl() {
    for (refresh, respect_ttl, ttl, wanted) in [
        (30, true, 300, 30),
        (30, true, 5, 5),
        (30, true, 0, 1),
        (30, false, 5, 30),
        (0, false, 5, 1),
        (0, true, 0, 1),
    ] {
        let question = question("a", refresh, respect_ttl);
        let mut set = set_of(std::slice::from_ref(&question));
        for _ in 0..3 {
            let pause = pause(&mut set, &question, answer(&[1], ttl));
            assert_eq!(pause, wanted, "{refresh} {respect_ttl} {ttl}");
        }
    }
}

#[test]
fn failures_and_nothing_keep_what_is_known_and_pause_longer_and_longer() {
    let question = question("a", 3600, true);
    let mut set = set_of(std::slice::from_ref(&question));
    let addresses = set.addresses(&question).unwrap();
    assert_eq!(addresses.get(), None);
    let fail = |set: &mut Set, times: usize| -> Vec<u64> {
        let failures = [Failure::Empty, Failure::Late].into_iter().cycle();
        let failures = failures.take(times);
        failures.map(|f| pause(set, &question, Err(f))).collect()
    };
    assert_eq!(fail(&mut set, 2), [1, 2]);
    assert_eq!(addresses.get(), None);
    assert_eq!(pause(&mut set, &question, answer(&[1, 2], 20)), 20);
    assert_eq!(fail(&mut set, 8), [1, 2, 4, 8, 16, 32, 60, 60]);
    assert_eq!(*addresses.get().unwrap(), [ip(1), ip(2)]);
    assert_eq!(pause(&mut set, &question, answer(&[3], 20)), 20);
    assert_eq!(*addresses.get().unwrap(), [ip(3)]);
    let counts = set.counts()[0].counts;
    let wanted = Counts {
        attempts: 12,
        successes: 2,
        failures: 5,
        empty: 5,
        ..Counts::default()
    };
    assert_eq!(counts, wanted);
}

#[test]
fn pauses_are_never_longer_than_the_interval() {
    let question = question("a", 5, true);
    let mut set = set_of(std::slice::from_ref(&question));
    let pauses: Vec<_> = (0..100)
        .map(|_| pause(&mut set, &question, Err(Failure::Late)))
        .collect();
    assert_eq!(pauses[..4], [1, 2, 4, 5]);
    assert_eq!(pauses[99], 5);
}

#[test]
fn only_changes_are_told() {
    let question = question("a", 5, true);
    let mut set = set_of(std::slice::from_ref(&question));
    let mut tell = |addresses: &[u8]| {
        let now = set.wake().unwrap();
        set.due(now, 1);
        set.answered(&question, answer(addresses, 1), now, 0)
            .map(|told| told.len())
    };
    assert_eq!(tell(&[1]), Some(1));
    assert_eq!(tell(&[1]), None);
    assert_eq!(tell(&[1, 2]), Some(2));
    assert_eq!(set.counts()[0].counts.unchanged, 1);
}

#[test]
fn a_tenth_is_added_by_chance() {
    let question = question("a", 10, false);
    for (random, wanted) in [
        (0, 0),
        (SECOND / 2, SECOND / 2),
        (SECOND, SECOND),
        (SECOND + 1, 0),
    ] {
        let mut set = set_of(std::slice::from_ref(&question));
        set.due(0, 1);
        set.answered(&question, answer(&[1], 1), 7, random);
        assert_eq!(set.wake(), Some(7 + 10 * SECOND + wanted));
    }
}

#[test]
fn the_longest_due_goes_first_and_there_is_only_so_much_room() {
    let names: Vec<_> = (0..40_u32)
        .map(|n| question(&n.to_string(), 30, true))
        .collect();
    let mut set = Set::default();
    for (time, _) in names.iter().enumerate() {
        apply(&mut set, &names[..=time], time as u64);
    }
    assert_eq!(set.due(40, 2), names[..2]);
    assert_eq!(set.due(40, 100), names[2..2 + MAX_IN_FLIGHT]);
    assert_eq!(set.wake(), Some(18));
    // Not due yet.
    assert_eq!(set.due(20, 100), names[18..=20]);
    assert_eq!(set.due(20, 0), []);
}

#[test]
fn reloads_keep_what_stays() {
    let (stays, goes, comes) = (
        question("stays", 30, true),
        question("goes", 30, true),
        question("comes", 30, true),
    );
    let mut set = set_of(&[stays.clone(), goes.clone()]);
    set.due(0, 16);
    set.answered(&stays, answer(&[1], 10), 0, 0);
    let kept = set.addresses(&stays).unwrap();
    apply(&mut set, &[stays.clone(), comes.clone()], SECOND);
    assert!(Arc::ptr_eq(&kept, &set.addresses(&stays).unwrap()));
    assert!(set.addresses(&goes).is_none());
    // The answer of a name that is gone is nobody's.
    assert_eq!(set.answered(&goes, answer(&[9], 10), SECOND, 0), None);
    assert_eq!(set.due(SECOND, 16), [comes]);
    assert_eq!(set.wake(), Some(10 * SECOND));
    // Another way of looking is another question.
    let other = question("stays", 31, true);
    apply(&mut set, std::slice::from_ref(&other), SECOND);
    assert_eq!(set.addresses(&other).unwrap().get(), None);
    assert_eq!(set.counts().len(), 1);
    apply(&mut set, &[], SECOND);
    assert_eq!(set.wake(), None);
}
