//! Which fields the resources of each kind have.

use serde::de::DeserializeOwned;

use crate::policy::core::{config_map, endpoint_slice, namespace, secret, service};
use crate::policy::decode::{At, Field, Ignored, shape};
use crate::policy::envoy_gateway::{
    backend, backend_traffic_policy, client_traffic_policy, envoy_gateway,
};
use crate::policy::findings::{Mark, Origin, Scope};
use crate::policy::gateway_api::{gateway, listener_set, references, route};
use crate::policy::gloo;
use crate::policy::kinds::Kind;
use crate::policy::native::{http_rate_limit_policy, limiter_config, network_rate_limit_policy};
use crate::policy::ratelimit_service::RawDomain;
use crate::policy::resource::{Document, Meta, Name};

/// Fields that every resource has.
const OF_ALL: [&str; 4] = ["apiVersion", "kind", "metadata", "status"];

/// All fields of a kind but those of its header.
pub(crate) fn of(kind: Kind) -> Vec<Field> {
    let fields = match kind {
        Kind::GatewayClass => shape::<Document<Ignored>>(),
        Kind::Gateway => spec(gateway::lower),
        Kind::ListenerSet => spec(listener_set::lower),
        Kind::HttpRoute => spec(route::lower_http),
        Kind::GrpcRoute => spec(route::lower_grpc),
        Kind::ReferenceGrant => spec(references::lower),
        Kind::Backend => spec(backend::lower),
        Kind::BackendTrafficPolicy => spec(backend_traffic_policy::lower),
        Kind::ClientTrafficPolicy => spec(client_traffic_policy::lower),
        Kind::EnvoyGateway => whole(envoy_gateway::lower),
        Kind::NetworkRateLimitPolicy => spec(network_rate_limit_policy::lower),
        Kind::HttpRateLimitPolicy => spec(http_rate_limit_policy::lower),
        Kind::LimiterConfig => spec(limiter_config::lower),
        Kind::Namespace => shape::<namespace::RawNamespace>(),
        Kind::Service => spec(service::lower),
        Kind::EndpointSlice => document(endpoint_slice::lower),
        Kind::Secret => shape::<secret::RawSecret>(),
        Kind::ConfigMap => shape::<config_map::RawConfigMap>(),
        Kind::GlooGateway => spec(gloo::gateway::lower),
        Kind::VirtualService => spec(gloo::virtual_service::lower),
        Kind::RouteTable => spec(gloo::route_table::lower),
        Kind::ListenerOption => spec(gloo::listener_options::lower),
        Kind::HttpListenerOption => spec(gloo::listener_options::lower_http),
        Kind::VirtualHostOption => spec(gloo::virtual_host_options::lower_option),
        Kind::RouteOption => spec(gloo::route_options::lower_option),
        Kind::Upstream => spec(gloo::upstream::lower),
        Kind::RateLimitConfig => spec(gloo::rate_limit_config::lower),
        Kind::GlooSettings => spec(gloo::settings::lower),
        Kind::Domain => shape::<RawDomain>(),
    };
    let of_all = |field: &Field| {
        let first = field.path.split(['.', '[']).next().unwrap_or_default();
        OF_ALL.contains(&first)
    };
    fields.into_iter().filter(|field| !of_all(field)).collect()
}

/// Of a kind whose specification is checked by `_lower`.
fn spec<S: DeserializeOwned, R>(
    _lower: impl FnOnce(At<S>, Meta, &mut Scope<'_>) -> R,
) -> Vec<Field> {
    shape::<Document<S>>()
}

/// Of a kind whose document is.
fn document<D: DeserializeOwned, R>(
    _lower: impl FnOnce(D, Meta, &mut Scope<'_>) -> R,
) -> Vec<Field> {
    shape::<D>()
}

/// Of a kind that needs no metadata.
fn whole<D: DeserializeOwned, R>(
    _lower: impl FnOnce(D, &Name, Mark, &Origin, &mut Scope<'_>) -> R,
) -> Vec<Field> {
    shape::<D>()
}
