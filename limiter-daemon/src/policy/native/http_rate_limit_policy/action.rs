//! `actions`: what makes an entry of a descriptor (Envoy's `config.route.v3.RateLimit.Action`).

use std::net::IpAddr;

use ipnet::IpNet;
use serde::Deserialize;

use super::matchers::{self, RawHeaderMatcher, RawParameterMatcher};
use super::rate_limit::no_metadata;
use crate::policy::decode::{At, Ignored};
use crate::policy::findings::{Mark, Scope};
use crate::policy::gateway_api::route_match::header_name;
use crate::policy::plan::{Action, HeaderSource};
use crate::policy::suggest;

/// Exactly one of them.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RawAction {
    #[serde(alias = "source_cluster")]
    source_cluster: Option<RawNothing>,
    #[serde(alias = "destination_cluster")]
    destination_cluster: Option<RawNothing>,
    #[serde(alias = "remote_address")]
    remote_address: Option<RawNothing>,
    #[serde(alias = "masked_remote_address")]
    masked_remote_address: Option<RawMasked>,
    #[serde(alias = "request_headers")]
    request_headers: Option<RawHeader>,
    #[serde(alias = "query_parameters")]
    query_parameters: Option<RawParameter>,
    #[serde(alias = "generic_key")]
    generic_key: Option<RawGeneric>,
    #[serde(alias = "header_value_match")]
    header_value_match: Option<RawHeaderMatch>,
    #[serde(alias = "query_parameter_value_match")]
    query_parameter_value_match: Option<RawQueryMatch>,
    #[serde(alias = "remote_address_match")]
    remote_address_match: Option<RawAddressMatch>,
    metadata: Option<At<RawMetadata>>,
    #[serde(alias = "dynamic_metadata")]
    dynamic_metadata: Option<At<RawMetadata>>,
    extension: Option<At<Ignored>>,
}

#[derive(Debug, Deserialize)]
struct RawNothing {}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawMasked {
    #[serde(alias = "v4_prefix_mask_len")]
    v4_prefix_mask_len: Option<At<u8>>,
    #[serde(alias = "v6_prefix_mask_len")]
    v6_prefix_mask_len: Option<At<u8>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawHeader {
    #[serde(alias = "header_name")]
    header_name: At<String>,
    #[serde(alias = "descriptor_key")]
    descriptor_key: At<String>,
    #[serde(alias = "skip_if_absent")]
    skip_if_absent: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawParameter {
    #[serde(alias = "query_parameter_name")]
    query_parameter_name: At<String>,
    #[serde(alias = "descriptor_key")]
    descriptor_key: At<String>,
    #[serde(alias = "skip_if_absent")]
    skip_if_absent: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawGeneric {
    #[serde(alias = "descriptor_key")]
    descriptor_key: Option<At<String>>,
    #[serde(alias = "descriptor_value")]
    descriptor_value: At<String>,
    #[serde(alias = "default_value")]
    default_value: Option<At<Ignored>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawHeaderMatch {
    #[serde(alias = "descriptor_key")]
    descriptor_key: Option<At<String>>,
    #[serde(alias = "descriptor_value")]
    descriptor_value: At<String>,
    #[serde(alias = "default_value")]
    default_value: Option<At<Ignored>>,
    #[serde(alias = "expect_match")]
    expect_match: Option<bool>,
    headers: At<Vec<At<RawHeaderMatcher>>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawQueryMatch {
    #[serde(alias = "descriptor_key")]
    descriptor_key: Option<At<String>>,
    #[serde(alias = "descriptor_value")]
    descriptor_value: At<String>,
    #[serde(alias = "default_value")]
    default_value: Option<At<Ignored>>,
    #[serde(alias = "expect_match")]
    expect_match: Option<bool>,
    #[serde(alias = "query_parameters")]
    query_parameters: At<Vec<At<RawParameterMatcher>>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawAddressMatch {
    #[serde(alias = "descriptor_key")]
    descriptor_key: Option<At<String>>,
    #[serde(alias = "descriptor_value")]
    descriptor_value: At<String>,
    #[serde(alias = "default_value")]
    default_value: Option<At<Ignored>>,
    #[serde(alias = "address_matcher")]
    address_matcher: RawAddressMatcher,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawAddressMatcher {
    ranges: At<Vec<At<RawRange>>>,
    #[serde(alias = "invert_match")]
    invert_match: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawRange {
    #[serde(alias = "address_prefix")]
    address_prefix: At<String>,
    #[serde(alias = "prefix_len")]
    prefix_len: At<u8>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawMetadata {
    #[serde(alias = "descriptor_key")]
    descriptor_key: At<String>,
    #[expect(dead_code, reason = "named, so that no other passes")]
    #[serde(alias = "metadata_key")]
    metadata_key: Option<Ignored>,
    #[serde(alias = "default_value")]
    default_value: Option<At<String>>,
    #[expect(dead_code, reason = "named, so that no other passes")]
    source: Option<Ignored>,
    #[serde(alias = "skip_if_absent")]
    skip_if_absent: Option<bool>,
}

const NAMES: [&str; 10] = [
    "sourceCluster",
    "destinationCluster",
    "remoteAddress",
    "maskedRemoteAddress",
    "requestHeaders",
    "queryParameters",
    "genericKey",
    "headerValueMatch",
    "queryParameterValueMatch",
    "remoteAddressMatch",
];

/// Checks an action; `None` after an error in it.
pub(crate) fn lower(
    At { value: raw, mark }: At<RawAction>,
    scope: &mut Scope<'_>,
) -> Option<Action> {
    if let Some(extension) = &raw.extension {
        scope.error(
            &extension.mark,
            "descriptors by extensions (as CEL expressions) are not supported",
            format!("use one of {}", suggest::listed(NAMES)),
        );
        return None;
    }
    let mut found: Vec<Option<Action>> = Vec::new();
    found.extend(
        raw.source_cluster
            .map(|RawNothing {}| Some(Action::SourceCluster)),
    );
    found.extend(
        raw.destination_cluster
            .map(|RawNothing {}| Some(Action::DestinationCluster)),
    );
    found.extend(
        raw.remote_address
            .map(|RawNothing {}| Some(Action::RemoteAddress)),
    );
    found.extend(raw.masked_remote_address.map(|raw| masked(&raw, scope)));
    found.extend(raw.request_headers.map(|raw| header(raw, scope)));
    found.extend(raw.query_parameters.map(|raw| parameter(raw, scope)));
    found.extend(raw.generic_key.map(|raw| generic(raw, scope)));
    found.extend(raw.header_value_match.map(|raw| header_match(raw, scope)));
    found.extend(
        raw.query_parameter_value_match
            .map(|raw| query_match(raw, scope)),
    );
    found.extend(
        raw.remote_address_match
            .map(|raw| address_match(raw, scope)),
    );
    found.extend(raw.metadata.map(|raw| metadata(raw, scope)));
    found.extend(raw.dynamic_metadata.map(|raw| metadata(raw, scope)));
    match found.len() {
        1 => found.pop().flatten(),
        0 => {
            scope.error(
                &mark,
                "this action does nothing",
                format!("write one of {}", suggest::listed(NAMES)),
            );
            None
        }
        _ => {
            scope.error(
                &mark,
                "an action is one thing",
                "make an item of the list of each",
            );
            None
        }
    }
}

fn masked(raw: &RawMasked, scope: &mut Scope<'_>) -> Option<Action> {
    let v4 = mask(raw.v4_prefix_mask_len.as_ref(), 32, scope);
    let v6 = mask(raw.v6_prefix_mask_len.as_ref(), 128, scope);
    Some(Action::MaskedRemoteAddress { v4: v4?, v6: v6? })
}

fn mask(length: Option<&At<u8>>, most: u8, scope: &mut Scope<'_>) -> Option<u8> {
    let Some(length) = length else {
        return Some(most);
    };
    if length.value > most {
        let message = format!("no address has {} bits", length.value);
        scope.error(&length.mark, message, format!("it may be 0 to {most}"));
        return None;
    }
    Some(length.value)
}

fn header(raw: RawHeader, scope: &mut Scope<'_>) -> Option<Action> {
    let header = source(&raw.header_name, scope);
    let key = key(raw.descriptor_key, scope);
    Some(Action::RequestHeader {
        header: header?,
        key: key?,
        skip_if_absent: raw.skip_if_absent.unwrap_or_default(),
    })
}

/// What a header's name stands for; HTTP/2's pseudo headers among them.
pub(super) fn source(name: &At<String>, scope: &mut Scope<'_>) -> Option<HeaderSource> {
    const PSEUDO: [&str; 4] = [":method", ":path", ":authority", ":scheme"];
    Some(match name.value.to_ascii_lowercase().as_str() {
        ":method" => HeaderSource::Method,
        ":path" => HeaderSource::Path,
        ":authority" => HeaderSource::Authority,
        ":scheme" => HeaderSource::Scheme,
        other if other.starts_with(':') => {
            let message = format!("there is no pseudo header `{}`", name.value);
            scope.error(
                &name.mark,
                message,
                suggest::remedy(other, PSEUDO, "there are"),
            );
            return None;
        }
        "host" => HeaderSource::Authority,
        _ => HeaderSource::Named(header_name(name, scope)?),
    })
}

fn parameter(raw: RawParameter, scope: &mut Scope<'_>) -> Option<Action> {
    let name = filled(raw.query_parameter_name, "the name of a parameter", scope);
    let key = key(raw.descriptor_key, scope);
    Some(Action::QueryParameter {
        name: name?,
        key: key?,
        skip_if_absent: raw.skip_if_absent.unwrap_or_default(),
    })
}

fn generic(raw: RawGeneric, scope: &mut Scope<'_>) -> Option<Action> {
    let value = value((raw.descriptor_value, raw.default_value), scope);
    let key = key_or(raw.descriptor_key, "generic_key", scope);
    Some(Action::GenericKey {
        key: key?,
        value: value?,
    })
}

fn header_match(raw: RawHeaderMatch, scope: &mut Scope<'_>) -> Option<Action> {
    let key = key_or(raw.descriptor_key, "header_match", scope);
    let value = value((raw.descriptor_value, raw.default_value), scope);
    let headers = matchers::headers(raw.headers, scope);
    Some(Action::HeaderMatch {
        key: key?,
        value: value?,
        expect: raw.expect_match.unwrap_or(true),
        headers: headers?,
    })
}

fn query_match(raw: RawQueryMatch, scope: &mut Scope<'_>) -> Option<Action> {
    let key = key_or(raw.descriptor_key, "query_match", scope);
    let value = value((raw.descriptor_value, raw.default_value), scope);
    let parameters = matchers::parameters(raw.query_parameters, scope);
    Some(Action::QueryMatch {
        key: key?,
        value: value?,
        expect: raw.expect_match.unwrap_or(true),
        parameters: parameters?,
    })
}

fn address_match(raw: RawAddressMatch, scope: &mut Scope<'_>) -> Option<Action> {
    const MAX: usize = 1024;
    let key = key_or(raw.descriptor_key, "remote_address_match", scope);
    let value = value((raw.descriptor_value, raw.default_value), scope);
    let ranges = raw.address_matcher.ranges;
    scope.at_most(&ranges.mark, ranges.len(), MAX);
    let nets: Vec<_> = ranges.value.iter().map(|raw| range(raw, scope)).collect();
    Some(Action::AddressMatch {
        key: key?,
        value: value?,
        nets: nets.into_iter().collect::<Option<_>>()?,
        invert: raw.address_matcher.invert_match.unwrap_or_default(),
    })
}

fn range(raw: &RawRange, scope: &mut Scope<'_>) -> Option<IpNet> {
    let text = &raw.address_prefix;
    let Ok(address) = text.parse::<IpAddr>() else {
        let message = format!("`{}` is not an address", text.value);
        scope.error(
            &text.mark,
            message,
            "write one, as `192.0.2.0`, and `prefixLen` beside it",
        );
        return None;
    };
    let most = if address.is_ipv4() { 32 } else { 128 };
    let length = mask(Some(&raw.prefix_len), most, scope)?;
    IpNet::new(address, length).ok().map(|net| net.trunc())
}

fn metadata(At { value: raw, mark }: At<RawMetadata>, scope: &mut Scope<'_>) -> Option<Action> {
    let key = key(raw.descriptor_key, scope)?;
    match raw.default_value.filter(|default| !default.is_empty()) {
        Some(default) => Some(Action::GenericKey {
            key,
            value: default.value,
        }),
        None if raw.skip_if_absent.unwrap_or_default() => Some(Action::Skip),
        None => {
            no_metadata(
                &mark,
                "a value",
                "take a header (`requestHeaders`), or say `defaultValue` or `skipIfAbsent: true`",
                scope,
            );
            None
        }
    }
}

fn key(key: At<String>, scope: &mut Scope<'_>) -> Option<String> {
    filled(key, "the key of an entry", scope)
}

fn key_or(key: Option<At<String>>, default: &str, scope: &mut Scope<'_>) -> Option<String> {
    match key.filter(|key| !key.is_empty()) {
        Some(at) => self::key(at, scope),
        None => Some(default.to_owned()),
    }
}

/// The value of an entry, as it stands: Envoy fills in commands, which is not done here.
fn value(
    (value, default): (At<String>, Option<At<Ignored>>),
    scope: &mut Scope<'_>,
) -> Option<String> {
    if let Some(default) = &default {
        scope.error(
            &default.mark,
            "a default is for values that are filled in, which is not supported",
            "remove it",
        );
        return None;
    }
    if is_filled_in(&value) {
        scope.error(
            &value.mark,
            format!(
                "`{}` would have to be filled in, which is not supported",
                value.value
            ),
            "take `requestHeaders` or `queryParameters` for what requests say",
        );
        return None;
    }
    filled(value, "the value of an entry", scope)
}

/// Whether it has one of Envoy's commands, as `%REQ(name)%`.
pub(super) fn is_filled_in(text: &str) -> bool {
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        rest = &rest[at + 1..];
        let name = rest
            .bytes()
            .take_while(|byte| byte.is_ascii_uppercase() || *byte == b'_');
        let length = name.count();
        if length > 0 && rest[length..].starts_with(['(', '%', ':']) {
            return true;
        }
    }
    false
}

fn filled(text: At<String>, what: &str, scope: &mut Scope<'_>) -> Option<String> {
    const MAX: usize = 1024;
    let mut wrong = |mark: &Mark, message: String, remedy: String| {
        scope.error(mark, message, remedy);
        None
    };
    match text.len() {
        0 => wrong(
            &text.mark,
            format!("{what} is not empty"),
            "write one".to_owned(),
        ),
        1..=MAX => Some(text.value),
        length => wrong(
            &text.mark,
            format!("{length} bytes are too much for {what}"),
            format!("it may have {MAX}"),
        ),
    }
}
