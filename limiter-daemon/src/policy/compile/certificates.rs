//! Certificates that resources refer to.

use super::missing;
use super::topology::Entry;
use crate::policy::core;
use crate::policy::findings::{Findings, Scope};
use crate::policy::gateway_api;
use crate::policy::gateway_api::references::ObjectRef;
use crate::policy::kinds::Kind;
use crate::policy::native;
use crate::policy::native::rate_limit_service::TlsRefs;
use crate::policy::plan::{Certificate, ClientCertificates, Pem, ServerTls, Tls, TlsVersion};
use crate::policy::resource::Meta;
use crate::policy::resources::Resources;
use crate::policy::status::Condition;

/// Who refers: group, kind and namespace.
pub(super) type From<'a> = (&'a str, &'a str, &'a str);

/// Why a reference does not lead to what is needed, as a reason of Gateway API.
pub(super) enum Unresolved {
    NotPermitted,
    Invalid,
}

/// Finds the certificates of a listener. Without any it is not served; without some it is.
pub(super) fn of_listener(entry: &mut Entry<'_>, resources: &Resources, findings: &mut Findings) {
    let Some(tls) = &entry.listener.tls else {
        return;
    };
    let (kind, meta) = entry.owner();
    let from = (
        gateway_api::GROUP,
        kind.name(),
        meta.name.namespace.as_str(),
    );
    let mut scope = findings.at(&meta.origin);
    let mut found = tls.files.clone();
    let mut problem = None;
    for reference in &tls.refs {
        match certificate(resources, from, reference, &mut scope) {
            Ok(certificate) => found.push(certificate.clone()),
            Err(why) => problem = Some(why),
        }
    }
    if let Some(why) = problem {
        let condition = match why {
            Unresolved::NotPermitted => Condition::new(
                "ResolvedRefs",
                false,
                "RefNotPermitted",
                "A certificate is in another namespace, and no ReferenceGrant there allows it.",
            ),
            Unresolved::Invalid => Condition::new(
                "ResolvedRefs",
                false,
                "InvalidCertificateRef",
                "A certificate cannot be used.",
            ),
        };
        if found.is_empty() {
            entry.refused = Some(condition);
        } else {
            entry.note(condition);
        }
    }
    entry.certificates = found;
}

/// The certificate in a Secret, with its key; or an error at the reference.
pub(super) fn certificate<'a>(
    resources: &'a Resources,
    from: From<'_>,
    reference: &ObjectRef,
    scope: &mut Scope<'_>,
) -> Result<&'a Certificate, Unresolved> {
    let ObjectRef {
        group,
        kind,
        name,
        mark,
    } = reference;
    if (group.as_str(), kind.as_str()) != (core::GROUP, "Secret") {
        scope.error(
            mark,
            format!("a certificate is in no `{kind}`"),
            "name a `Secret`",
        );
        return Err(Unresolved::Invalid);
    }
    permitted(resources, from, reference, scope)?;
    let Some(secret) = resources.secrets.get(name) else {
        missing(resources, Kind::Secret, name, mark, scope);
        return Err(Unresolved::Invalid);
    };
    secret.certificate.as_ref().ok_or_else(|| {
        scope.error(
            mark,
            format!("the Secret `{name}` is not of the type `kubernetes.io/tls`"),
            "name one that is",
        );
        Unresolved::Invalid
    })
}

/// Whether the reference may cross namespaces, if it does; or an error at it.
fn permitted(
    resources: &Resources,
    from: From<'_>,
    reference: &ObjectRef,
    scope: &mut Scope<'_>,
) -> Result<(), Unresolved> {
    let to = (
        reference.group.as_str(),
        reference.kind.as_str(),
        &reference.name,
    );
    if resources.granted(from, to) {
        return Ok(());
    }
    scope.error(
        &reference.mark,
        format!(
            "the {} `{}` is in another namespace, and no ReferenceGrant there allows it",
            reference.kind, reference.name
        ),
        format!(
            "put both into one namespace, or grant it to the kind `{}` of `{}`",
            from.1, from.2
        ),
    );
    Err(Unresolved::NotPermitted)
}

/// What TLS of a listener of the daemon's own needs; `what` is its part of the LimiterConfig.
pub(super) fn of_daemon(
    what: &str,
    refs: &TlsRefs,
    meta: &Meta,
    resources: &Resources,
    findings: &mut Findings,
) -> ServerTls {
    let from = (
        native::GROUP,
        Kind::LimiterConfig.name(),
        meta.name.namespace.as_str(),
    );
    let mut scope = findings.at(&meta.origin);
    let found = refs.certificates.iter().map(|reference| {
        let found = certificate(resources, from, reference, &mut scope);
        found.ok().cloned()
    });
    let found: Option<Vec<Certificate>> = found.collect::<Vec<_>>().into_iter().collect();
    let clients = refs.clients.as_ref().map(|(references, optional)| {
        let found = authorities(resources, from, references, &mut scope);
        found.map(|authorities| ClientCertificates {
            authorities,
            optional: *optional,
        })
    });
    match (found, clients) {
        (Some(certificates), clients @ (None | Some(Some(_)))) => ServerTls::As(Tls {
            certificates,
            min_version: TlsVersion::V1_2,
            max_version: TlsVersion::V1_3,
            alpn: Vec::new(),
            client_certificates: clients.flatten(),
        }),
        _ => ServerTls::Broken(format!(
            "certificates that `{what}.tls` names cannot be used"
        )),
    }
}

/// The authorities (`ca.crt`) that ConfigMaps and Secrets hold; `None` after an error in any.
pub(super) fn authorities(
    resources: &Resources,
    from: From<'_>,
    references: &[ObjectRef],
    scope: &mut Scope<'_>,
) -> Option<Vec<Pem>> {
    let found: Vec<Option<Pem>> = references
        .iter()
        .map(|reference| authority(resources, from, reference, scope))
        .collect();
    found.into_iter().collect()
}

fn authority(
    resources: &Resources,
    from: From<'_>,
    reference: &ObjectRef,
    scope: &mut Scope<'_>,
) -> Option<Pem> {
    let ObjectRef {
        group,
        kind,
        name,
        mark,
    } = reference;
    permitted(resources, from, reference, scope).ok()?;
    let (kind, found) = match (group.as_str(), kind.as_str()) {
        (core::GROUP, "Secret") => {
            let secret = resources.secrets.get(name);
            (Kind::Secret, secret.map(|secret| &secret.authorities))
        }
        (core::GROUP, "ConfigMap") => {
            let map = resources.config_maps.get(name);
            (Kind::ConfigMap, map.map(|map| &map.authorities))
        }
        (_, other) => {
            scope.error(
                mark,
                format!("certificates of authorities are in no `{other}`"),
                "name a `ConfigMap` or a `Secret`",
            );
            return None;
        }
    };
    match found {
        Some(Some(pem)) => Some(pem.clone()),
        Some(None) => {
            scope.error(
                mark,
                format!("the {} `{name}` has no `ca.crt`", kind.name()),
                "give it certificates in PEM under that key",
            );
            None
        }
        None => {
            missing(resources, kind, name, mark, scope);
            None
        }
    }
}
