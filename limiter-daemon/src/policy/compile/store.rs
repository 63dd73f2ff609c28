//! The store of global limits: which settings hold, and what they refer to.

use super::certificates::{self, From};
use super::missing;
use crate::policy::core;
use crate::policy::decode::At;
use crate::policy::envoy_gateway;
use crate::policy::envoy_gateway::store::{
    self, SentinelSettings, StorePlace, StoreSettings, Url, UrlSource,
};
use crate::policy::findings::{Findings, Scope};
use crate::policy::gateway_api::references::ObjectRef;
use crate::policy::kinds::Kind;
use crate::policy::native;
use crate::policy::native::limiter_config::Config;
use crate::policy::plan::{Password, SentinelLogin, StoreAddress, StoreConfig, StoreTls};
use crate::policy::resources::Resources;

/// A store is named that cannot be used. That was said.
pub(super) struct Unusable;

/// The stores that are named.
pub(super) struct Stores {
    pub(super) main: StoreConfig,
    pub(super) per_second: Option<StoreConfig>,
}

/// The stores; `None`: none is named.
pub(super) fn compile(
    config: Option<&Config>,
    resources: &Resources,
    findings: &mut Findings,
) -> Option<Result<Stores, Unusable>> {
    let own = config.into_iter().filter_map(|config| {
        let from = (native::GROUP, Kind::LimiterConfig.name());
        Some((from, &config.meta, config.store.as_ref()?))
    });
    let gateways = resources.envoy_gateways.values().filter_map(|gateway| {
        let from = (envoy_gateway::GROUP, Kind::EnvoyGateway.name());
        Some((from, &gateway.meta, gateway.store.as_ref()?))
    });
    let mut all = own.chain(gateways);
    let ((group, kind), meta, settings) = all.next()?;
    for (_, other, second) in all {
        findings.at(&other.origin).error(
            &second.mark,
            format!("a second store; `{}` names one already", meta.name),
            "keep one of them",
        );
    }
    let from = (group, kind, meta.name.namespace.as_str());
    let scope = &mut findings.at(&meta.origin);
    let mut find = |place| resolve(place, settings, from, resources, scope).ok_or(Unusable);
    let main = find(&settings.main);
    let per_second = settings.per_second.as_ref().map(find).transpose();
    Some(main.and_then(|main| {
        let per_second = per_second?;
        Ok(Stores { main, per_second })
    }))
}

fn resolve(
    place: &StorePlace,
    settings: &StoreSettings,
    from: From<'_>,
    resources: &Resources,
    scope: &mut Scope<'_>,
) -> Option<StoreConfig> {
    let mut url = match &place.url {
        UrlSource::Here(url) => url.value.clone(),
        UrlSource::Secret(reference, key) => from_secret(reference, key, resources, scope)?,
    };
    let wanted = place.tls.is_some() || url.tls;
    if wanted && matches!(url.address, StoreAddress::Unix(_)) {
        scope.error(
            &place.mark,
            "TLS over a Unix socket is not spoken by any store",
            "remove `tls`, or name a host",
        );
        return None;
    }
    if let Some(login) = &place.sentinel {
        log_in(login, &mut url.address, resources, scope)?;
    }
    let tls = match &place.tls {
        Some(Some(reference)) => {
            let certificate = certificates::certificate(resources, from, reference, scope).ok()?;
            let secret = resources.secrets.get(&reference.name)?;
            Some(StoreTls {
                authorities: secret.authorities.clone(),
                certificate: Some(certificate.clone()),
            })
        }
        Some(None) | None => wanted.then(StoreTls::default),
    };
    Some(StoreConfig {
        address: url.address,
        user: url.user,
        password: url.password,
        database: url.database,
        tls,
        budget: settings.budget,
        prefix: settings.prefix.clone(),
        on_failure: settings.on_failure,
        over_limit_memory: settings.over_limit_memory,
    })
}

/// Has Sentinels logged in at.
fn log_in(
    settings: &At<SentinelSettings>,
    address: &mut StoreAddress,
    resources: &Resources,
    scope: &mut Scope<'_>,
) -> Option<()> {
    let StoreAddress::Sentinel { login, .. } = address else {
        scope.error(
            &settings.mark,
            "the URL of this store names no Sentinels to log in at",
            "remove `sentinel`, or write the URL as `master,host:port,host:port`",
        );
        return None;
    };
    let (reference, key) = &settings.password;
    let password = secret_text(
        reference,
        key,
        "the password of the Sentinels",
        resources,
        scope,
    )?;
    *login = Some(SentinelLogin {
        user: settings.user.clone(),
        password: Password(password.0.trim().to_owned()),
    });
    Some(())
}

fn from_secret(
    reference: &ObjectRef,
    key: &At<String>,
    resources: &Resources,
    scope: &mut Scope<'_>,
) -> Option<Url> {
    let text = secret_text(reference, key, "the URL of the store", resources, scope)?;
    match store::parse(text.0.trim()) {
        Ok(url) => Some(url),
        Err((problem, remedy)) => {
            let name = &reference.name;
            scope.error(
                &key.mark,
                format!("what the Secret `{name}` has there is no URL of a store: {problem}"),
                remedy,
            );
            None
        }
    }
}

/// What is under a key of a Secret.
fn secret_text<'a>(
    reference: &ObjectRef,
    key: &At<String>,
    what: &str,
    resources: &'a Resources,
    scope: &mut Scope<'_>,
) -> Option<&'a Password> {
    let ObjectRef {
        group,
        kind,
        name,
        mark,
    } = reference;
    debug_assert_eq!((group.as_str(), kind.as_str()), (core::GROUP, "Secret"));
    let Some(secret) = resources.secrets.get(name) else {
        missing(resources, Kind::Secret, name, mark, scope);
        return None;
    };
    let text = secret.texts.get(&key.value);
    if text.is_none() {
        scope.error(
            &key.mark,
            format!("the Secret `{name}` has no text under `{}`", key.value),
            format!("name the key that {what} is under"),
        );
    }
    text
}
