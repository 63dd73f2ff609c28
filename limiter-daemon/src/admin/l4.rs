//! The kernel half over the admin listener: the table of offenders, and why a source is treated as it
//! is. JSON; the command line speaks it (`limiterd l4 top`, `l4 explain`).

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use ipnet::IpNet;
use limiter_common::{Protocol, Reason};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{explain, text};
use crate::l4::offenders::{Offender, Offenders};
use crate::l4::{BucketState, Kernel, L4Error, PolicyState, clock, covers_ipv4};

/// Offenders told at most.
const MAX_TOP: usize = 100;
const SECOND: u64 = 1_000_000_000;

/// The kernel half as the admin listener sees it.
#[derive(Debug)]
pub struct L4 {
    pub kernel: Arc<Mutex<Kernel>>,
    pub offenders: Arc<Mutex<Offenders>>,
}

/// A source that is dropped.
#[derive(Debug, Deserialize, Serialize)]
pub struct OffenderView {
    pub source: IpAddr,
    pub policy: String,
    pub reason: String,
    pub shadow: bool,
    pub port: u16,
    /// Sampled drops; the true number is at least that many less `error`.
    pub samples: u64,
    pub error: u64,
    /// Packets of it dropped in the last second, about: where not every drop is sampled, in
    /// proportion to its samples.
    pub drops_per_second: u64,
    pub seconds_ago: u64,
    /// `None`: it has no bucket (it is on a list), or the policy is not in force any more.
    pub tightest: Option<BucketView>,
}

/// The bucket of a source with the smallest share of its tokens left.
#[derive(Debug, Deserialize, Serialize)]
pub struct BucketView {
    pub level: u32,
    pub unit: String,
    pub remaining: u64,
    pub capacity: u64,
}

impl From<&BucketState> for BucketView {
    fn from(bucket: &BucketState) -> Self {
        Self {
            level: bucket.level,
            unit: explain::unit(bucket.unit).to_owned(),
            remaining: bucket.remaining,
            capacity: bucket.limit.capacity,
        }
    }
}

impl L4 {
    pub(super) fn kernel(&self) -> MutexGuard<'_, Kernel> {
        self.kernel.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers a request under `/l4/`.
    pub(super) fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let method = request.method().clone();
        let path = request.uri().path().to_owned();
        let query = request.uri().query().unwrap_or("").to_owned();
        let answer = match (method, path.as_str()) {
            (Method::GET, "/l4/top") => self.top(),
            (Method::GET, "/l4/explain") => self.explain(&query),
            _ => Err((StatusCode::NOT_FOUND, "GET /l4/top, /l4/explain".to_owned())),
        };
        answer.unwrap_or_else(|(status, why)| text(status, format!("{why}\n")))
    }

    fn top(&self) -> Answer {
        let now = clock::now();
        let offenders: Vec<_> = {
            let offenders = self
                .offenders
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let top = offenders.top(MAX_TOP).into_iter();
            top.map(|one| (one, offenders.drops_a_second(&one, now)))
                .collect()
        };
        let kernel = self.kernel();
        let names = kernel.policy_names().map_err(internal)?;
        let view = |(offender, drops_per_second): &(Offender, u64)| {
            let last = &offender.last;
            let reason = Reason::ALL
                .get(last.reason as usize)
                .map_or("?", |r| r.name());
            let policy = kernel.explain_policy(last.policy, last.source)?;
            Ok(OffenderView {
                source: IpAddr::from(last.source.octets()).to_canonical(),
                policy: names.get(&last.policy).cloned().unwrap_or_default(),
                reason: reason.to_owned(),
                shadow: last.shadow != 0,
                port: last.port,
                samples: offender.samples,
                error: offender.error,
                drops_per_second: *drops_per_second,
                seconds_ago: now.saturating_sub(last.at) / SECOND,
                tightest: policy
                    .as_ref()
                    .and_then(PolicyState::tightest)
                    .map(Into::into),
            })
        };
        let views: Result<Vec<_>, L4Error> = offenders.iter().map(view).collect();
        json(&views.map_err(internal)?)
    }

    fn explain(&self, query: &str) -> Answer {
        let get = |wanted: &str| {
            query
                .split('&')
                .filter_map(|pair| pair.split_once('='))
                .find_map(|(key, value)| (key == wanted).then_some(value))
        };
        let source: IpAddr = get("source")
            .and_then(|source| source.replace("%3A", ":").parse().ok())
            .ok_or_else(|| bad("source: an IP address".to_owned()))?;
        let protocol = match get("protocol").unwrap_or("tcp") {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            "icmp" => Protocol::Icmp,
            other => return Err(bad(format!("protocol: tcp, udp or icmp, not {other}"))),
        };
        let port = get("port")
            .unwrap_or("0")
            .parse()
            .map_err(|_not_a_port| bad("port: 0 to 65535".to_owned()))?;
        let explanation = self
            .kernel()
            .explain(source, protocol, port)
            .map_err(internal)?;
        let explanation = explanation.ok_or_else(|| internal("nothing is loaded"))?;
        Ok(text(
            StatusCode::OK,
            explain::tell(source, &explanation, clock::now()),
        ))
    }
}

/// A CIDR, or an address for all of its bits; host bits are an error.
///
/// # Errors
/// What is wrong, and what would be right.
pub fn parse_cidr(text: &str) -> Result<IpNet, String> {
    let address = text.parse::<IpAddr>().map(IpNet::from);
    let net = address.or_else(|_not_one| text.parse::<IpNet>()).map_err(|_neither| {
        format!(
            "{text:?} is not a CIDR; write an address, or one with a prefix length, as 192.0.2.0/24"
        )
    })?;
    if net.trunc() != net {
        return Err(format!(
            "{net} has bits set after its prefix; write {}",
            net.trunc()
        ));
    }
    if net.prefix_len() == 0 {
        return Err(format!("{net} is everybody"));
    }
    if covers_ipv4(&net) {
        return Err(format!(
            "{net} covers the addresses that stand for IPv4; write a longer prefix"
        ));
    }
    Ok(net)
}

pub(super) type Refused = (StatusCode, String);
pub(super) type Answer = Result<Response<Full<Bytes>>, Refused>;

/// A request's body as JSON, of at most `most` bytes.
///
/// A browser sends JSON across origins only after asking, so a page cannot pass sentences.
pub(super) async fn body<T: DeserializeOwned>(
    request: Request<Incoming>,
    most: usize,
) -> Result<T, Refused> {
    let json = HeaderValue::from_static("application/json");
    if request.headers().get(CONTENT_TYPE) != Some(&json) {
        return Err((
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "send content-type: application/json".to_owned(),
        ));
    }
    let body = Limited::new(request.into_body(), most).collect().await;
    let body = body.map_err(|error| bad(error.to_string()))?.to_bytes();
    serde_json::from_slice(&body).map_err(|error| bad(error.to_string()))
}

pub(super) fn json(value: &impl Serialize) -> Answer {
    let body = serde_json::to_string_pretty(value).map_err(internal)?;
    Ok(super::json(body))
}

pub(super) fn bad(why: String) -> Refused {
    (StatusCode::BAD_REQUEST, why)
}

pub(super) fn internal(error: impl std::fmt::Display) -> Refused {
    (StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
}
