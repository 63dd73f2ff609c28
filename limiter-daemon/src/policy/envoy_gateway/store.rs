//! Where global limits are counted: `rateLimit` of an EnvoyGateway, and the same of a LimiterConfig.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use serde::Deserialize;

use crate::policy::decode::{At, Ignored};
use crate::policy::findings::{Mark, Scope};
use crate::policy::gateway_api::references::{ObjectRef, RawObjectRef};
use crate::policy::plan::{OnStoreFailure, Password, StoreAddress, StoreHost};
use crate::policy::resource::Meta;
use crate::policy::units;

const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;
/// The rate limit filter's default.
const BUDGET: Duration = Duration::from_millis(20);
const BUDGETS: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(60);
const PREFIX: &str = "limiterd:";
const MAX_PREFIX: usize = 64;
/// Keys over their limit, unless told.
const REMEMBERED: usize = 1 << 16;
const MOST_REMEMBERED: usize = 1 << 22;
const SHAPE: &str = "write `host:port`, `redis://user:password@host:port/0`, `rediss://host:port` \
                     `master,sentinel:port,sentinel:port` or `unix:///path/of/socket`";

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RawRateLimit {
    backend: At<RawBackend>,
    timeout: Option<At<String>>,
    fail_closed: Option<bool>,
    #[expect(dead_code, reason = "named, so that no other passes")]
    telemetry: Option<Ignored>,
}

/// As limiterd has it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RawOwnRateLimit {
    backend: At<RawBackend>,
    timeout: Option<At<String>>,
    fail_closed: Option<bool>,
    on_store_failure: Option<At<RawOnStoreFailure>>,
    key_prefix: Option<At<String>>,
    over_limit_memory: Option<At<u64>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(crate) enum RawOnStoreFailure {
    Local,
    Allow,
    Deny,
}

impl From<RawOnStoreFailure> for OnStoreFailure {
    fn from(raw: RawOnStoreFailure) -> Self {
        match raw {
            RawOnStoreFailure::Local => Self::Local,
            RawOnStoreFailure::Allow => Self::Allow,
            RawOnStoreFailure::Deny => Self::Deny,
        }
    }
}

#[derive(Debug, Deserialize)]
#[expect(dead_code, reason = "there is one type")]
struct RawBackend {
    #[serde(rename = "type")]
    kind: BackendType,
    redis: Option<At<RawRedis>>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
enum BackendType {
    Redis,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawRedis {
    url: Option<At<String>>,
    url_ref: Option<At<RawUrlRef>>,
    tls: Option<RawTls>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawUrlRef {
    secret_key_ref: RawSecretKey,
}

#[derive(Debug, Deserialize)]
struct RawSecretKey {
    name: At<String>,
    key: At<String>,
    #[expect(dead_code, reason = "named, so that no other passes")]
    optional: Option<Ignored>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawTls {
    certificate_ref: Option<RawObjectRef>,
}

/// The settings of a store, with references that are to be followed.
#[derive(Clone, Debug)]
pub(crate) struct StoreSettings {
    pub(crate) mark: Mark,
    pub(crate) url: UrlSource,
    /// `Some(None)`: by the system's authorities, without a certificate of ours.
    pub(crate) tls: Option<Option<ObjectRef>>,
    pub(crate) budget: Duration,
    pub(crate) prefix: String,
    pub(crate) on_failure: OnStoreFailure,
    pub(crate) over_limit_memory: usize,
}

/// Where the URL stands.
#[derive(Clone, Debug)]
pub(crate) enum UrlSource {
    Here(At<Url>),
    /// Under this key of a Secret.
    Secret(ObjectRef, At<String>),
}

/// A URL, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Url {
    pub(crate) address: StoreAddress,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<Password>,
    pub(crate) database: u32,
    pub(crate) tls: bool,
}

/// Checks `rateLimit` of an EnvoyGateway; `None` with errors.
pub(crate) fn lower(
    raw: At<RawRateLimit>,
    namespace: &str,
    scope: &mut Scope<'_>,
) -> Option<StoreSettings> {
    let At { value: raw, mark } = raw;
    let raw = RawOwnRateLimit {
        backend: raw.backend,
        timeout: raw.timeout,
        fail_closed: raw.fail_closed,
        on_store_failure: None,
        key_prefix: None,
        over_limit_memory: None,
    };
    lower_own(At { value: raw, mark }, namespace, scope)
}

/// Checks `rateLimit` of a LimiterConfig; `None` with errors.
pub(crate) fn lower_own(
    raw: At<RawOwnRateLimit>,
    namespace: &str,
    scope: &mut Scope<'_>,
) -> Option<StoreSettings> {
    let At { value: raw, mark } = raw;
    let on_failure = match (raw.on_store_failure, raw.fail_closed) {
        (Some(mode), Some(_)) => {
            scope.error(
                &mode.mark,
                "both `failClosed` and `onStoreFailure`",
                "keep one of them: `failClosed: true` is `onStoreFailure: Deny`",
            );
            return None;
        }
        (Some(mode), None) => mode.value.into(),
        (None, Some(true)) => OnStoreFailure::Deny,
        (None, Some(false) | None) => OnStoreFailure::Local,
    };
    let budget = match &raw.timeout {
        Some(text) => budget(text, scope),
        None => Some(BUDGET),
    };
    let prefix = match raw.key_prefix {
        Some(text) => prefix(text, scope),
        None => Some(PREFIX.to_owned()),
    };
    let over_limit_memory = match &raw.over_limit_memory {
        Some(entries) => remembered(entries, scope),
        None => Some(REMEMBERED),
    };
    let At {
        value: backend,
        mark: at,
    } = raw.backend;
    let Some(redis) = backend.redis else {
        scope.error(
            &at,
            "the backend is `Redis`, but `redis` is missing",
            "give it `redis`, with a `url`",
        );
        return None;
    };
    let At {
        value: redis,
        mark: at,
    } = redis;
    let url = url_source(redis.url, redis.url_ref, &at, namespace, scope);
    let tls = redis.tls.map(|tls| {
        let reference = tls.certificate_ref;
        reference.map(|reference| reference.lower("Secret", namespace))
    });
    Some(StoreSettings {
        mark,
        url: url?,
        tls,
        budget: budget?,
        prefix: prefix?,
        on_failure,
        over_limit_memory: over_limit_memory?,
    })
}

fn url_source(
    url: Option<At<String>>,
    url_ref: Option<At<RawUrlRef>>,
    at: &Mark,
    namespace: &str,
    scope: &mut Scope<'_>,
) -> Option<UrlSource> {
    match (url, url_ref) {
        (Some(text), None) => match parse(&text) {
            Ok(value) => Some(UrlSource::Here(At {
                value,
                mark: text.mark,
            })),
            Err((problem, remedy)) => {
                // The text may hold a password.
                scope.error(
                    &text.mark,
                    format!("this is no URL of a store: {problem}"),
                    remedy,
                );
                None
            }
        },
        (None, Some(reference)) => {
            let RawSecretKey { name, key, .. } = reference.value.secret_key_ref;
            let reference = RawObjectRef {
                group: None,
                kind: None,
                name,
                namespace: None,
            };
            Some(UrlSource::Secret(reference.lower("Secret", namespace), key))
        }
        (Some(_), Some(reference)) => {
            scope.error(
                &reference.mark,
                "both `url` and `urlRef`",
                "keep one of them",
            );
            None
        }
        (None, None) => {
            scope.error(
                at,
                "where the store is is missing",
                "give it `url` or `urlRef`",
            );
            None
        }
    }
}

fn budget(text: &At<String>, scope: &mut Scope<'_>) -> Option<Duration> {
    let budget = Duration::from_nanos(units::duration(text, scope)?);
    if !BUDGETS.contains(&budget) {
        scope.error(
            &text.mark,
            format!("a request cannot wait `{}` for a decision", text.value),
            "write `1ms` to `60s`; without it 20 ms hold",
        );
        return None;
    }
    Some(budget)
}

fn remembered(entries: &At<u64>, scope: &mut Scope<'_>) -> Option<usize> {
    let number = usize::try_from(entries.value).ok();
    let number = number.filter(|number| *number <= MOST_REMEMBERED);
    if number.is_none() {
        scope.error(
            &entries.mark,
            format!("a node cannot remember {} keys", entries.value),
            format!("write 0 (none) to {MOST_REMEMBERED}; without it {REMEMBERED} hold"),
        );
    }
    number
}

fn prefix(text: At<String>, scope: &mut Scope<'_>) -> Option<String> {
    let plain = text
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'{' | b'}'));
    if !plain || text.len() > MAX_PREFIX {
        scope.error(
            &text.mark,
            format!(
                "`{}` cannot be what keys begin with",
                text.value.escape_debug()
            ),
            format!("write up to {MAX_PREFIX} visible characters of ASCII without braces"),
        );
        return None;
    }
    Some(text.value)
}

/// Takes a URL apart.
///
/// # Errors
/// What is wrong with it (without a word of it: it may hold a password), and what would be right.
pub(crate) fn parse(text: &str) -> Result<Url, (&'static str, &'static str)> {
    let mut url = Url {
        address: StoreAddress::Unix(PathBuf::new()),
        user: None,
        password: None,
        database: 0,
        tls: false,
    };
    if let Some(path) = text
        .strip_prefix("unix://")
        .or_else(|| text.starts_with('/').then_some(text))
    {
        if !path.starts_with('/') || path.ends_with('/') || path.contains('\0') {
            return Err(("the path of its socket is not absolute", SHAPE));
        }
        url.address = StoreAddress::Unix(PathBuf::from(path));
        return Ok(url);
    }
    let rest = match text.split_once("://") {
        None => text,
        Some(("redis" | "valkey", rest)) => rest,
        Some(("rediss" | "valkeys", rest)) => {
            url.tls = true;
            rest
        }
        Some(_) => return Err(("its scheme is none of a store", SHAPE)),
    };
    let (login, rest) = rest
        .rsplit_once('@')
        .map_or((None, rest), |(login, rest)| (Some(login), rest));
    if let Some(login) = login {
        let (user, password) = login.split_once(':').unwrap_or((login, ""));
        url.user = decoded(user)?;
        url.password = decoded(password)?.map(Password);
        if url.user.is_some() && url.password.is_none() {
            return Err(("it has a user and no password", SHAPE));
        }
    }
    let (place, database) = rest.split_once('/').unwrap_or((rest, ""));
    if !database.is_empty() {
        let number = database.parse();
        url.database = number.map_err(|_error| ("its database is no number", SHAPE))?;
    }
    url.address = address(place)?;
    Ok(url)
}

fn decoded(part: &str) -> Result<Option<String>, (&'static str, &'static str)> {
    let text = percent_decode_str(part)
        .decode_utf8()
        .map_err(|_error| ("its user or password is no UTF-8", SHAPE))?;
    Ok((!text.is_empty()).then(|| text.into_owned()))
}

/// A host, or the name of a master and its Sentinels.
fn address(place: &str) -> Result<StoreAddress, (&'static str, &'static str)> {
    let no_host = ("it has no host, or a port that is none", SHAPE);
    let Some((master, sentinels)) = place.split_once(',') else {
        let host = host(place, PORT).ok_or(no_host)?;
        return Ok(StoreAddress::Tcp(host));
    };
    if master.contains(':') {
        return Err((
            "it names the nodes of a Cluster, which is not supported",
            "name one server, or Sentinels as `master,host:port,host:port`",
        ));
    }
    let sentinels: Option<Vec<_>> = sentinels
        .split(',')
        .map(|place| host(place.trim(), SENTINEL_PORT))
        .collect();
    Ok(StoreAddress::Sentinel {
        master: host(master, PORT).ok_or(no_host)?.host,
        sentinels: sentinels.ok_or(no_host)?,
    })
}

fn host(place: &str, default_port: u16) -> Option<StoreHost> {
    let (host, port) = match place.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            (host, port.strip_prefix(':'))
        }
        None => place
            .split_once(':')
            .map_or((place, None), |(host, port)| (host, Some(port))),
    };
    let port = port.map_or(Some(default_port), |port| {
        port.parse().ok().filter(|port| *port != 0)
    })?;
    let in_names = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    (!host.is_empty() && host.chars().all(in_names)).then(|| StoreHost {
        host: host.to_owned(),
        port,
    })
}

/// An EnvoyGateway, as far as it is read.
#[derive(Clone, Debug)]
pub(crate) struct EnvoyGateway {
    pub(crate) meta: Meta,
    pub(crate) store: Option<StoreSettings>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16) -> Url {
        Url {
            address: StoreAddress::Tcp(StoreHost {
                host: host.to_owned(),
                port,
            }),
            user: None,
            password: None,
            database: 0,
            tls: false,
        }
    }

    #[test]
    fn urls() {
        let good = [
            (
                "redis.redis-system.svc:6379",
                tcp("redis.redis-system.svc", 6379),
            ),
            ("redis", tcp("redis", 6379)),
            ("[::1]:7000", tcp("::1", 7000)),
            (
                "rediss://me:p%40ss@store:6380/3",
                Url {
                    user: Some("me".to_owned()),
                    password: Some(Password("p@ss".to_owned())),
                    database: 3,
                    tls: true,
                    ..tcp("store", 6380)
                },
            ),
            (
                "redis://:secret@store",
                Url {
                    password: Some(Password("secret".to_owned())),
                    ..tcp("store", 6379)
                },
            ),
            (
                "redis://:secret@shop,one:7000,two",
                Url {
                    address: StoreAddress::Sentinel {
                        master: "shop".to_owned(),
                        sentinels: [("one", 7000), ("two", 26379)]
                            .map(|(host, port)| StoreHost {
                                host: host.to_owned(),
                                port,
                            })
                            .into(),
                    },
                    password: Some(Password("secret".to_owned())),
                    ..tcp("", 0)
                },
            ),
            (
                "unix:///run/redis.sock",
                Url {
                    address: StoreAddress::Unix(PathBuf::from("/run/redis.sock")),
                    ..tcp("", 0)
                },
            ),
        ];
        for (text, wanted) in good {
            assert_eq!(parse(text), Ok(wanted), "{text}");
        }
        for bad in [
            "",
            ":6379",
            "store:0",
            "store:port",
            "http://store",
            "redis://me@store",
            "a:1,b:2",
            "redis://store/one",
            "unix://run",
            "shop,",
            "st ore",
            "[::1",
        ] {
            let (problem, _remedy) = parse(bad).unwrap_err();
            assert!(!problem.is_empty(), "{bad}");
        }
    }
}
