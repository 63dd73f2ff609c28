//! Where global limits are counted: `rateLimit` of an EnvoyGateway, and the same of a LimiterConfig.

mod url;

use std::ops::RangeInclusive;
use std::time::Duration;

use serde::Deserialize;

use crate::policy::decode::{At, Ignored};
use crate::policy::findings::{Mark, Scope};
use crate::policy::gateway_api::references::{ObjectRef, RawObjectRef};
use crate::policy::plan::OnStoreFailure;
use crate::policy::resource::Meta;
use crate::policy::units;
pub(crate) use url::{Url, parse};

/// The rate limit filter's default.
const BUDGET: Duration = Duration::from_millis(20);
const BUDGETS: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(60);
const PREFIX: &str = "limiterd:";
const MAX_PREFIX: usize = 64;
/// Keys over their limit, unless told.
const REMEMBERED: usize = 1 << 16;
const MOST_REMEMBERED: usize = 1 << 22;

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
    backend: At<RawOwnBackend>,
    per_second: Option<At<RawOwnRedis>>,
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
struct RawBackend {
    #[serde(rename = "type")]
    kind: BackendType,
    redis: Option<At<RawRedis>>,
}

#[derive(Debug, Deserialize)]
#[expect(dead_code, reason = "there is one type")]
struct RawOwnBackend {
    #[serde(rename = "type")]
    kind: BackendType,
    redis: Option<At<RawOwnRedis>>,
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
struct RawOwnRedis {
    url: Option<At<String>>,
    url_ref: Option<At<RawUrlRef>>,
    tls: Option<RawTls>,
    sentinel: Option<At<RawSentinel>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawSentinel {
    user: Option<At<String>>,
    password_ref: RawUrlRef,
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
    pub(crate) main: StorePlace,
    /// For limits that are forgotten within a second.
    pub(crate) per_second: Option<StorePlace>,
    pub(crate) budget: Duration,
    pub(crate) prefix: String,
    pub(crate) on_failure: OnStoreFailure,
    pub(crate) over_limit_memory: usize,
}

/// Where a store is, with references that are to be followed.
#[derive(Clone, Debug)]
pub(crate) struct StorePlace {
    pub(crate) mark: Mark,
    pub(crate) url: UrlSource,
    /// `Some(None)`: by the system's authorities, without a certificate of ours.
    pub(crate) tls: Option<Option<ObjectRef>>,
    pub(crate) sentinel: Option<At<SentinelSettings>>,
}

/// How Sentinels are logged in at.
#[derive(Clone, Debug)]
pub(crate) struct SentinelSettings {
    pub(crate) user: Option<String>,
    /// A Secret, and the key that the password is under.
    pub(crate) password: (ObjectRef, At<String>),
}

/// Where the URL stands.
#[derive(Clone, Debug)]
pub(crate) enum UrlSource {
    Here(At<Url>),
    /// Under this key of a Secret.
    Secret(ObjectRef, At<String>),
}

/// Checks `rateLimit` of an EnvoyGateway; `None` with errors.
pub(crate) fn lower(
    raw: At<RawRateLimit>,
    namespace: &str,
    scope: &mut Scope<'_>,
) -> Option<StoreSettings> {
    let At { value: raw, mark } = raw;
    let At {
        value: RawBackend { kind, redis },
        mark: at,
    } = raw.backend;
    let own = |redis: At<RawRedis>| {
        let RawRedis { url, url_ref, tls } = redis.value;
        At {
            value: RawOwnRedis {
                url,
                url_ref,
                tls,
                sentinel: None,
            },
            mark: redis.mark,
        }
    };
    let backend = RawOwnBackend {
        kind,
        redis: redis.map(own),
    };
    let raw = RawOwnRateLimit {
        backend: At {
            value: backend,
            mark: at,
        },
        per_second: None,
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
    let main = place(redis, namespace, scope);
    let per_second = match raw.per_second {
        Some(redis) => Some(place(redis, namespace, scope)?),
        None => None,
    };
    Some(StoreSettings {
        mark,
        main: main?,
        per_second,
        budget: budget?,
        prefix: prefix?,
        on_failure,
        over_limit_memory: over_limit_memory?,
    })
}

fn place(redis: At<RawOwnRedis>, namespace: &str, scope: &mut Scope<'_>) -> Option<StorePlace> {
    let At { value: redis, mark } = redis;
    let url = url_source(redis.url, redis.url_ref, &mark, namespace, scope);
    let tls = redis.tls.map(|tls| {
        let reference = tls.certificate_ref;
        reference.map(|reference| reference.lower("Secret", namespace))
    });
    let sentinel = redis.sentinel.map(|At { value: raw, mark }| At {
        value: SentinelSettings {
            user: raw.user.map(|user| user.value),
            password: secret_key(raw.password_ref, namespace),
        },
        mark,
    });
    Some(StorePlace {
        mark,
        url: url?,
        tls,
        sentinel,
    })
}

/// A Secret, and a key in it.
fn secret_key(reference: RawUrlRef, namespace: &str) -> (ObjectRef, At<String>) {
    let RawSecretKey { name, key, .. } = reference.secret_key_ref;
    let reference = RawObjectRef {
        group: None,
        kind: None,
        name,
        namespace: None,
    };
    (reference.lower("Secret", namespace), key)
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
            let (reference, key) = secret_key(reference.value, namespace);
            Some(UrlSource::Secret(reference, key))
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

/// An EnvoyGateway, as far as it is read.
#[derive(Clone, Debug)]
pub(crate) struct EnvoyGateway {
    pub(crate) meta: Meta,
    pub(crate) store: Option<StoreSettings>,
}
