//! `limiterd counters`: buckets by name: listed, looked at, filled again.

use std::io::Write;
use std::net::IpAddr;
use std::time::Duration;

use http::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::client::Admin;
use crate::admin::counters::{CounterView, CountersView};

/// Exit status of `get` when a bucket does not admit what a request costs.
const OVER_LIMIT: u8 = 3;

/// What is to be done.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Command {
    /// The limits by name, with what is left of those that have one bucket; what the store counts; the
    /// kernel's policies, with the buckets of sources that are dropped most.
    List {
        /// Names that begin so: as local:shop/, global:, store: or kernel:.
        #[arg(default_value = "")]
        prefix: String,
        /// Only those in memory, store or kernel.
        #[arg(long = "in", value_name = "PLACE", value_parser = ["memory", "store", "kernel"])]
        place: Option<String>,
        /// How many at most, up to 1000.
        #[arg(long, value_name = "NUMBER", default_value_t = 100)]
        limit: u32,
        /// As JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        admin: Admin,
    },
    /// What is left of a bucket; exit status 3 if it does not admit what a request costs.
    Get(One),
    /// Make a bucket a full one.
    Reset(One),
}

/// A bucket.
#[derive(Clone, Debug, clap::Args)]
pub struct One {
    /// The limit's name, as `list` tells it.
    name: String,
    /// Of a limit with a bucket for each value: a request that has the value, by its method.
    #[arg(requires = "url")]
    method: Option<String>,
    /// And its URL.
    url: Option<String>,
    /// A header of the request, as `name: value`; may be given several times.
    #[arg(short = 'H', long = "header", value_name = "HEADER")]
    headers: Vec<String>,
    /// Of a domain of the rate limit service: a descriptor; may be given several times.
    #[arg(long = "descriptor", value_name = "KEY=VALUE,...")]
    descriptors: Vec<String>,
    /// The address that it comes from; in the kernel, the source whose buckets are meant.
    #[arg(long, value_name = "IP")]
    from: Option<IpAddr>,
    /// As JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: Admin,
}

/// Does it; the exit status.
///
/// # Errors
/// When the daemon cannot be asked, or there is no such bucket.
pub fn run(command: Command, out: &mut impl Write) -> anyhow::Result<u8> {
    match command {
        Command::List {
            prefix,
            place,
            limit,
            json,
            admin,
        } => {
            let limit = limit.to_string();
            let mut pairs = vec![("prefix", prefix.as_str()), ("limit", &limit)];
            pairs.extend(place.as_deref().map(|place| ("in", place)));
            let text = admin.ask(Method::GET, &path("/counters", &pairs), None)?;
            tell(&text, json, out)?;
            Ok(0)
        }
        Command::Get(one) => {
            let view = ask(&one, Method::GET, out)?;
            let over = |counter: &CounterView| counter.state.is_some_and(|state| !state.admits);
            let over = view.counters.iter().any(over);
            Ok(if over { OVER_LIMIT } else { 0 })
        }
        Command::Reset(one) => {
            ask(&one, Method::DELETE, out)?;
            Ok(0)
        }
    }
}

fn ask(one: &One, method: Method, out: &mut impl Write) -> anyhow::Result<CountersView> {
    let from = one.from.map(|from| from.to_string());
    let optional = [("method", &one.method), ("url", &one.url), ("from", &from)];
    let mut pairs = vec![("name", one.name.as_str())];
    pairs.extend(
        optional
            .iter()
            .filter_map(|(key, value)| Some((*key, value.as_deref()?))),
    );
    pairs.extend(one.headers.iter().map(|header| ("header", header.as_str())));
    let descriptors = one.descriptors.iter();
    pairs.extend(descriptors.map(|descriptor| ("descriptor", descriptor.as_str())));
    let text = one
        .admin
        .ask(method, &path("/counters/one", &pairs), None)?;
    tell(&text, one.json, out)
}

fn path(path: &str, pairs: &[(&str, &str)]) -> String {
    let pairs = pairs.iter().map(|(key, value)| {
        let value = utf8_percent_encode(value, NON_ALPHANUMERIC);
        format!("{key}={value}")
    });
    format!("{path}?{}", pairs.collect::<Vec<_>>().join("&"))
}

/// Writes an answer as it is, or for people.
fn tell(text: &str, json: bool, out: &mut impl Write) -> anyhow::Result<CountersView> {
    let view: CountersView = serde_json::from_str(text)?;
    if json {
        out.write_all(text.as_bytes())?;
        return Ok(view);
    }
    for counter in &view.counters {
        writeln!(out, "{}", line(counter))?;
    }
    if view.more {
        writeln!(out, "there are more: a longer prefix, or --limit")?;
    }
    for note in &view.notes {
        writeln!(out, "{note}")?;
    }
    Ok(view)
}

fn line(counter: &CounterView) -> String {
    let mut line = counter.name.clone();
    if let Some(source) = counter.source {
        line += &format!(" from {source}");
    }
    let mut parts = Vec::new();
    if !counter.quota.is_empty() {
        parts.push(counter.quota.clone());
    }
    match (counter.state, counter.capacity) {
        (Some(state), Some(capacity)) => {
            parts.push(format!("{} of {capacity} tokens left", state.remaining));
            if state.reset_ms > 0 {
                parts.push(format!("full in {}", seconds(state.reset_ms)));
            }
            if !state.admits {
                parts.push(format!("over the limit for {}", seconds(state.wait_ms)));
            }
        }
        _ if counter.buckets != "one" => parts.push(format!("buckets: {}", counter.buckets)),
        _ => {}
    }
    parts.extend(counter.value.clone());
    if let Some(left) = counter.expires_ms {
        parts.push(format!("forgotten in {}", seconds(left)));
    }
    format!("{line}  {}", parts.join(", "))
}

fn seconds(ms: u64) -> String {
    let time = Duration::from_millis(ms);
    humantime::format_duration(if ms < 1_000 {
        time
    } else {
        Duration::from_secs(ms.div_ceil(1_000))
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::explain::BucketState;

    #[test]
    fn names_are_encoded() {
        assert_eq!(
            path(
                "/counters/one",
                &[("name", "local:a/b@c+d"), ("header", "x: ü&")]
            ),
            "/counters/one?name=local%3Aa%2Fb%40c%2Bd&header=x%3A%20%C3%BC%26"
        );
    }

    #[test]
    fn counters_are_told_in_a_line() {
        let mut counter = CounterView {
            name: "local:d/p/rule/0@d/r".to_owned(),
            quota: "3 a minute".to_owned(),
            buckets: "one".to_owned(),
            capacity: Some(3),
            state: Some(BucketState {
                remaining: 0,
                reset_ms: 59_500,
                admits: false,
                wait_ms: 19_500,
            }),
            ..CounterView::default()
        };
        assert_eq!(
            line(&counter),
            "local:d/p/rule/0@d/r  3 a minute, 0 of 3 tokens left, full in 1m, over the limit for 20s"
        );
        counter.state = None;
        counter.buckets = "per value".to_owned();
        assert_eq!(
            line(&counter),
            "local:d/p/rule/0@d/r  3 a minute, buckets: per value"
        );
    }
}
