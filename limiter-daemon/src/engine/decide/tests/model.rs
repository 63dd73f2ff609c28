//! Random rules and requests against a plain model of the documented semantics.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

/// Headers that conditions are about, with the values that requests may have.
const NAMES: [&str; 3] = ["a", "b", "c"];
const VALUES: u8 = 3;
/// Buckets take so long to fill that nothing comes back within a test.
const UNIT: u64 = 1 << 40;

#[derive(Clone, Copy, Debug)]
enum Test {
    Is(u8),
    IsNot(u8),
    Matches(u8),
    MatchesNot(u8),
    Each,
    Absent,
}

#[derive(Clone, Debug)]
struct Spec {
    conditions: Vec<(usize, Test)>,
    /// `None`: unlimited. 0: blocked.
    quota: Option<u64>,
    cost: u64,
    shadow: bool,
}

/// A request's values, by the index of the header.
type Asked = [Option<u8>; 3];

fn test() -> impl Strategy<Value = Test> {
    prop_oneof![
        (0..VALUES).prop_map(Test::Is),
        (0..VALUES).prop_map(Test::IsNot),
        (0..VALUES).prop_map(Test::Matches),
        (0..VALUES).prop_map(Test::MatchesNot),
        Just(Test::Each),
        Just(Test::Absent),
    ]
}

fn spec() -> impl Strategy<Value = Spec> {
    (
        prop::collection::vec((0..NAMES.len(), test()), 0..3),
        prop_oneof![1 => Just(None), 1 => Just(Some(0)), 12 => (1u64..9).prop_map(Some)],
        0u64..3,
        prop::bool::weighted(0.15),
    )
        .prop_map(|(conditions, quota, cost, shadow)| Spec {
            conditions,
            quota,
            cost,
            shadow,
        })
}

fn specs() -> impl Strategy<Value = Vec<(Vec<Spec>, Option<Spec>)>> {
    let policy = (
        prop::collection::vec(spec(), 0..14),
        prop::option::of(spec()),
    );
    prop::collection::vec(policy, 0..3)
}

fn requests() -> impl Strategy<Value = Vec<Asked>> {
    let value = || prop::option::of(0..VALUES);
    prop::collection::vec([value(), value(), value()], 1..60)
}

fn value(n: u8) -> HeaderValue {
    HeaderValue::try_from(format!("v{n}")).unwrap()
}

fn whole(n: u8) -> regex::bytes::Regex {
    regex::bytes::Regex::new(&format!("^(?:v{n})$")).unwrap()
}

impl Spec {
    fn lowered(&self, name: String, everybody: bool) -> LimitRule {
        let conditions = self.conditions.iter().filter(|_| !everybody);
        let conditions = conditions.map(|(at, test)| {
            let test = match test {
                Test::Is(n) => ValueTest::Is(value(*n)),
                Test::IsNot(n) => ValueTest::IsNot(value(*n)),
                Test::Matches(n) => ValueTest::Matches(whole(*n)),
                Test::MatchesNot(n) => ValueTest::MatchesNot(whole(*n)),
                Test::Each => ValueTest::Each,
                Test::Absent => ValueTest::Absent,
            };
            header(NAMES[*at], test)
        });
        let quota = match self.quota {
            None => Quota::Unlimited,
            Some(0) => Quota::Blocked { window: 60 },
            Some(n) => Quota::bucket(Limit::new(n, n, UNIT * n).unwrap(), 60),
        };
        LimitRule {
            request_cost: self.cost,
            shadow: self.shadow,
            ..LimitRule::new(name, conditions.collect(), quota)
        }
    }

    fn matches(&self, asked: &Asked) -> bool {
        self.conditions.iter().all(|(at, test)| match test {
            Test::Is(n) | Test::Matches(n) => asked[*at] == Some(*n),
            Test::IsNot(n) | Test::MatchesNot(n) => asked[*at] != Some(*n),
            Test::Each => asked[*at].is_some(),
            Test::Absent => asked[*at].is_none(),
        })
    }

    /// The values that have a bucket of their own.
    fn values(&self, asked: &Asked) -> Vec<Option<u8>> {
        let each = self
            .conditions
            .iter()
            .filter(|(_, test)| matches!(test, Test::Each));
        each.map(|(at, _)| asked[*at]).collect()
    }
}

/// Tokens used, by reach, policy, rule (the default is the last) and values.
type Used = HashMap<(bool, usize, usize, Vec<Option<u8>>), u64>;

/// A rule that a request met: its key, whether it has room, and what it says of itself.
struct Seen<'a> {
    spec: &'a Spec,
    key: (bool, usize, usize, Vec<Option<u8>>),
}

fn met<'a>(reach: bool, policies: &'a [(Vec<Spec>, Option<Spec>)], asked: &Asked) -> Vec<Seen<'a>> {
    let mut seen = Vec::new();
    for (policy, (rules, default)) in policies.iter().enumerate() {
        let before = seen.len();
        for (index, spec) in rules.iter().enumerate() {
            if spec.matches(asked) {
                let key = (reach, policy, index, spec.values(asked));
                seen.push(Seen { spec, key });
            }
        }
        if let (true, Some(spec)) = (seen.len() == before, default) {
            let key = (reach, policy, usize::MAX, Vec::new());
            seen.push(Seen { spec, key });
        }
    }
    seen
}

fn room(used: &Used, seen: &Seen<'_>) -> bool {
    let taken = used.get(&seen.key).copied().unwrap_or(0);
    seen.spec
        .quota
        .is_none_or(|quota| taken + seen.spec.cost.max(1) <= quota)
}

/// Whether the request passes, and what is left of each limit in force.
fn model(
    used: &mut Used,
    local: &[(Vec<Spec>, Option<Spec>)],
    global: &[(Vec<Spec>, Option<Spec>)],
    asked: &Asked,
) -> (bool, Vec<(u64, u64)>) {
    let mut all = met(false, local, asked);
    let over = |used: &Used, seen: &[Seen<'_>]| {
        seen.iter()
            .any(|seen| !seen.spec.shadow && !room(used, seen))
    };
    let mut denied = over(used, &all);
    if !denied {
        let global = met(true, global, asked);
        denied = over(used, &global);
        all.extend(global);
    }
    if !denied {
        for seen in &all {
            if room(used, seen) {
                *used.entry(seen.key.clone()).or_default() += seen.spec.cost;
            }
        }
    }
    let told = all
        .iter()
        .filter(|seen| !seen.spec.shadow)
        .filter_map(|seen| {
            let quota = seen.spec.quota?;
            let taken = used.get(&seen.key).copied().unwrap_or(0);
            Some((quota, quota.saturating_sub(taken)))
        });
    (!denied, told.collect())
}

fn lowered(policies: &[(Vec<Spec>, Option<Spec>)]) -> Vec<PolicyLimits> {
    let lower = |(at, (rules, default)): (usize, &(Vec<Spec>, Option<Spec>))| {
        let name = format!("d/p{at}");
        let rules = rules.iter().enumerate();
        let rules = rules.map(|(n, spec)| spec.lowered(format!("{name}/rule/{n}"), false));
        let default = default.as_ref();
        let default = default.map(|spec| spec.lowered(format!("{name}/rule/default"), true));
        policy(&name, rules.collect(), default)
    };
    policies.iter().enumerate().map(lower).collect()
}

/// As many cases as the environment wants (`PROPTEST_CASES`), but some.
fn at_least(cases: u32) -> ProptestConfig {
    let wanted = ProptestConfig::default();
    ProptestConfig {
        cases: wanted.cases.max(cases),
        ..wanted
    }
}

proptest! {
    #![proptest_config(at_least(400))]

    #[test]
    fn decisions_are_those_of_the_model(local in specs(), global in specs(), requests in requests()) {
        let plan = RateLimits { local: lowered(&local), global: lowered(&global) };
        let state = State::new(4096);
        let limits = Limits::compile(&plan, "d/r", &state);
        prop_assert_eq!(limits.is_none(), local.is_empty() && global.is_empty());
        let Some(limits) = limits else {
            return Ok(());
        };
        let mut used = Used::new();
        for asked in requests {
            let values = NAMES.iter().zip(&asked);
            let headers: HeaderMap = values
                .filter_map(|(name, v)| Some((HeaderName::from_static(name), value((*v)?))))
                .collect();
            let outcome = decide(&limits, &super::asked(&headers), 0);
            let (passes, told) = model(&mut used, &local, &global, &asked);
            prop_assert_eq!(outcome.denied.is_none(), passes, "{:?}", &asked);
            let statuses: Vec<_> =
                outcome.statuses.iter().map(|status| (status.quota, status.remaining)).collect();
            prop_assert_eq!(statuses, told);
        }
    }
}
