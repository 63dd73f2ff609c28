//! Which kinds there are: those that are read, and those that are known by name only.

use super::{core, envoy_gateway, gateway_api, gloo, native, suggest};

/// A kind of resource that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Gateway,
    /// Says who implements a Gateway, which is limiterd in any case.
    GatewayClass,
    ListenerSet,
    HttpRoute,
    GrpcRoute,
    ReferenceGrant,
    Backend,
    BackendTrafficPolicy,
    ClientTrafficPolicy,
    EnvoyGateway,
    NetworkRateLimitPolicy,
    HttpRateLimitPolicy,
    LimiterConfig,
    Namespace,
    Service,
    EndpointSlice,
    Secret,
    ConfigMap,
    /// Gloo's own `Gateway`.
    GlooGateway,
    VirtualService,
    RouteTable,
    ListenerOption,
    HttpListenerOption,
    VirtualHostOption,
    RouteOption,
    Upstream,
    RateLimitConfig,
    /// Gloo's `Settings`.
    GlooSettings,
    /// A file of Envoy's rate limit service, which has no kind: what it says is of one domain.
    Domain,
}

impl Kind {
    pub(crate) const ALL: [Self; 28] = [
        Self::Gateway,
        Self::GatewayClass,
        Self::ListenerSet,
        Self::HttpRoute,
        Self::GrpcRoute,
        Self::ReferenceGrant,
        Self::Backend,
        Self::BackendTrafficPolicy,
        Self::ClientTrafficPolicy,
        Self::EnvoyGateway,
        Self::NetworkRateLimitPolicy,
        Self::HttpRateLimitPolicy,
        Self::LimiterConfig,
        Self::Namespace,
        Self::Service,
        Self::EndpointSlice,
        Self::Secret,
        Self::ConfigMap,
        Self::GlooGateway,
        Self::VirtualService,
        Self::RouteTable,
        Self::ListenerOption,
        Self::HttpListenerOption,
        Self::VirtualHostOption,
        Self::RouteOption,
        Self::Upstream,
        Self::RateLimitConfig,
        Self::GlooSettings,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Gateway | Self::GlooGateway => "Gateway",
            Self::GatewayClass => "GatewayClass",
            Self::ListenerSet => "ListenerSet",
            Self::HttpRoute => "HTTPRoute",
            Self::GrpcRoute => "GRPCRoute",
            Self::ReferenceGrant => "ReferenceGrant",
            Self::Backend => "Backend",
            Self::BackendTrafficPolicy => "BackendTrafficPolicy",
            Self::ClientTrafficPolicy => "ClientTrafficPolicy",
            Self::EnvoyGateway => "EnvoyGateway",
            Self::NetworkRateLimitPolicy => "NetworkRateLimitPolicy",
            Self::HttpRateLimitPolicy => "HTTPRateLimitPolicy",
            Self::LimiterConfig => "LimiterConfig",
            Self::Namespace => "Namespace",
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::Secret => "Secret",
            Self::ConfigMap => "ConfigMap",
            Self::VirtualService => "VirtualService",
            Self::RouteTable => "RouteTable",
            Self::ListenerOption => "ListenerOption",
            Self::HttpListenerOption => "HttpListenerOption",
            Self::VirtualHostOption => "VirtualHostOption",
            Self::RouteOption => "RouteOption",
            Self::Upstream => "Upstream",
            Self::RateLimitConfig => "RateLimitConfig",
            Self::GlooSettings => "Settings",
            Self::Domain => "Domain",
        }
    }

    /// What tells it from every other kind, where only a name is given.
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::GlooGateway => "Gateway (Gloo)",
            _ => self.name(),
        }
    }

    pub(crate) const fn group(self) -> &'static str {
        match self {
            Self::Gateway
            | Self::GatewayClass
            | Self::ListenerSet
            | Self::HttpRoute
            | Self::GrpcRoute
            | Self::ReferenceGrant => gateway_api::GROUP,
            Self::Backend
            | Self::BackendTrafficPolicy
            | Self::ClientTrafficPolicy
            | Self::EnvoyGateway => envoy_gateway::GROUP,
            Self::NetworkRateLimitPolicy | Self::HttpRateLimitPolicy | Self::LimiterConfig => {
                native::GROUP
            }
            Self::Namespace | Self::Service | Self::Secret | Self::ConfigMap => core::GROUP,
            Self::EndpointSlice => core::DISCOVERY_GROUP,
            Self::GlooGateway
            | Self::VirtualService
            | Self::RouteTable
            | Self::ListenerOption
            | Self::HttpListenerOption
            | Self::VirtualHostOption
            | Self::RouteOption => gloo::GATEWAY_GROUP,
            Self::Upstream | Self::GlooSettings => gloo::GLOO_GROUP,
            Self::RateLimitConfig => gloo::RATE_LIMIT_GROUP,
            // Not in `ALL`: no document names it.
            Self::Domain => "",
        }
    }

    const fn versions(self) -> &'static [&'static str] {
        match self {
            Self::Gateway | Self::GatewayClass | Self::HttpRoute | Self::ReferenceGrant => {
                &["v1", "v1beta1"]
            }
            Self::ListenerSet => &["v1", "v1alpha1"],
            Self::GrpcRoute
            | Self::Namespace
            | Self::Service
            | Self::EndpointSlice
            | Self::Secret
            | Self::ConfigMap
            | Self::GlooGateway
            | Self::VirtualService
            | Self::RouteTable
            | Self::ListenerOption
            | Self::HttpListenerOption
            | Self::VirtualHostOption
            | Self::RouteOption
            | Self::Upstream
            | Self::GlooSettings => &["v1"],
            _ => &["v1alpha1"],
        }
    }

    /// The kind of this name, of this group if there is one in it.
    fn named(name: &str, group: &str) -> Option<Self> {
        let mut named = Self::ALL.into_iter().filter(|kind| kind.name() == name);
        let of_group = named.clone().find(|kind| kind.group() == group);
        of_group.or_else(|| named.next())
    }
}

/// Kinds that exist where our files come from, and are not read yet.
const NOT_YET: &[(&str, &[&str])] = &[
    (
        gateway_api::GROUP,
        &["BackendTLSPolicy", "TCPRoute", "TLSRoute", "UDPRoute"],
    ),
    (
        "gateway.networking.x-k8s.io",
        &["XBackendTrafficPolicy", "XListenerSet", "XMesh"],
    ),
    (
        envoy_gateway::GROUP,
        &[
            "EnvoyExtensionPolicy",
            "EnvoyPatchPolicy",
            "HTTPRouteFilter",
            "SecurityPolicy",
        ],
    ),
    (
        gloo::GATEWAY_GROUP,
        &["MatchableHttpGateway", "MatchableTcpGateway"],
    ),
    (gloo::GLOO_GROUP, &["Proxy", "UpstreamGroup"]),
    ("enterprise.gloo.solo.io", &["AuthConfig"]),
];

/// Kinds that say how something is run, not what it does: files that hold them work without.
const PASSED_OVER: &[(&str, &[&str])] = &[
    (envoy_gateway::GROUP, &["EnvoyProxy"]),
    (
        "",
        &[
            "Endpoints",
            "PersistentVolumeClaim",
            "Pod",
            "ServiceAccount",
        ],
    ),
    (
        "apps",
        &["DaemonSet", "Deployment", "ReplicaSet", "StatefulSet"],
    ),
    ("autoscaling", &["HorizontalPodAutoscaler"]),
    ("batch", &["CronJob", "Job"]),
    ("policy", &["PodDisruptionBudget"]),
    (
        "rbac.authorization.k8s.io",
        &["ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"],
    ),
];

/// Why a document is of no kind that is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// The fault is in `apiVersion`, not in `kind`.
    pub(crate) in_version: bool,
    /// It may be passed over: nothing that is enforced is lost.
    pub(crate) harmless: bool,
    /// There is no such kind, so another one may be meant.
    pub(crate) unknown: bool,
    pub(crate) message: String,
    pub(crate) remedy: String,
}

/// The kind that `apiVersion` and `kind` name.
pub(crate) fn find(api_version: &str, kind: &str) -> Result<Kind, Refusal> {
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    match Kind::named(kind, group) {
        Some(found) if found.group() == group && found.versions().contains(&version) => Ok(found),
        Some(found) if not_yet(group, kind) => Err(unsupported(group, found.name())),
        Some(found) => Err(Refusal {
            in_version: true,
            harmless: false,
            unknown: true,
            message: format!("there is no `{kind}` in `{api_version}`"),
            remedy: format!(
                "write `{}/{}`",
                found.group(),
                found.versions().first().copied().unwrap_or_default()
            ),
        }),
        None if not_yet(group, kind) => Err(unsupported(group, kind)),
        None if listed(PASSED_OVER, group, kind) => Err(Refusal {
            in_version: false,
            harmless: true,
            unknown: false,
            message: format!("the kind `{kind}` has no meaning to limiterd and is passed over"),
            remedy: String::new(),
        }),
        None => Err(Refusal {
            in_version: false,
            harmless: false,
            unknown: true,
            message: format!("unknown kind `{kind}`"),
            remedy: suggest::remedy(
                kind,
                Kind::ALL.into_iter().map(Kind::name),
                "the kinds read are",
            ),
        }),
    }
}

fn not_yet(group: &str, kind: &str) -> bool {
    listed(NOT_YET, group, kind)
}

fn listed(table: &[(&str, &[&str])], group: &str, kind: &str) -> bool {
    table
        .iter()
        .any(|(name, kinds)| *name == group && kinds.contains(&kind))
}

fn unsupported(group: &str, kind: &str) -> Refusal {
    let of = if group.is_empty() {
        String::new()
    } else {
        format!(" of {group}")
    };
    Refusal {
        in_version: false,
        harmless: false,
        unknown: false,
        message: format!("the kind `{kind}`{of} is not supported yet"),
        remedy: "remove it: limiterd would not enforce it".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::{Kind, find};

    #[test]
    fn kinds() {
        let said = |version: &str, kind: &str| {
            find(version, kind).map_err(|no| format!("{}; {}", no.message, no.remedy))
        };
        assert_eq!(
            said("gateway.networking.k8s.io/v1beta1", "Gateway"),
            Ok(Kind::Gateway)
        );
        assert_eq!(said("gateway.solo.io/v1", "Gateway"), Ok(Kind::GlooGateway));
        assert_eq!(
            said("limiterd.io/v1alpha1", "LimiterConfig"),
            Ok(Kind::LimiterConfig)
        );
        let table = [
            (
                "gateway.networking.k8s.io/v1alpha2",
                "Gateway",
                "there is no `Gateway` in `gateway.networking.k8s.io/v1alpha2`; \
                 write `gateway.networking.k8s.io/v1`",
            ),
            (
                "apps/v1",
                "Deployment",
                "the kind `Deployment` has no meaning to limiterd and is passed over; ",
            ),
            (
                "gateway.envoyproxy.io/v1alpha1",
                "SecurityPolicy",
                "the kind `SecurityPolicy` of gateway.envoyproxy.io is not supported yet; \
                 remove it: limiterd would not enforce it",
            ),
            (
                "gateway.networking.k8s.io/v1",
                "HttpRoute",
                "unknown kind `HttpRoute`; did you mean `HTTPRoute`?",
            ),
        ];
        for (version, kind, expected) in table {
            assert_eq!(said(version, kind), Err(expected.to_owned()));
        }
    }
}
