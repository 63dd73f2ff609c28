//! `clientSelectors` of a rule: what a request must be like for the rule to apply to it.
//!
//! All selectors of a rule, and all parts of a selector, must match; so they come to one list of
//! conditions. (Envoy Gateway keeps of several paths or CIDRs only the last.)

use http::Method;
use ipnet::IpNet;
use regex::bytes::{Regex, RegexBuilder};
use serde::Deserialize;

use crate::policy::decode::At;
use crate::policy::findings::{Mark, Scope};
use crate::policy::gateway_api::route_match::{self, MAX_REGEX, RawPath, exact_value, header_name};
use crate::policy::plan::{Condition, SourcePrefixes, ValueTest};

const MAX_SELECTORS: usize = 8;
const MAX_HEADERS: usize = 128;
const MAX_METHODS: usize = 16;
const MAX_QUERY: usize = 16;
const MAX_NAME: usize = 256;
const MAX_VALUE: usize = 1024;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawSelector {
    headers: Option<At<Vec<RawValue>>>,
    methods: Option<At<Vec<RawMethod>>>,
    path: Option<At<RawPathSelector>>,
    query_params: Option<At<Vec<RawValue>>>,
    #[serde(rename = "sourceCIDR")]
    source_cidr: Option<At<RawSource>>,
}

/// A header or a query parameter.
#[derive(Debug, Deserialize)]
struct RawValue {
    #[serde(rename = "type")]
    kind: Option<At<ValueKind>>,
    name: At<String>,
    value: Option<At<String>>,
    invert: Option<bool>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
enum ValueKind {
    Exact,
    Distinct,
    RegularExpression,
}

#[derive(Debug, Deserialize)]
struct RawMethod {
    value: At<String>,
    invert: Option<bool>,
}

#[derive(Debug, Deserialize)]
struct RawPathSelector {
    #[serde(rename = "type")]
    kind: Option<route_match::PathKind>,
    value: At<String>,
    invert: Option<bool>,
}

#[derive(Debug, Deserialize)]
struct RawSource {
    #[serde(rename = "type")]
    kind: Option<SourceKind>,
    value: At<String>,
    invert: Option<At<bool>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
enum SourceKind {
    Exact,
    Distinct,
}

/// Checks the selectors of a rule.
pub(super) fn lower(
    raw: Option<At<Vec<At<RawSelector>>>>,
    each: SourcePrefixes,
    scope: &mut Scope<'_>,
) -> Vec<Condition> {
    let Some(list) = raw else {
        return Vec::new();
    };
    scope.at_most(&list.mark, list.len(), MAX_SELECTORS);
    let mut conditions = Vec::new();
    for At { value: raw, mark } in list.value {
        selector(raw, &mark, each, &mut conditions, scope);
    }
    conditions
}

fn selector(
    raw: RawSelector,
    mark: &Mark,
    each: SourcePrefixes,
    conditions: &mut Vec<Condition>,
    scope: &mut Scope<'_>,
) {
    let mut empty = true;
    if let Some(list) = raw.headers.filter(|list| !list.is_empty()) {
        empty = false;
        scope.at_most(&list.mark, list.len(), MAX_HEADERS);
        conditions.extend(list.value.into_iter().filter_map(|raw| header(raw, scope)));
    }
    if let Some(list) = raw.methods.filter(|list| !list.is_empty()) {
        empty = false;
        scope.at_most(&list.mark, list.len(), MAX_METHODS);
        let methods = list.value.iter().filter_map(|raw| method(raw, scope));
        conditions.push(Condition::Method(methods.collect()));
    }
    if let Some(path) = raw.path {
        empty = false;
        let invert = path.value.invert.unwrap_or_default();
        let raw = RawPath {
            kind: path.value.kind,
            value: Some(path.value.value),
        };
        conditions.extend(
            route_match::lower_path(raw, scope).map(|path| Condition::Path { path, invert }),
        );
    }
    if let Some(list) = raw.query_params.filter(|list| !list.is_empty()) {
        empty = false;
        scope.at_most(&list.mark, list.len(), MAX_QUERY);
        conditions.extend(list.value.into_iter().filter_map(|raw| query(raw, scope)));
    }
    if let Some(source_cidr) = raw.source_cidr {
        empty = false;
        conditions.extend(source(source_cidr.value, each, scope));
    }
    if empty {
        scope.error(
            mark,
            "the selector selects nothing",
            "give it `headers`, `methods`, `path`, `queryParams` or `sourceCIDR`, or remove it",
        );
    }
}

fn header(raw: RawValue, scope: &mut Scope<'_>) -> Option<Condition> {
    let name = header_name(&raw.name, scope);
    let test = value_test(raw, scope);
    Some(Condition::Header {
        name: name?,
        test: test?,
    })
}

fn query(raw: RawValue, scope: &mut Scope<'_>) -> Option<Condition> {
    let name = raw.name.value.clone();
    if name.is_empty() || name.len() > MAX_NAME {
        scope.error(
            &raw.name.mark,
            "this is not the name of a query parameter",
            format!("write 1 to {MAX_NAME} bytes"),
        );
    }
    Some(Condition::Query {
        name,
        test: value_test(raw, scope)?,
    })
}

fn value_test(raw: RawValue, scope: &mut Scope<'_>) -> Option<ValueTest> {
    let invert = raw.invert.unwrap_or_default();
    if let Some(value) = raw.value.as_ref().filter(|value| value.len() > MAX_VALUE) {
        scope.error(
            &value.mark,
            "the value is too long",
            format!("at most {MAX_VALUE} bytes are allowed"),
        );
    }
    let kind = raw
        .kind
        .as_ref()
        .map_or(ValueKind::Exact, |kind| kind.value);
    match (kind, raw.value) {
        (ValueKind::Exact, Some(value)) => {
            if value.value == "*" {
                scope.warning(
                    &value.mark,
                    "with `type: Exact` this is the character `*`, not any value",
                    "write `type: Distinct` for a bucket each value, or `RegularExpression` with `.*` for any",
                );
            }
            let value = exact_value(&value, scope)?;
            Some(if invert {
                ValueTest::IsNot(value)
            } else {
                ValueTest::Is(value)
            })
        }
        (ValueKind::RegularExpression, Some(value)) => {
            let regex = regex(&value, scope)?;
            Some(if invert {
                ValueTest::MatchesNot(regex)
            } else {
                ValueTest::Matches(regex)
            })
        }
        (kind @ (ValueKind::Exact | ValueKind::RegularExpression), None) => {
            let remedy = if invert {
                "give it one, or write `type: Distinct` for requests without it"
            } else {
                "give it one, or write `type: Distinct` for a bucket each value"
            };
            scope.error(
                &raw.name.mark,
                format!("a selector of type `{kind:?}` needs a `value`"),
                remedy,
            );
            None
        }
        (ValueKind::Distinct, Some(value)) if value.value != "*" => {
            scope.error(
                &value.mark,
                "a selector of type `Distinct` takes every value, each with a bucket of its own",
                "remove `value`, or write `type: Exact`",
            );
            None
        }
        (ValueKind::Distinct, _) if invert => Some(ValueTest::Absent),
        (ValueKind::Distinct, _) => Some(ValueTest::Each),
    }
}

fn regex(pattern: &At<String>, scope: &mut Scope<'_>) -> Option<Regex> {
    let compile = |text: &str| RegexBuilder::new(text).size_limit(MAX_REGEX).build();
    route_match::whole(pattern, scope, compile)
}

fn method(raw: &RawMethod, scope: &mut Scope<'_>) -> Option<(Method, bool)> {
    const KNOWN: [Method; 9] = [
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::DELETE,
        Method::CONNECT,
        Method::OPTIONS,
        Method::TRACE,
        Method::PATCH,
    ];
    let known = KNOWN
        .into_iter()
        .find(|method| method.as_str() == raw.value.as_str());
    if known.is_none() {
        let names: Vec<String> = KNOWN.iter().map(ToString::to_string).collect();
        let remedy = crate::policy::suggest::remedy(
            &raw.value,
            names.iter().map(String::as_str),
            "it may be",
        );
        let message = format!("unknown method `{}`", raw.value.value);
        scope.error(&raw.value.mark, message, remedy);
    }
    known.map(|method| (method, raw.invert.unwrap_or_default()))
}

fn source(raw: RawSource, each: SourcePrefixes, scope: &mut Scope<'_>) -> Option<Condition> {
    let net = cidr(&raw.value, scope)?;
    let distinct = raw.kind == Some(SourceKind::Distinct);
    let whole = net.prefix_len() == 0;
    let invert = raw.invert.as_ref().is_some_and(|invert| invert.value);
    if let Some(mark) = raw
        .invert
        .filter(|invert| invert.value && whole)
        .map(|invert| invert.mark)
    {
        scope.error(
            &mark,
            format!("no address of that family is outside of `{net}`"),
            "remove `invert`, or write a narrower CIDR",
        );
    }
    Some(Condition::Source {
        nets: vec![net],
        invert,
        each: distinct.then_some(each),
    })
}

/// A CIDR or an address, or an error at it. Bits beyond the prefix are a warning, as upstream
/// takes them.
pub(crate) fn cidr(text: &At<String>, scope: &mut Scope<'_>) -> Option<IpNet> {
    let address = || text.parse::<std::net::IpAddr>().ok().map(IpNet::from);
    let Some(net) = text.parse::<IpNet>().ok().or_else(address) else {
        scope.error(
            &text.mark,
            format!("`{}` is not a CIDR", text.value),
            "write it as `192.0.2.0/24` or `2001:db8::/32`",
        );
        return None;
    };
    let trunc = net.trunc();
    if trunc != net {
        scope.warning(
            &text.mark,
            format!("`{net}` has bits set beyond its prefix"),
            format!("write `{trunc}`"),
        );
    }
    Some(trunc)
}
