//! Listeners of Gateways and ListenerSets.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;

use super::references::{ObjectRef, RawObjectRef};
use super::{gateway, hostname};
use crate::policy::core::labels::{self, LabelSelector, Labels, RawLabelSelector};
use crate::policy::core::pem;
use crate::policy::decode::{At, Unsupported};
use crate::policy::findings::{Mark, Scope};
use crate::policy::plan::{Certificate, Hostname, RouteKind};
use crate::policy::resource::{Meta, check_name};
use crate::policy::{source, suggest};

const MAX_LISTENERS: usize = 64;
const MAX_CERTIFICATES: usize = 64;
const CERTIFICATE_FILE: &str = "limiterd.io/certificate-file";
const KEY_FILE: &str = "limiterd.io/key-file";

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawListener {
    name: At<String>,
    port: At<u16>,
    protocol: At<String>,
    hostname: Option<At<String>>,
    allowed_routes: Option<RawAllowedRoutes>,
    tls: Option<At<RawTls>>,
}

#[derive(Debug, Deserialize)]
struct RawAllowedRoutes {
    namespaces: Option<RawNamespaces>,
    kinds: Option<At<Vec<At<RawKind>>>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct RawNamespaces {
    from: Option<At<From>>,
    selector: Option<RawLabelSelector>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
enum From {
    Same,
    All,
    Selector,
    None,
}

#[derive(Debug, Deserialize)]
struct RawKind {
    group: Option<String>,
    kind: At<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "unsupported fields are told by the decoder")]
struct RawTls {
    mode: Option<At<Mode>>,
    certificate_refs: Option<At<Vec<RawObjectRef>>>,
    options: Option<BTreeMap<String, At<String>>>,
    frontend_validation: Option<Unsupported>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
enum Mode {
    Terminate,
    Passthrough,
}

/// A listener, checked by itself.
#[derive(Clone, Debug)]
pub(crate) struct Listener {
    pub(crate) name: String,
    pub(crate) port: u16,
    pub(crate) hostname: Hostname,
    /// Where routes that attach may be.
    pub(crate) routes: Allowed,
    /// Of what kinds they may be.
    pub(crate) kinds: Vec<RouteKind>,
    /// `None`: HTTP.
    pub(crate) tls: Option<ListenerTls>,
    /// Where its port stands.
    pub(crate) mark: Mark,
}

/// How a listener of HTTPS terminates TLS.
#[derive(Clone, Debug)]
pub(crate) struct ListenerTls {
    /// Secrets with certificates.
    pub(crate) refs: Vec<ObjectRef>,
    /// Certificates from files.
    pub(crate) files: Vec<Certificate>,
}

/// The namespaces from which something may attach.
#[derive(Clone, Debug)]
pub(crate) enum Allowed {
    Same,
    All,
    Selected(LabelSelector),
    None,
}

impl Allowed {
    /// Whether something in `other`, which has these labels, may attach to something in `own`.
    pub(crate) fn admits(&self, own: &str, other: &str, labels: Option<&Labels>) -> bool {
        match self {
            Self::Same => own == other,
            Self::All => true,
            Self::Selected(by) => labels.is_some_and(|labels| by.selects(labels)),
            Self::None => false,
        }
    }
}

/// Checks the listeners of a Gateway or of a ListenerSet.
pub(super) fn lower_all(
    raw: At<Vec<At<RawListener>>>,
    meta: &Meta,
    scope: &mut Scope<'_>,
) -> Vec<Listener> {
    scope.at_most(&raw.mark, raw.len(), MAX_LISTENERS);
    if raw.is_empty() {
        scope.error(
            &raw.mark,
            "no listeners, so nothing would be served",
            "give it one",
        );
    }
    let mut names = BTreeSet::new();
    let mut listeners = Vec::new();
    for listener in raw.value {
        let name = listener.name.clone();
        if !names.insert(name.value.clone()) {
            let message = format!("a listener named `{}` is there already", name.value);
            scope.error(&name.mark, message, "give each a name of its own");
        }
        listeners.extend(lower(listener.value, meta, scope));
    }
    listeners
}

fn lower(raw: RawListener, meta: &Meta, scope: &mut Scope<'_>) -> Option<Listener> {
    check_name(&raw.name, scope);
    let secure = match raw.protocol.as_str() {
        "HTTP" => false,
        "HTTPS" => true,
        other @ ("TCP" | "TLS" | "UDP") => {
            let message = format!(
                "the protocol `{other}` is not supported yet, so this listener is not served"
            );
            scope.warning(&raw.protocol.mark, message, "remove the listener");
            return None;
        }
        other => {
            let message = format!("unknown protocol `{other}`");
            scope.error(&raw.protocol.mark, message, "write `HTTP` or `HTTPS`");
            return None;
        }
    };
    if raw.port.value == 0 {
        scope.error(
            &raw.port.mark,
            "0 is no port to listen on",
            "write 1 to 65535",
        );
        return None;
    }
    let (spaces, kinds) = match raw.allowed_routes {
        Some(routes) => (routes.namespaces, routes.kinds),
        None => (None, None),
    };
    let routes = match spaces {
        Some(spaces) => allowed(spaces, Allowed::Same, scope),
        None => Allowed::Same,
    };
    let hostname = match &raw.hostname {
        Some(text) if text.is_empty() => Hostname::Any,
        Some(text) => hostname::parse(text, scope)?,
        None => Hostname::Any,
    };
    let tls = match (secure, raw.tls) {
        (true, Some(tls)) => Some(lower_tls(tls, meta, scope)),
        (true, None) => {
            let files = from_files(None, &raw.protocol.mark, meta, scope);
            if files.is_empty() {
                no_certificate(&raw.protocol.mark, scope);
            }
            Some(ListenerTls {
                refs: Vec::new(),
                files,
            })
        }
        (false, Some(tls)) => {
            scope.error(
                &tls.mark,
                "a listener of `HTTP` has no `tls`",
                "remove it, or write `protocol: HTTPS`",
            );
            None
        }
        (false, None) => None,
    };
    Some(Listener {
        name: raw.name.value,
        port: raw.port.value,
        hostname,
        routes,
        kinds: route_kinds(kinds, scope),
        tls,
        mark: raw.port.mark,
    })
}

/// Checks `namespaces`; what it does not say is `default`.
pub(super) fn allowed(raw: RawNamespaces, default: Allowed, scope: &mut Scope<'_>) -> Allowed {
    match (raw.from, raw.selector) {
        (Some(from), selector) => match (from.value, selector) {
            (From::Same, _) => Allowed::Same,
            (From::All, _) => Allowed::All,
            (From::None, _) => Allowed::None,
            (From::Selector, Some(selector)) => Allowed::Selected(labels::lower(selector, scope)),
            (From::Selector, None) => {
                scope.error(
                    &from.mark,
                    "`Selector` needs a `selector`",
                    "give it one, or write `Same` or `All`",
                );
                Allowed::None
            }
        },
        (None, _) => default,
    }
}

fn route_kinds(raw: Option<At<Vec<At<RawKind>>>>, scope: &mut Scope<'_>) -> Vec<RouteKind> {
    let Some(list) = raw.filter(|list| !list.is_empty()) else {
        return vec![RouteKind::Http, RouteKind::Grpc];
    };
    let mut kinds = Vec::new();
    for raw in list.value {
        let group = raw.group.as_deref().unwrap_or(super::GROUP);
        match (group, raw.kind.as_str()) {
            (super::GROUP, "HTTPRoute") => kinds.push(RouteKind::Http),
            (super::GROUP, "GRPCRoute") => kinds.push(RouteKind::Grpc),
            (_, other) => {
                let message = format!("no routes of the kind `{other}` can attach here");
                let remedy = suggest::remedy(other, ["HTTPRoute", "GRPCRoute"], "it may be");
                scope.error(&raw.kind.mark, message, remedy);
            }
        }
    }
    kinds
}

fn lower_tls(raw: At<RawTls>, meta: &Meta, scope: &mut Scope<'_>) -> ListenerTls {
    let At { value: raw, mark } = raw;
    if let Some(mode) = raw.mode.filter(|at| at.value == Mode::Passthrough) {
        scope.error(
            &mode.mark,
            "`Passthrough` is not supported yet",
            "write `Terminate`",
        );
    }
    let mut refs = Vec::new();
    if let Some(list) = raw.certificate_refs {
        scope.at_most(&list.mark, list.len(), MAX_CERTIFICATES);
        refs.extend(
            list.value
                .into_iter()
                .map(|raw| raw.lower("Secret", &meta.name.namespace)),
        );
    }
    let options = raw.options.unwrap_or_default();
    for (name, value) in &options {
        if name != CERTIFICATE_FILE && name != KEY_FILE {
            let remedy = suggest::remedy(name, [CERTIFICATE_FILE, KEY_FILE], "the options are");
            scope.error(&value.mark, format!("unknown option `{name}`"), remedy);
        }
    }
    let files = from_files(
        Some((options.get(CERTIFICATE_FILE), options.get(KEY_FILE))),
        &mark,
        meta,
        scope,
    );
    if refs.is_empty() && files.is_empty() {
        no_certificate(&mark, scope);
    }
    ListenerTls { refs, files }
}

fn no_certificate(mark: &Mark, scope: &mut Scope<'_>) {
    scope.error(
        mark,
        "a listener of `HTTPS` needs a certificate",
        format!("name a Secret under `tls.certificateRefs`, or files by `{CERTIFICATE_FILE}` and `{KEY_FILE}` under `tls.options`"),
    );
}

type FileOptions<'a> = (Option<&'a At<String>>, Option<&'a At<String>>);

/// The certificate that the options name, or else the Gateway's annotations; relative to the
/// directory of the policy file.
fn from_files(
    options: Option<FileOptions<'_>>,
    mark: &Mark,
    meta: &Meta,
    scope: &mut Scope<'_>,
) -> Vec<Certificate> {
    let own = options.map(|(chain, key)| (chain.map(|at| &at.value), key.map(|at| &at.value)));
    let (chain, key) = match own {
        Some((None, None)) | None => gateway::file_annotations(meta),
        Some(own) => own,
    };
    let (Some(chain), Some(key)) = (chain, key) else {
        if chain.is_some() || key.is_some() {
            scope.error(
                mark,
                "a certificate and its key go together",
                format!("give both `{CERTIFICATE_FILE}` and `{KEY_FILE}`"),
            );
        }
        return Vec::new();
    };
    let mut read = |path: &str| {
        let base = meta.origin.file.parent().unwrap_or_else(|| Path::new(""));
        let path = base.join(path);
        source::read_text(&path)
            .map_err(|unreadable| {
                let message = format!("the file {} {}", path.display(), unreadable.message);
                scope.error(mark, message, unreadable.remedy);
            })
            .ok()
    };
    let (Some(chain_text), Some(key_text)) = (read(chain), read(key)) else {
        return Vec::new();
    };
    match pem::pair(chain.clone(), chain_text.as_bytes(), key_text.as_bytes()) {
        Ok(certificate) => vec![certificate],
        Err(problem) => {
            scope.error(
                mark,
                format!("{chain}: {problem}"),
                "give it a chain in PEM, the server's certificate first, and its key",
            );
            Vec::new()
        }
    }
}
