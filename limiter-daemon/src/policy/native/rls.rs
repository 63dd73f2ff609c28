//! `rls` of the `LimiterConfig`: Envoy's rate limit service.

use std::net::SocketAddr;

use serde::Deserialize;

use crate::policy::decode::At;
use crate::policy::findings::Scope;
use crate::policy::plan::{Algorithm, DaemonConfig, RlsConfig};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawRls {
    listen: At<String>,
    algorithm: Option<Counting>,
    merge_domains: Option<bool>,
    response_headers: Option<bool>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
enum Counting {
    FixedWindow,
    SlidingWindow,
    TokenBucket,
}

/// How files of the rate limit service are read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DomainSettings {
    pub(crate) algorithm: Algorithm,
    /// Several files may add to one domain (the reference's `MERGE_DOMAIN_CONFIG`).
    pub(crate) merge: bool,
}

impl Default for DomainSettings {
    /// As the reference service has it: files made for it mean the same here.
    fn default() -> Self {
        Self {
            algorithm: Algorithm::FixedWindow,
            merge: false,
        }
    }
}

/// Checks it; where it is served goes into `daemon`.
pub(super) fn lower(
    raw: RawRls,
    daemon: &mut DaemonConfig,
    scope: &mut Scope<'_>,
) -> DomainSettings {
    let listen: Option<SocketAddr> = raw.listen.parse().ok();
    match listen.filter(|address| address.port() != 0) {
        Some(listen) => {
            daemon.rls = Some(RlsConfig {
                listen,
                response_headers: raw.response_headers.unwrap_or_default(),
            });
        }
        None => scope.error(
            &raw.listen.mark,
            format!("`{}` is not an address with a port", raw.listen.value),
            "write it as `0.0.0.0:8081` or `[::]:8081`",
        ),
    }
    let default = DomainSettings::default();
    DomainSettings {
        algorithm: match raw.algorithm {
            None => default.algorithm,
            Some(Counting::FixedWindow) => Algorithm::FixedWindow,
            Some(Counting::SlidingWindow) => Algorithm::SlidingWindow,
            Some(Counting::TokenBucket) => Algorithm::TokenBucket,
        },
        merge: raw.merge_domains.unwrap_or(default.merge),
    }
}
