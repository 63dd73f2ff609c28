//! The scripts that run in the store: what they are asked, and what their answers mean.

use std::borrow::Borrow;
use std::sync::Arc;

use redis::{Cmd, RedisError, Value};

use super::Time;
use super::key::{Names, Values};
use crate::engine::charge::{Denial, Draw, Drawn, Few, Handle, Receipt, Tally, Verdicts};
use crate::engine::meter::{self, Meter, NEVER, Reading, Snapshot, Standing, Verdict, Window};
use crate::engine::request::RequestView;
use crate::engine::rule::{Measure, Rule};
use crate::engine::store::Adjustment;
use crate::engine::time::Now;

const SECOND: u64 = 1_000_000_000;
const MICROSECOND: u64 = 1_000;
/// Lua's numbers are exact up to 2^53; products stay below this.
const EXACT: u64 = 1 << 52;
/// With a told time keys must outlive what the server's clock says.
const KEEP_TOLD: u64 = 600_000;
/// Numbers that an answer has of each key.
const SAID: usize = 4;

/// A script, and its digest.
#[derive(Debug)]
pub(super) struct Script {
    text: &'static str,
    digest: String,
}

/// Keys and arguments, in their order.
#[derive(Debug, Default)]
pub(super) struct Arguments {
    keys: Vec<String>,
    head: Vec<String>,
    items: Vec<(char, char, [u64; 7])>,
}

/// Which keys are whose.
#[derive(Debug)]
pub(super) struct Asked {
    items: Few<Item>,
}

#[derive(Debug)]
struct Item {
    draw: usize,
    candidate: Option<u8>,
    key: String,
}

/// What the store says of one key.
struct Said {
    /// 0 denied, 1 admitted, 2 not asked.
    said: i64,
    reading: Reading,
}

impl Script {
    pub(super) fn charge() -> Self {
        let text = concat!(
            include_str!("lua/common.lua"),
            include_str!("lua/charge.lua")
        );
        Self::new(text)
    }

    pub(super) fn adjust() -> Self {
        let text = concat!(
            include_str!("lua/common.lua"),
            include_str!("lua/adjust.lua")
        );
        Self::new(text)
    }

    fn new(text: &'static str) -> Self {
        let digest = redis::Script::new(text).get_hash().to_owned();
        Self { text, digest }
    }

    pub(super) const fn text(&self) -> &str {
        self.text
    }

    pub(super) fn by_digest(&self, arguments: &Arguments) -> Cmd {
        arguments.command("EVALSHA", &self.digest)
    }

    pub(super) fn whole(&self, arguments: &Arguments) -> Cmd {
        arguments.command("EVAL", self.text)
    }
}

/// Whether the server does not know the script that it was asked to run.
pub(super) fn is_unknown(error: &RedisError) -> bool {
    error.code() == Some("NOSCRIPT")
}

impl Arguments {
    fn command(&self, name: &str, script: &str) -> Cmd {
        let mut command = redis::cmd(name);
        command.arg(script).arg(self.keys.len());
        for key in &self.keys {
            command.arg(key);
        }
        for text in &self.head {
            command.arg(text);
        }
        let mut letter = [0; 4];
        for (role, kind, numbers) in &self.items {
            command.arg(&*role.encode_utf8(&mut letter));
            command.arg(&*kind.encode_utf8(&mut letter));
            for number in numbers {
                command.arg(*number);
            }
        }
        command
    }

    fn begin(time: Time, now: Now) -> Self {
        let head = match time {
            Time::Server => vec![String::new(), String::new(), "0".to_owned()],
            Time::Told => vec![
                (now.unix / SECOND).to_string(),
                (now.unix % SECOND / MICROSECOND).to_string(),
                KEEP_TOLD.to_string(),
            ],
        };
        Self {
            head,
            ..Self::default()
        }
    }

    fn push(&mut self, key: &str, role: char, (kind, numbers): (char, [u64; 7])) {
        self.keys.push(key.to_owned());
        self.items.push((role, kind, numbers));
    }
}

/// What is to be asked about `draws`.
pub(super) fn ask(
    draws: &[Draw<&Arc<Rule>>],
    request: &RequestView<'_>,
    names: &Names,
    time: Time,
    now: Now,
) -> (Asked, Arguments) {
    let mut arguments = Arguments::begin(time, now);
    let blocked = draws.iter().filter(|draw| blocks(draw.rule)).count();
    arguments.head.push(blocked.to_string());
    let mut items = Few::new();
    for (place, draw) in draws.iter().enumerate() {
        let rule = draw.rule;
        let Measure::Metered(meter) = &rule.measure else {
            continue;
        };
        let values = Values::of(rule, request);
        let mut add = |scope, meter: &Meter, candidate: Option<u8>, role| {
            let key = names.key(&rule.policy, scope, meter, &values);
            arguments.push(&key, role, charge_numbers(meter, rule.request_cost));
            items.push(Item {
                draw: place,
                candidate,
                key,
            });
        };
        let role = if rule.shadow { 's' } else { 'e' };
        add(&rule.scope.name, meter, None, role);
        for (index, tried) in (0u8..64).zip(&rule.candidates) {
            add(&tried.scope.name, &tried.meter, Some(index), 'c');
        }
    }
    (Asked { items }, arguments)
}

fn blocks(rule: &Rule) -> bool {
    rule.measure == Measure::Nothing && !rule.shadow
}

const fn split(nanoseconds: u64) -> [u64; 2] {
    [nanoseconds / SECOND, nanoseconds % SECOND]
}

/// Kind and numbers of a key to charge.
fn charge_numbers(meter: &Meter, tokens: u64) -> (char, [u64; 7]) {
    let least = tokens.max(1);
    match meter {
        Meter::Bucket { limit, deepest } => {
            let [cost_s, cost_n] = split(limit.cost(least));
            let [full_s, full_n] = split(limit.tolerance);
            let [deep_s, deep_n] = split(*deepest);
            let takes = u64::from(tokens > 0);
            ('b', [cost_s, cost_n, full_s, full_n, deep_s, deep_n, takes])
        }
        Meter::Fixed(window) => ('f', window_numbers(window, false, least, tokens)),
        Meter::Sliding(window) => ('s', window_numbers(window, true, least, tokens)),
    }
}

/// The first two numbers, and what a window is like. The weight of the last window of a sliding one is
/// worked out in grains of time, which are as fine as doubles allow: a microsecond, unless counts are
/// very large. Rounded against who asks.
fn window_numbers(window: &Window, sliding: bool, first: u64, second: u64) -> [u64; 7] {
    let length = window.length() / MICROSECOND;
    let capacity = window.capacity().min(EXACT);
    let (grains, grain) = if sliding {
        let coarse = (u128::from(length) * u128::from(capacity) * 2).div_ceil(u128::from(EXACT));
        let grain = u64::try_from(coarse).unwrap_or(u64::MAX).clamp(1, length);
        (length / grain, grain)
    } else {
        (1, length)
    };
    [
        first.min(EXACT),
        second.min(EXACT),
        capacity,
        window.length() / SECOND,
        grains,
        grain,
        EXACT / grains.max(1),
    ]
}

impl Asked {
    /// Whether there is nothing that a store counts.
    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The verdicts where there is nothing to count.
    pub(super) fn uncounted(&self, draws: &[Draw<Arc<Rule>>]) -> Verdicts {
        self.judge(draws, &[], Now::default())
    }

    /// What the answer of the store comes to; `None`: it is not one to this question.
    pub(super) fn verdicts(&self, draws: &[Draw<Arc<Rule>>], answer: &Value) -> Option<Verdicts> {
        let Value::Array(numbers) = answer else {
            return None;
        };
        let numbers: Few<i64> = numbers.iter().map(number).collect::<Option<_>>()?;
        let (head, said) = numbers.split_at_checked(2)?;
        if said.len() != self.items.len() * SAID {
            return None;
        }
        let nanoseconds = |number: i64, unit: u64| u64::try_from(number).ok()?.checked_mul(unit);
        let now = nanoseconds(head[0], SECOND)?.checked_add(nanoseconds(head[1], MICROSECOND)?)?;
        let read = |(item, numbers): (&Item, &[i64])| {
            let reading = match meter_of(&draws[item.draw].rule, item.candidate)? {
                Meter::Bucket { .. } => {
                    let ahead = nanoseconds(numbers[1], SECOND)?;
                    let ahead = ahead.checked_add(nanoseconds(numbers[2], 1)?)?;
                    Reading::Tat(now.checked_add(ahead)?)
                }
                Meter::Fixed(_) | Meter::Sliding(_) => Reading::Counts {
                    end: nanoseconds(numbers[1], SECOND)?,
                    count: nanoseconds(numbers[2], 1)?,
                    last: nanoseconds(numbers[3], 1)?,
                },
            };
            Some(Said {
                said: numbers[0],
                reading,
            })
        };
        let items = self.items.iter().zip(said.chunks_exact(SAID));
        let said: Vec<Said> = items.map(read).collect::<Option<_>>()?;
        let now = Now {
            mono: now,
            unix: now,
        };
        Some(self.judge(draws, &said, now))
    }

    fn judge(&self, draws: &[Draw<Arc<Rule>>], said: &[Said], now: Now) -> Verdicts {
        let mut drawn: Few<Drawn> = draws.iter().map(|_| Drawn::default()).collect();
        let mut denied: Option<Denial> = None;
        let mut deny = |by: usize, wait: u64| {
            denied = Some(match denied {
                Some(other) if other.wait >= wait => Denial {
                    alone: false,
                    ..other
                },
                other => Denial {
                    by,
                    wait,
                    alone: other.is_none(),
                    unknown: false,
                },
            });
        };
        let mut items = self.items.iter().zip(said).peekable();
        for (by, (draw, drawn)) in draws.iter().zip(&mut drawn).enumerate() {
            let rule = &draw.rule;
            if rule.measure == Measure::Nothing {
                drawn.standing = Some(Standing::default());
                if !rule.shadow {
                    deny(by, NEVER);
                }
            }
            while let Some((item, said)) = items.next_if(|(item, _)| item.draw == by) {
                if let Some(wait) = tell(rule, item, said, drawn, now) {
                    deny(by, wait);
                }
            }
        }
        if denied.is_none() {
            for (draw, drawn) in draws.iter().zip(&mut drawn) {
                drawn.shadow_over |= draw.rule.shadow && draw.rule.measure == Measure::Nothing;
            }
        } else {
            // What candidates took stays: there is no request to give it back for.
            drawn.iter_mut().for_each(|drawn| drawn.taken = None);
        }
        Verdicts { drawn, denied }
    }
}

/// Writes down what is said of one key; how long the request has to wait, if that denies it.
fn tell(rule: &Rule, item: &Item, said: &Said, drawn: &mut Drawn, now: Now) -> Option<u64> {
    let meter = meter_of(rule, item.candidate)?;
    let tally = || Tally {
        candidate: item.candidate,
        name: item.key.clone(),
        mark: match said.reading {
            Reading::Tat(tat) => tat,
            Reading::Counts { end, .. } => end,
        },
    };
    let (over, admitted) = (said.said == 0, said.said == 1);
    if let Some(index) = item.candidate {
        let bit = 1 << index;
        drawn.tried.0 |= if admitted { bit } else { 0 };
        drawn.tried.1 |= if over { bit } else { 0 };
        if let Some(Receipt {
            account: Handle::Stored(tallies),
            ..
        }) = drawn.taken.as_mut().filter(|_| admitted)
        {
            tallies.push(tally());
        }
        return None;
    }
    let snapshot = Snapshot::new(meter, said.reading);
    drawn.standing = Some(meter.standing(&snapshot, now));
    if admitted && rule.settles() {
        drawn.taken = Some(Receipt {
            account: Handle::Stored(vec![tally()]),
            mark: 0,
            tried: smallvec::SmallVec::new(),
            nodes: 1,
        });
    }
    if !over || rule.shadow {
        drawn.shadow_over = over && rule.shadow;
        return None;
    }
    Some(match meter.peek(&snapshot, rule.request_cost, now) {
        Verdict::Deny { wait } => wait,
        // Only where weights were rounded up to grains: a moment.
        Verdict::Admit { .. } => SECOND,
    })
}

fn meter_of(rule: &Rule, candidate: Option<u8>) -> Option<&Meter> {
    match (candidate, &rule.measure) {
        (None, Measure::Metered(meter)) => Some(meter),
        (None, Measure::Nothing | Measure::Everything) => None,
        (Some(index), _) => {
            let tried = rule.candidates.get(usize::from(index))?;
            Some(&tried.meter)
        }
    }
}

fn number(value: &Value) -> Option<i64> {
    match value {
        Value::Int(number) => Some(*number),
        _ => None,
    }
}

/// What is to be asked to change the buckets of `receipt`; `None`: they are not in the store.
pub(super) fn adjust<R: Borrow<Rule>>(
    rule: &R,
    receipt: &Receipt,
    adjustment: Adjustment,
    time: Time,
    now: Now,
) -> Option<Arguments> {
    let rule = rule.borrow();
    let Handle::Stored(tallies) = &receipt.account else {
        return None;
    };
    let (what, tokens) = match adjustment {
        Adjustment::GiveBack => ('g', rule.request_cost),
        Adjustment::Charge(tokens) => ('c', tokens),
    };
    let mut arguments = Arguments::begin(time, now);
    for tally in tallies {
        let Some(meter) = meter_of(rule, tally.candidate) else {
            continue;
        };
        let numbers = match meter {
            Meter::Bucket { limit, deepest } => {
                let [worth_s, worth_n] = split(meter::worth(limit, tokens));
                let [mark_s, mark_n] = split(tally.mark);
                let [deep_s, deep_n] = split(*deepest);
                ('b', [worth_s, worth_n, mark_s, mark_n, deep_s, deep_n, 0])
            }
            Meter::Fixed(window) => (
                'f',
                window_numbers(window, false, tokens, tally.mark / SECOND),
            ),
            Meter::Sliding(window) => (
                's',
                window_numbers(window, true, tokens, tally.mark / SECOND),
            ),
        };
        arguments.push(&tally.name, what, numbers);
    }
    (!arguments.keys.is_empty()).then_some(arguments)
}
