//! Buckets by name over the admin listener: `GET /counters` lists them, `GET /counters/one` looks at
//! one, `DELETE /counters/one` makes it a full one. JSON; `limiterd counters` speaks it.
//!
//! | name | what |
//! |---|---|
//! | `local:<rule>@<route>`, `global:...` | a limit on requests, in this node's memory, or where the store counts there |
//! | `domain:<name>` | a domain of the rate limit service; its counts are by descriptors |
//! | `store:<key>` | a count in the store that nodes share |
//! | `kernel:<policy>` | a policy of the kernel half; its buckets are by source |

mod domain;
mod kernel;
mod query;
mod stored;

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};

use super::l4::{Answer, Refused, bad, json};
use super::{Admin, Question, text};
use crate::engine::counters::{self, Counter, Found, NoBucket};
use crate::engine::explain::BucketState;
use crate::engine::store::over_limit::Memory;
use crate::global::RedisLedger;
use query::Query;

/// Counters of a list, unless it is said how many; and at most.
const USUAL: usize = 100;
const MOST: usize = 1_000;

/// What counts in the store that nodes share.
#[derive(Debug)]
pub struct Counted {
    pub stores: Vec<Arc<RedisLedger>>,
    /// Keys of limits begin with it.
    pub prefix: String,
    /// What this node remembers of it; `None`: nothing.
    pub memory: Option<Arc<Memory>>,
}

/// Counters, and what there is to say of them.
#[derive(Debug, Default, Deserialize, Serialize)]
pub struct CountersView {
    pub counters: Vec<CounterView>,
    /// There are more than were asked for.
    pub more: bool,
    /// For people.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// A counter.
#[derive(Debug, Default, Deserialize, Serialize)]
pub struct CounterView {
    pub name: String,
    /// `memory`, `store` or `kernel`.
    pub place: String,
    /// How much the limit admits, in words; empty: not known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub quota: String,
    /// How many buckets it has: `one`, `per value`, `per connection`, `per source` or `none`.
    pub buckets: String,
    /// Whose it is, in the kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<IpAddr>,
    /// Tokens of a full bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<u64>,
    /// Of one bucket, as what follows; absent: of several, or not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<BucketState>,
    /// As it lies in the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Milliseconds until the store forgets it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_ms: Option<u64>,
}

impl From<Counter> for CounterView {
    fn from(counter: Counter) -> Self {
        Self {
            name: counter.name,
            place: "memory".to_owned(),
            quota: counter.quota,
            buckets: counter.buckets.name().to_owned(),
            capacity: counter.capacity,
            state: counter.state,
            ..Self::default()
        }
    }
}

/// Which counters are listed.
struct Wanted<'a> {
    place: Option<&'a str>,
    prefix: &'a str,
    most: usize,
}

impl Wanted<'_> {
    /// Whether the list has those of a place, whose names begin with one of `begins`.
    fn has(&self, place: &str, begins: &[&str]) -> bool {
        self.place.is_none_or(|wanted| wanted == place)
            && begins
                .iter()
                .any(|one| one.starts_with(self.prefix) || self.prefix.starts_with(one))
    }
}

impl Admin {
    pub(super) async fn counters(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let answer = self.counters_answer(&request).await;
        answer.unwrap_or_else(|(status, why)| text(status, format!("{why}\n")))
    }

    async fn counters_answer(&self, request: &Request<Incoming>) -> Answer {
        let query = Query::read(request.uri().query().unwrap_or(""))?;
        let view = match (request.method(), request.uri().path()) {
            (&Method::GET, "/counters") => self.list_counters(&query).await?,
            (&Method::GET, "/counters/one") => self.one_counter(&query, false).await?,
            (&Method::DELETE, "/counters/one") => self.one_counter(&query, true).await?,
            _ => {
                let why = "GET /counters, GET or DELETE /counters/one?name=...";
                return Err((StatusCode::METHOD_NOT_ALLOWED, why.to_owned()));
            }
        };
        json(&view)
    }

    async fn list_counters(&self, query: &Query) -> Result<CountersView, Refused> {
        query.only(&["prefix", "limit", "in"])?;
        let most = match query.get("limit") {
            None => USUAL,
            Some(limit) => limit
                .parse()
                .ok()
                .filter(|limit| (1..=MOST).contains(limit))
                .ok_or_else(|| bad(format!("limit: from 1 to {MOST}")))?,
        };
        let wanted = Wanted {
            place: query.get("in"),
            prefix: query.get("prefix").unwrap_or(""),
            most,
        };
        if let Some(other) = wanted
            .place
            .filter(|place| !["memory", "store", "kernel"].contains(place))
        {
            return Err(bad(format!("in: memory, store or kernel, not {other}")));
        }
        let mut view = CountersView::default();
        if wanted.has("memory", &["local:", "global:"]) {
            let now = self.clock.both();
            let (counters, more) = self.loads.with_plan(|plan| {
                counters::list(plan, &self.state, wanted.prefix, wanted.most, now)
            });
            view.counters.extend(counters.into_iter().map(Into::into));
            view.more |= more > 0;
        }
        if wanted.has("memory", &["domain:"]) {
            self.list_domains(&wanted, &mut view);
        }
        if wanted.has("store", &["store:"]) {
            match self.list_stored(&wanted, &mut view).await {
                // The others are there in any case.
                Err((_, why)) if wanted.place.is_none() => view.notes.push(why),
                listed => listed?,
            }
        }
        if wanted.has("kernel", &["kernel:"]) {
            self.list_kernel(&wanted, &mut view)?;
        }
        if view.counters.len() > most {
            view.counters.truncate(most);
            view.more = true;
        }
        Ok(view)
    }

    async fn one_counter(&self, query: &Query, reset: bool) -> Result<CountersView, Refused> {
        query.only(&["name", "method", "url", "header", "from", "descriptor"])?;
        let name = query
            .get("name")
            .ok_or_else(|| bad("name: that of a counter, as GET /counters tells it".to_owned()))?;
        let view = if let Some(key) = name.strip_prefix("store:") {
            self.one_stored(key, reset).await?
        } else if let Some(policy) = name.strip_prefix("kernel:") {
            self.one_of_kernel(policy, source(query)?, reset)?
        } else if let Some(domain) = name.strip_prefix("domain:") {
            self.one_of_domain(domain, query, reset).await?
        } else {
            self.one_limit(name, query, reset).await?
        };
        Ok(view)
    }

    async fn one_limit(
        &self,
        name: &str,
        query: &Query,
        reset: bool,
    ) -> Result<CountersView, Refused> {
        let now = self.clock.both();
        let question = question(query)?;
        let act = if reset {
            counters::reset
        } else {
            counters::look
        };
        let found = self.loads.with_plan(|plan| match &question {
            None => Ok(act(plan, &self.state, name, None, now)),
            Some(question) => question.with(plan, |asked| {
                act(plan, &self.state, name, Some(&asked.request), now)
            }),
        });
        let found = found.map_err(|error| bad(error.to_string()))?;
        match found.map_err(refused)? {
            Found::Here(capacity, state) => Ok(CountersView {
                counters: vec![CounterView {
                    name: name.to_owned(),
                    place: "memory".to_owned(),
                    buckets: "one".to_owned(),
                    capacity: Some(capacity),
                    state: Some(state),
                    ..CounterView::default()
                }],
                ..CountersView::default()
            }),
            Found::Stored(stored) => self.one_of_store(name, &stored, reset).await,
        }
    }
}

/// The request whose bucket is meant; `None`: none is named.
fn question(query: &Query) -> Result<Option<Question>, Refused> {
    let headers = query.all("header");
    let (method, url) = (query.get("method"), query.get("url"));
    let from = source(query)?;
    if method.is_none() && url.is_none() && headers.is_empty() && from.is_none() {
        return Ok(None);
    }
    Ok(Some(Question {
        method: method.unwrap_or("GET").to_owned(),
        url: url.unwrap_or("/").to_owned(),
        headers,
        from,
    }))
}

fn source(query: &Query) -> Result<Option<IpAddr>, Refused> {
    let parse = |text: &str| {
        text.parse()
            .map_err(|_not_one| bad("from: an IP address".to_owned()))
    };
    query.get("from").map(parse).transpose()
}

fn refused(why: NoBucket) -> Refused {
    let status = match why {
        NoBucket::NoSuchLimit(_) => StatusCode::NOT_FOUND,
        NoBucket::Shared => StatusCode::CONFLICT,
        NoBucket::Uncounted { .. }
        | NoBucket::PerConnection(_)
        | NoBucket::PerValue(_)
        | NoBucket::NotMet(_) => StatusCode::BAD_REQUEST,
    };
    (status, why.to_string())
}
