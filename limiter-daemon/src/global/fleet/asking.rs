//! The scripts of the fleet: what they are asked, and what their answers mean.

use std::collections::BTreeMap;
use std::time::Duration;

use ipnet::IpNet;
use redis::{FromRedisValue, RedisError, Script, ScriptInvocation, Value};
use serde::{Deserialize, Serialize};
use tokio::time::{error::Elapsed, timeout};

use super::view::Member;
use super::{ANSWER, Connection, EVENTS, GONE, NODES};
use crate::engine::fleet::{Cause, MAX_BLOCKS, Pending, Remote, StreamId};

/// Fields of the table of blocks that are asked for at a time, about.
const PIECE: usize = 512;

/// Why the store cannot be asked, or is asked from the beginning.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("{0}")]
    Redis(#[from] RedisError),
    #[error("it does not answer in time")]
    Late(#[from] Elapsed),
    #[error("it answers {0}, which is not what was asked")]
    Odd(&'static str),
    #[error("the connection has ended")]
    Gone,
    #[error("it is not known which server of the cluster has the keys of the fleet")]
    Nobody,
    /// What was known of it does not hold any more.
    #[error("{0}")]
    Changed(&'static str),
}

/// Keys and scripts.
pub(super) struct Asking {
    /// Nodes, epoch, blocks, ends, events, count of events.
    keys: [String; 6],
    beat: Script,
    block: Script,
    lift: Script,
}

/// What a node says of itself with each beat.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct About {
    pub(super) name: String,
    pub(super) address: String,
    pub(super) version: String,
    pub(super) blocks: u64,
}

/// The answer to a beat.
#[derive(Debug)]
pub(super) struct Beat {
    /// Milliseconds since 1970.
    pub(super) now: u64,
    pub(super) epoch: String,
    pub(super) last: StreamId,
    /// Events so far.
    pub(super) count: u64,
    pub(super) stored: u64,
    pub(super) nodes: Vec<Member>,
}

/// An event.
#[derive(Debug)]
pub(super) struct Heard {
    pub(super) id: StreamId,
    /// Each has the next one; `None`: it is none of this version's.
    pub(super) number: Option<u64>,
    /// `None`: it tells nothing that is known here.
    pub(super) change: Option<(IpNet, Change)>,
}

/// A change of the table of blocks.
#[derive(Debug)]
pub(super) enum Change {
    Block(Remote),
    Lift(Cause),
}

impl Asking {
    pub(super) fn new(prefix: &str) -> Self {
        const NAMES: [&str; 6] = ["nodes", "epoch", "blocks", "ends", "events", "count"];
        Self {
            keys: NAMES.map(|name| format!("{prefix}{{fleet}}{name}")),
            beat: Script::new(concat!(
                include_str!("../lua/fleet.lua"),
                include_str!("../lua/beat.lua")
            )),
            block: Script::new(concat!(
                include_str!("../lua/fleet.lua"),
                include_str!("../lua/block.lua")
            )),
            lift: Script::new(concat!(
                include_str!("../lua/fleet.lua"),
                include_str!("../lua/lift.lua")
            )),
        }
    }

    /// One of the keys, which are all in one place.
    pub(super) fn key(&self) -> &str {
        &self.keys[0]
    }

    fn events(&self) -> &str {
        &self.keys[4]
    }

    async fn run<T: FromRedisValue>(
        &self,
        script: &Script,
        connection: &mut Connection,
        arguments: impl FnOnce(&mut ScriptInvocation<'_>),
    ) -> Result<T, Error> {
        let mut invocation = script.prepare_invoke();
        for key in &self.keys {
            invocation.key(key);
        }
        arguments(&mut invocation);
        Ok(timeout(ANSWER, invocation.invoke_async(connection)).await??)
    }

    /// This node lives.
    pub(super) async fn beat(
        &self,
        connection: &mut Connection,
        id: &str,
        running: Duration,
        about: &About,
        heard: StreamId,
    ) -> Result<Beat, Error> {
        let about = serde_json::to_string(about).map_err(|_plain_data| Error::Odd("nothing"))?;
        let answer: Vec<String> = self
            .run(&self.beat, connection, |invocation| {
                invocation
                    .arg(id)
                    .arg(millis(running))
                    .arg(about)
                    .arg(millis(GONE))
                    .arg(id)
                    .arg(NODES)
                    .arg(heard.to_string());
            })
            .await?;
        read_beat(&answer).ok_or(Error::Odd("a beat"))
    }

    /// This node goes.
    pub(super) async fn leave(&self, connection: &mut Connection, id: &str) -> Result<(), Error> {
        let mut command = redis::cmd("HDEL");
        command.arg(&self.keys[0]).arg(id);
        Ok(timeout(ANSWER, command.query_async(connection)).await??)
    }

    /// All blocks, piece by piece.
    pub(super) async fn all(
        &self,
        connection: &mut Connection,
    ) -> Result<BTreeMap<IpNet, Remote>, Error> {
        let mut all = BTreeMap::new();
        let mut cursor = 0u64;
        loop {
            let mut command = redis::cmd("HSCAN");
            command
                .arg(&self.keys[2])
                .arg(cursor)
                .arg("COUNT")
                .arg(PIECE);
            let (next, piece): (u64, Vec<(String, String)>) =
                timeout(ANSWER, command.query_async(connection)).await??;
            for (cidr, value) in piece {
                match (cidr.parse(), serde_json::from_str(&value)) {
                    (Ok(net), Ok(remote)) if all.len() < 2 * MAX_BLOCKS => {
                        all.insert(net, remote);
                    }
                    _ => tracing::warn!(cidr, "the store has a block that cannot be read"),
                }
            }
            if next == 0 {
                return Ok(all);
            }
            cursor = next;
        }
    }

    /// Tells it of a block; `None`: it has no room.
    pub(super) async fn block(
        &self,
        connection: &mut Connection,
        (net, left, age): (IpNet, u64, u64),
        cause: &Cause,
    ) -> Result<Option<(Remote, StreamId)>, Error> {
        // Numbers of the server's come before it.
        let members = serde_json::to_string(cause).map_err(|_plain_data| Error::Odd("nothing"))?;
        let members = members.trim_start_matches('{');
        let answer: Vec<String> = self
            .run(&self.block, connection, |invocation| {
                invocation
                    .arg(net.to_string())
                    .arg(left)
                    .arg(age)
                    .arg(members)
                    .arg(MAX_BLOCKS)
                    .arg(EVENTS);
            })
            .await?;
        match answer.as_slice() {
            [full] if full == "full" => Ok(None),
            [value, id] => {
                let remote =
                    serde_json::from_str(value).map_err(|_not_one| Error::Odd("a block"))?;
                let id = if id.is_empty() {
                    StreamId::default()
                } else {
                    id.parse().map_err(|_not_one| Error::Odd("an event"))?
                };
                Ok(Some((remote, id)))
            }
            _ => Err(Error::Odd("a block")),
        }
    }

    /// Tells it that a block is lifted.
    pub(super) async fn lift(
        &self,
        connection: &mut Connection,
        net: IpNet,
        until: Option<u64>,
        by: &Cause,
    ) -> Result<(), Error> {
        let by = serde_json::to_string(by).map_err(|_plain_data| Error::Odd("nothing"))?;
        let until = until.map_or_else(String::new, |until| until.to_string());
        let _event: String = self
            .run(&self.lift, connection, |invocation| {
                invocation
                    .arg(net.to_string())
                    .arg(by)
                    .arg(until)
                    .arg(EVENTS);
            })
            .await?;
        Ok(())
    }

    /// Waits for events after `position`, for `wait` at most.
    pub(super) async fn events_after(
        &self,
        connection: &mut Connection,
        position: StreamId,
        wait: Duration,
    ) -> Result<Vec<Heard>, Error> {
        let mut command = redis::cmd("XREAD");
        command
            .arg("COUNT")
            .arg(PIECE)
            .arg("BLOCK")
            .arg(millis(wait));
        command
            .arg("STREAMS")
            .arg(self.events())
            .arg(position.to_string());
        let answer: Value = timeout(wait + ANSWER, command.query_async(connection)).await??;
        read_events(&answer).ok_or(Error::Odd("events"))
    }
}

/// What is pending, told to the store.
pub(super) async fn tell(
    asking: &Asking,
    connection: &mut Connection,
    pending: &Pending,
) -> Result<Option<(Remote, StreamId)>, Error> {
    match pending {
        Pending::Block {
            net,
            left,
            age,
            cause,
            ..
        } => asking.block(connection, (*net, *left, *age), cause).await,
        Pending::Lift { net, until, by } => {
            asking.lift(connection, *net, *until, by).await?;
            Ok(None)
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn read_beat(answer: &[String]) -> Option<Beat> {
    let ([now, epoch, last, count, stored], nodes) = answer.split_first_chunk()?;
    let member = |parts: &[String]| {
        let [id, silent, since, heard, about] = parts else {
            return None;
        };
        let about: About = serde_json::from_str(about).ok()?;
        Some(Member {
            id: id.clone(),
            name: about.name,
            address: about.address,
            version: about.version,
            since: since.parse().ok()?,
            silent: silent.parse().ok()?,
            blocks: about.blocks,
            caught_up: heard == "1",
        })
    };
    let mut nodes: Vec<Member> = nodes.chunks_exact(5).map(member).collect::<Option<_>>()?;
    nodes.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
    Some(Beat {
        now: now.parse().ok()?,
        epoch: epoch.clone(),
        last: last.parse().ok()?,
        count: count.parse().ok()?,
        stored: stored.parse().ok()?,
        nodes,
    })
}

/// Events of one stream.
fn read_events(answer: &Value) -> Option<Vec<Heard>> {
    let events = match answer {
        Value::Nil => return Some(Vec::new()),
        Value::Map(streams) => &streams.first()?.1,
        Value::Array(streams) => match streams.first()? {
            Value::Array(stream) => stream.get(1)?,
            _ => return None,
        },
        _ => return None,
    };
    let Value::Array(events) = events else {
        return None;
    };
    let read = |event: &Value| {
        let (id, fields): (String, Vec<(String, String)>) =
            redis::from_redis_value_ref(event).ok()?;
        let field = |name: &str| {
            let found = fields.iter().find(|(field, _)| field == name);
            found.map(|(_, value)| value.as_str())
        };
        let told = || {
            let net = field("cidr")?.parse().ok()?;
            let value = field("value")?;
            let change = match field("what")? {
                "block" => Change::Block(serde_json::from_str(value).ok()?),
                "lift" => Change::Lift(serde_json::from_str(value).ok()?),
                _ => return None,
            };
            Some((net, change))
        };
        Some(Heard {
            id: id.parse().ok()?,
            number: field("number").and_then(|number| number.parse().ok()),
            change: told(),
        })
    };
    events.iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn event(id: &str, what: &str, cidr: &str, value: &str) -> Value {
        let fields = ["number", "7", "what", what, "cidr", cidr, "value", value];
        Value::Array(vec![text(id), Value::Array(fields.map(text).to_vec())])
    }

    #[test]
    fn events_are_read_in_both_protocols() {
        let block = r#"{"since":1,"until":2,"by":"a","why":"b","rule":"c"}"#;
        let events = Value::Array(vec![
            event("5-0", "block", "192.0.2.1/32", block),
            event("5-1", "lift", "2001:db8::/64", r#"{"by":"a"}"#),
            event("6-0", "sing", "192.0.2.1/32", ""),
        ]);
        let stream = || text("limiterd:{fleet}events");
        let three = Value::Map(vec![(stream(), events.clone())]);
        let two = Value::Array(vec![Value::Array(vec![stream(), events])]);
        for answer in [two, three] {
            let events = read_events(&answer).unwrap();
            let ids: Vec<_> = events.iter().map(|event| event.id).collect();
            assert_eq!(ids, [StreamId(5, 0), StreamId(5, 1), StreamId(6, 0)]);
            assert!(events.iter().all(|event| event.number == Some(7)));
            let changes: Vec<_> = events.iter().map(|event| event.change.as_ref()).collect();
            let [
                Some((net, Change::Block(remote))),
                Some((_, Change::Lift(by))),
                None,
            ] = changes[..]
            else {
                panic!("{events:?}");
            };
            assert_eq!(net.to_string(), "192.0.2.1/32");
            assert_eq!((remote.since, remote.until, by.by.as_str()), (1, 2, "a"));
            assert_eq!(remote.cause.rule, "c");
        }
        assert!(read_events(&Value::Nil).unwrap().is_empty());
        assert!(read_events(&Value::Okay).is_none());
    }

    #[test]
    fn a_beat_is_read() {
        let about = r#"{"name":"n","address":"a","version":"v","blocks":3}"#;
        let answer = ["9", "e", "5-0", "4", "2", "id", "100", "7", "1", about];
        let answer = answer.map(str::to_owned);
        let beat = read_beat(&answer).unwrap();
        assert_eq!((beat.now, beat.count, beat.stored), (9, 4, 2));
        assert!(beat.nodes[0].caught_up && beat.nodes[0].silent == 100);
        assert!(read_beat(&answer[..4]).is_none());
    }
}
