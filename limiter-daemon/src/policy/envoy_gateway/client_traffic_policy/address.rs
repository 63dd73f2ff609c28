//! `clientIPDetection`: which address a request is attributed to.

use serde::Deserialize;

use crate::policy::decode::At;
use crate::policy::envoy_gateway::rate_limit::cidr;
use crate::policy::findings::Scope;
use crate::policy::gateway_api::route_match::header_name;
use crate::policy::plan::ClientAddress;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawDetection {
    x_forwarded_for: Option<At<RawForwarded>>,
    custom_header: Option<At<RawCustomHeader>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawForwarded {
    num_trusted_hops: Option<At<u32>>,
    #[serde(rename = "trustedCIDRs")]
    trusted_cidrs: Option<At<Vec<At<String>>>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawCustomHeader {
    name: At<String>,
    fail_closed: Option<bool>,
}

/// Checks the detection; the connection's address after an error.
pub(super) fn lower(raw: At<RawDetection>, scope: &mut Scope<'_>) -> ClientAddress {
    let At { value: raw, mark } = raw;
    match (raw.x_forwarded_for, raw.custom_header) {
        (Some(_), Some(custom)) => {
            scope.error(
                &custom.mark,
                "both `xForwardedFor` and `customHeader` are given",
                "keep one of them",
            );
            ClientAddress::Peer
        }
        (Some(forwarded), None) => lower_forwarded(forwarded, scope),
        (None, Some(custom)) => match header_name(&custom.value.name, scope) {
            Some(name) => ClientAddress::Header {
                name,
                required: custom.value.fail_closed.unwrap_or_default(),
            },
            None => ClientAddress::Peer,
        },
        (None, None) => {
            scope.error(
                &mark,
                "it says nothing",
                "give it `xForwardedFor` or `customHeader`, or remove it",
            );
            ClientAddress::Peer
        }
    }
}

fn lower_forwarded(raw: At<RawForwarded>, scope: &mut Scope<'_>) -> ClientAddress {
    let At { value: raw, mark } = raw;
    match (raw.num_trusted_hops, raw.trusted_cidrs) {
        (Some(hops), None) if hops.value == 0 => ClientAddress::Peer,
        (Some(hops), None) => ClientAddress::TrustedHops(hops.value),
        (None, Some(list)) => {
            if list.is_empty() {
                scope.error(&list.mark, "nobody is trusted", "write at least one CIDR");
            }
            ClientAddress::TrustedCidrs(
                list.value
                    .iter()
                    .filter_map(|text| cidr(text, scope))
                    .collect(),
            )
        }
        _ => {
            scope.error(
                &mark,
                "either hops or CIDRs are trusted",
                "give it either `numTrustedHops` or `trustedCIDRs`",
            );
            ClientAddress::Peer
        }
    }
}
