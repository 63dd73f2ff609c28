//! `EnvoyGateway`: of Envoy Gateway's own settings, those of the store of global limits.
//!
//! Its files have no `spec`, and often no `metadata`. What says how Envoy Gateway itself is run has no
//! meaning here.

use serde::Deserialize;

use super::store::{self, EnvoyGateway, RawRateLimit};
use crate::policy::decode::{At, Ignored};
use crate::policy::findings::{Mark, Origin, Scope};
use crate::policy::resource::{self, Meta, Name, RawMetadata};

/// What one without a name is called.
pub(crate) const NAME: &str = "envoy-gateway";

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(
    dead_code,
    reason = "all fields that a file may have are named, so that no other passes"
)]
pub(crate) struct RawEnvoyGateway {
    api_version: String,
    kind: String,
    metadata: Option<RawMetadata>,
    gateway: Option<Ignored>,
    provider: Option<Ignored>,
    logging: Option<Ignored>,
    admin: Option<Ignored>,
    telemetry: Option<Ignored>,
    xds_server: Option<Ignored>,
    rate_limit: Option<At<RawRateLimit>>,
    extension_manager: Option<Ignored>,
    extension_apis: Option<Ignored>,
    #[serde(rename = "gatewayAPIs")]
    gateway_apis: Option<Ignored>,
    runtime_flags: Option<Ignored>,
}

/// Checks an EnvoyGateway.
pub(crate) fn lower(
    raw: RawEnvoyGateway,
    name: &Name,
    mark: Mark,
    origin: &Origin,
    scope: &mut Scope<'_>,
) -> EnvoyGateway {
    let meta = match &raw.metadata {
        Some(metadata) => resource::meta(metadata, origin, scope),
        None => Meta {
            name: name.clone(),
            created: None,
            labels: Default::default(),
            annotations: Default::default(),
            origin: origin.clone(),
            mark,
        },
    };
    let store = raw
        .rate_limit
        .and_then(|raw| store::lower(raw, &name.namespace, scope));
    EnvoyGateway { meta, store }
}
