//! The scripts that run in the store: what they are asked, and what their answers mean.

use redis::{Cmd, RedisError, Value};

use super::Time;
use crate::engine::charge::Few;
use crate::engine::meter::{self, Meter, Reading, Window};
use crate::engine::store::ledger::{
    Change, ChangeKind, Conforms, Form, Item, Question, Reply, Role, Said,
};
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
    /// One for each item, or none.
    tail: Vec<u64>,
}

impl Script {
    pub(super) fn charge() -> Self {
        let text = concat!(
            include_str!("lua/time.lua"),
            include_str!("lua/one.lua"),
            include_str!("lua/common.lua"),
            include_str!("lua/charge.lua")
        );
        Self::new(text)
    }

    pub(super) fn adjust() -> Self {
        let text = concat!(
            include_str!("lua/time.lua"),
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
        for number in &self.tail {
            command.arg(*number);
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

/// What is to be asked.
pub(super) fn charge(question: &Question, time: Time, now: Now) -> Arguments {
    let mut arguments = Arguments::begin(time, now);
    arguments.head.push(question.denials.to_string());
    for item in &question.items {
        let role = match item.role {
            Role::Enforced => 'e',
            Role::Shadow => 's',
            Role::Candidate => 'c',
            Role::Quota => 'q',
            Role::Refund => 'g',
        };
        let mut numbers = if item.role == Role::Refund {
            refund_numbers(&item.meter, item.tokens)
        } else {
            charge_numbers(&item.meter, item.tokens)
        };
        as_written(item.form, &mut numbers);
        arguments.push(&item.key, role, numbers);
    }
    if grants(&question.items) {
        let again = question.items.iter().map(|item| item.again);
        arguments.tail.extend(again);
    }
    arguments
}

/// Whether more than its own tokens is asked for an item.
fn grants(items: &[Item]) -> bool {
    items.iter().any(|item| item.again > 0)
}

/// What is under a key may be a plain count of one window.
fn as_written(form: Form, (kind, numbers): &mut (char, [u64; 7])) {
    if let Form::Plain { begins } = form {
        *kind = 'p';
        numbers[5] = begins.unwrap_or_default();
    }
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

/// Kind and numbers of a key that tokens are given back to: the worth of tokens, or their number.
fn refund_numbers(meter: &Meter, tokens: u64) -> (char, [u64; 7]) {
    match meter {
        Meter::Bucket { limit, deepest } => {
            let [worth_s, worth_n] = split(meter::worth(limit, tokens));
            let [deep_s, deep_n] = split(*deepest);
            ('b', [worth_s, worth_n, 0, 0, deep_s, deep_n, 0])
        }
        Meter::Fixed(window) => ('f', window_numbers(window, false, tokens, 0)),
        Meter::Sliding(window) => ('s', window_numbers(window, true, tokens, 0)),
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

/// What the answer of the store says; `None`: it is not one to a question about these items.
pub(super) fn reply(items: &[Item], answer: &Value) -> Option<Reply> {
    let Value::Array(numbers) = answer else {
        return None;
    };
    let numbers: Few<i64> = numbers.iter().map(number).collect::<Option<_>>()?;
    let (head, said) = numbers.split_at_checked(2)?;
    let granted = if grants(items) { items.len() } else { 0 };
    if said.len() != items.len() * SAID + granted {
        return None;
    }
    let (said, granted) = said.split_at(items.len() * SAID);
    let granted = granted.iter().copied().chain(std::iter::repeat(0));
    let now = nanoseconds(head[0], SECOND)?.checked_add(nanoseconds(head[1], MICROSECOND)?)?;
    let said = items.iter().zip(said.chunks_exact(SAID)).zip(granted);
    Some(Reply {
        now: Now {
            mono: now,
            unix: now,
        },
        said: said
            .map(|((item, numbers), granted)| {
                let granted = u64::try_from(granted).ok()?;
                Some(said_of(item, numbers, now)?.granted(item, granted))
            })
            .collect::<Option<_>>()?,
        clocks: Few::new(),
    })
}

fn said_of(item: &Item, numbers: &[i64], now: u64) -> Option<Said> {
    let reading = match item.meter {
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
    let conforms = match numbers[0] {
        0 => Conforms::No,
        1 => Conforms::Yes,
        2 => Conforms::NotAsked,
        3 => Conforms::OtherWindow,
        _ => return None,
    };
    Some(Said::new(conforms, reading))
}

fn nanoseconds(number: i64, unit: u64) -> Option<u64> {
    u64::try_from(number).ok()?.checked_mul(unit)
}

fn number(value: &Value) -> Option<i64> {
    match value {
        Value::Int(number) => Some(*number),
        _ => None,
    }
}

/// What is to be asked to make these changes.
pub(super) fn adjust(changes: &[Change], time: Time, now: Now) -> Arguments {
    let mut arguments = Arguments::begin(time, now);
    for change in changes {
        let (what, mark) = match change.kind {
            ChangeKind::GiveBack { mark } => ('g', mark),
            ChangeKind::Charge => ('c', 0),
        };
        let tokens = change.tokens;
        let mut numbers = match &change.meter {
            Meter::Bucket { limit, deepest } => {
                let [worth_s, worth_n] = split(meter::worth(limit, tokens));
                let [mark_s, mark_n] = split(mark);
                let [deep_s, deep_n] = split(*deepest);
                ('b', [worth_s, worth_n, mark_s, mark_n, deep_s, deep_n, 0])
            }
            Meter::Fixed(window) => ('f', window_numbers(window, false, tokens, mark / SECOND)),
            Meter::Sliding(window) => ('s', window_numbers(window, true, tokens, mark / SECOND)),
        };
        as_written(change.form, &mut numbers);
        arguments.push(&change.key, what, numbers);
    }
    arguments
}
