//! `healthCheck`: endpoints are asked whether they are well, and watched.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::Method;
use serde::Deserialize;

use super::merge::{Bound, Merge, by_field, whole};
use super::numbers;
use super::outlier::{self, Passive, RawPassive};
use crate::policy::decode::{At, Unsupported};
use crate::policy::findings::{Mark, Scope};
use crate::policy::gateway_api::hostname;
use crate::policy::plan::{self, Probe};

const PERCENT: RangeInclusive<u32> = 0..=100;
const MAX_PATH: usize = 1024;
/// How much of an answer is looked at.
const MAX_PAYLOAD: usize = 1024;
const TIMEOUT: Duration = Duration::from_secs(1);
const INTERVAL: Duration = Duration::from_secs(3);
const UNHEALTHY: u32 = 3;
const HEALTHY: u32 = 1;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawHealthCheck {
    active: Option<At<RawActive>>,
    passive: Option<At<RawPassive>>,
    panic_threshold: Option<At<u32>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "unsupported fields are told by the decoder")]
struct RawActive {
    timeout: Option<At<String>>,
    interval: Option<At<String>>,
    initial_jitter: Option<At<String>>,
    unhealthy_threshold: Option<At<u32>>,
    healthy_threshold: Option<At<u32>>,
    #[serde(rename = "type")]
    kind: At<RawType>,
    http: Option<At<RawHttp>>,
    tcp: Option<At<RawTcp>>,
    grpc: Option<At<RawGrpc>>,
    overrides: Option<Unsupported>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum RawType {
    Http,
    Tcp,
    Grpc,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "unsupported fields are told by the decoder")]
struct RawHttp {
    hostname: Option<At<String>>,
    path: At<String>,
    method: Option<At<String>>,
    expected_statuses: Option<At<Vec<At<u16>>>>,
    retriable_statuses: Option<Unsupported>,
    expected_response: Option<At<RawPayload>>,
}

#[derive(Debug, Deserialize)]
struct RawTcp {
    send: Option<At<RawPayload>>,
    receive: Option<At<RawPayload>>,
}

#[derive(Debug, Deserialize)]
struct RawGrpc {
    service: Option<String>,
}

#[derive(Debug, Deserialize)]
struct RawPayload {
    #[serde(rename = "type")]
    kind: PayloadKind,
    text: Option<At<String>>,
    binary: Option<At<String>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
enum PayloadKind {
    Text,
    Binary,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct HealthCheck {
    active: Option<Active>,
    passive: Option<Passive>,
    panic_threshold: Option<u32>,
}

by_field!(HealthCheck {
    active,
    passive,
    panic_threshold,
});

#[derive(Clone, Debug)]
struct Active {
    timeout: Option<Duration>,
    interval: Option<Duration>,
    initial_jitter: Option<Bound>,
    unhealthy_threshold: Option<u32>,
    healthy_threshold: Option<u32>,
    /// `None` only after an error.
    probe: Option<Asked>,
}

by_field!(Active {
    timeout,
    interval,
    initial_jitter,
    unhealthy_threshold,
    healthy_threshold,
    probe,
});

#[derive(Clone, Debug)]
enum Asked {
    Http(Http),
    Tcp(Tcp),
    Grpc(Grpc),
}

impl Merge for Asked {
    fn over(self, parent: &Self) -> Self {
        match (self, parent) {
            (Self::Http(own), Self::Http(parent)) => Self::Http(own.over(parent)),
            (Self::Tcp(own), Self::Tcp(parent)) => Self::Tcp(own.over(parent)),
            (Self::Grpc(own), Self::Grpc(parent)) => Self::Grpc(own.over(parent)),
            (own, _) => own,
        }
    }
}

#[derive(Clone, Debug)]
struct Http {
    host: Option<String>,
    path: Option<String>,
    method: Option<Method>,
    statuses: Option<BTreeSet<u16>>,
    body: Option<Vec<u8>>,
}

by_field!(Http {
    host,
    path,
    method,
    statuses,
    body
});

#[derive(Clone, Debug, Default)]
struct Tcp {
    send: Option<Vec<u8>>,
    receive: Option<Vec<u8>>,
}

by_field!(Tcp { send, receive });

#[derive(Clone, Debug, Default)]
struct Grpc {
    service: Option<String>,
}

by_field!(Grpc { service });
whole!(BTreeSet<u16>, Method, Vec<u8>);

/// Checks `healthCheck`.
pub(super) fn lower(raw: RawHealthCheck, scope: &mut Scope<'_>) -> HealthCheck {
    HealthCheck {
        active: raw.active.map(|active| lower_active(active, scope)),
        passive: raw.passive.map(|passive| outlier::lower(passive, scope)),
        panic_threshold: raw
            .panic_threshold
            .and_then(|at| numbers::within(&at, &PERCENT, scope)),
    }
}

fn lower_active(raw: At<RawActive>, scope: &mut Scope<'_>) -> Active {
    let At { value: raw, mark } = raw;
    let times = "write 1 or more";
    Active {
        timeout: numbers::time(raw.timeout.as_ref(), scope),
        interval: numbers::time(raw.interval.as_ref(), scope),
        initial_jitter: numbers::bound(raw.initial_jitter.as_ref(), scope),
        unhealthy_threshold: raw
            .unhealthy_threshold
            .and_then(|at| numbers::at_least_one(&at, times, scope)),
        healthy_threshold: raw
            .healthy_threshold
            .and_then(|at| numbers::at_least_one(&at, times, scope)),
        probe: probe(&raw.kind, &mark, (raw.http, raw.tcp, raw.grpc), scope),
    }
}

type Probes = (Option<At<RawHttp>>, Option<At<RawTcp>>, Option<At<RawGrpc>>);

fn probe(
    kind: &At<RawType>,
    mark: &Mark,
    (http, tcp, grpc): Probes,
    scope: &mut Scope<'_>,
) -> Option<Asked> {
    let others = [
        (RawType::Http, "http", http.as_ref().map(|at| &at.mark)),
        (RawType::Tcp, "tcp", tcp.as_ref().map(|at| &at.mark)),
        (RawType::Grpc, "grpc", grpc.as_ref().map(|at| &at.mark)),
    ];
    for (of, field, mark) in others {
        if let Some(mark) = mark.filter(|_| of != kind.value) {
            let message = format!("`{field}` is for another type than the one that is given");
            scope.error(mark, message, "remove it, or change `type`");
        }
    }
    match kind.value {
        RawType::Http => match http {
            Some(http) => Some(Asked::Http(lower_http(http.value, scope))),
            None => {
                let remedy = "give it `http` with a `path`";
                scope.error(mark, "the type is `HTTP`, but there is no `http`", remedy);
                None
            }
        },
        RawType::Tcp => {
            let tcp = tcp.map(|tcp| Tcp {
                send: tcp.value.send.and_then(|raw| payload(raw, scope)),
                receive: tcp.value.receive.and_then(|raw| payload(raw, scope)),
            });
            Some(Asked::Tcp(tcp.unwrap_or_default()))
        }
        RawType::Grpc => {
            let service = grpc.and_then(|grpc| grpc.value.service);
            Some(Asked::Grpc(Grpc { service }))
        }
    }
}

/// An error if it is not a path that can be asked for.
pub(crate) fn check_path(path: &At<String>, scope: &mut Scope<'_>) {
    let plain = path
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && byte != b'#');
    if !path.starts_with('/') || !plain || path.len() > MAX_PATH {
        scope.error(
            &path.mark,
            format!("`{}` is not a path", path.value),
            format!("begin it with `/`; at most {MAX_PATH} visible characters"),
        );
    }
}

fn lower_http(raw: RawHttp, scope: &mut Scope<'_>) -> Http {
    check_path(&raw.path, scope);
    Http {
        host: raw.hostname.and_then(|text| host(&text, scope)),
        path: Some(raw.path.value),
        method: raw.method.and_then(|text| method(&text, scope)),
        statuses: raw
            .expected_statuses
            .and_then(|list| numbers::statuses(&list, scope)),
        body: raw.expected_response.and_then(|raw| payload(raw, scope)),
    }
}

/// The host that a health check asks for; `None` after an error.
pub(crate) fn host(text: &At<String>, scope: &mut Scope<'_>) -> Option<String> {
    let lower = text.to_ascii_lowercase();
    if !hostname::is_domain(&lower) {
        let message = format!("`{}` is not a hostname", text.value);
        scope.error(&text.mark, message, "write a name, as `api.example.com`");
        return None;
    }
    Some(lower)
}

/// The method of a health check; `None` after an error.
pub(crate) fn method(text: &At<String>, scope: &mut Scope<'_>) -> Option<Method> {
    let found = Method::from_bytes(text.as_bytes())
        .ok()
        .filter(|method| *method != Method::CONNECT);
    if found.is_none() {
        let message = format!("`{}` is no method to ask with", text.value);
        scope.error(&text.mark, message, "write `GET` or `HEAD`");
    }
    found
}

/// The bytes of a payload; `None` after an error.
fn payload(raw: At<RawPayload>, scope: &mut Scope<'_>) -> Option<Vec<u8>> {
    let At { value: raw, mark } = raw;
    let (given, other, field) = match raw.kind {
        PayloadKind::Text => (raw.text, raw.binary, "text"),
        PayloadKind::Binary => (raw.binary, raw.text, "binary"),
    };
    if let Some(other) = other {
        let message = format!("the type is `{:?}`, so this is not it", raw.kind);
        scope.error(&other.mark, message, format!("write it under `{field}`"));
    }
    let Some(given) = given else {
        let message = format!("the type is `{:?}`, but there is no `{field}`", raw.kind);
        scope.error(&mark, message, format!("give it `{field}`"));
        return None;
    };
    let bytes = match raw.kind {
        PayloadKind::Text => given.value.into_bytes(),
        PayloadKind::Binary => match BASE64_STANDARD.decode(given.as_bytes()) {
            Ok(bytes) => bytes,
            Err(error) => {
                let message = format!("it is not base64: {error}");
                scope.error(&given.mark, message, "write bytes as base64");
                return None;
            }
        },
    };
    if bytes.is_empty() || bytes.len() > MAX_PAYLOAD {
        let message = format!("{} bytes", bytes.len());
        scope.error(&given.mark, message, format!("write 1 to {MAX_PAYLOAD}"));
        return None;
    }
    Some(bytes)
}

impl HealthCheck {
    pub(super) const fn passive(&self) -> Option<&Passive> {
        self.passive.as_ref()
    }

    pub(super) const fn panic_threshold(&self) -> Option<u32> {
        self.panic_threshold
    }

    pub(super) fn plan(&self) -> Option<plan::HealthCheck> {
        let active = self.active.as_ref()?;
        Some(plan::HealthCheck {
            timeout: active.timeout.unwrap_or(TIMEOUT),
            interval: active.interval.unwrap_or(INTERVAL),
            initial_jitter: active.initial_jitter.and_then(|bound| bound.0),
            unhealthy_threshold: active.unhealthy_threshold.unwrap_or(UNHEALTHY),
            healthy_threshold: active.healthy_threshold.unwrap_or(HEALTHY),
            probe: active.probe.as_ref()?.plan(),
        })
    }
}

impl Asked {
    fn plan(&self) -> Probe {
        match self {
            Self::Http(http) => Probe::Http {
                host: http.host.clone(),
                path: http.path.clone().unwrap_or_else(|| "/".to_owned()),
                method: http.method.clone().unwrap_or(Method::GET),
                expected_statuses: http
                    .statuses
                    .as_ref()
                    .map_or_else(|| vec![200..=200], numbers::ranges),
                expected_body: http.body.clone(),
            },
            Self::Tcp(tcp) => Probe::Tcp {
                send: tcp.send.clone().unwrap_or_default(),
                receive: tcp.receive.iter().cloned().collect(),
            },
            Self::Grpc(grpc) => Probe::Grpc {
                service: grpc.service.clone().unwrap_or_default(),
            },
        }
    }
}
