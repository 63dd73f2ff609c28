//! Descriptors of a request: what a rate limit service is told of it.
//!
//! As Envoy makes them (`router_ratelimit.cc`): the actions of a descriptor yield its entries in their
//! order, and one that has nothing to yield takes the descriptor with it. Nothing is allocated for
//! what stands in the request as it is.

use std::borrow::Cow;
use std::net::IpAddr;

use http::header::HOST;
use ipnet::IpNet;
use percent_encoding::percent_decode;
use smallvec::SmallVec;

use super::request::RequestView;
use crate::policy::plan::{
    Action, DescriptorRule, HeaderMatcher, HeaderSource, HeaderTest, HitsAddend, LimitOverride,
    ParameterMatcher, ParameterTest, TextPattern, TextTest,
};

/// Entries that a descriptor usually has at most; more of them allocate.
const INLINE: usize = 4;

/// Keys and values.
pub type Entries<'a> = SmallVec<[(Cow<'a, str>, Cow<'a, str>); INLINE]>;

/// A descriptor of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor<'a> {
    /// Never empty.
    pub entries: Entries<'a>,
    pub limit: Option<LimitOverride>,
    pub hits: Option<HitsAddend>,
    /// As [`DescriptorRule::headers`].
    pub headers: Option<bool>,
}

/// What is known of a request.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    pub request: RequestView<'a>,
    /// The connection came by TLS.
    pub tls: bool,
    /// Who asks.
    pub source: &'a str,
    /// The backend that it goes to.
    pub destination: &'a str,
}

impl Descriptor<'_> {
    /// The same, for later.
    #[must_use]
    pub fn into_owned(self) -> Descriptor<'static> {
        let entries = self
            .entries
            .into_iter()
            .map(|(key, value)| (Cow::Owned(key.into_owned()), Cow::Owned(value.into_owned())));
        Descriptor {
            entries: entries.collect(),
            limit: self.limit,
            hits: self.hits,
            headers: self.headers,
        }
    }
}

/// The descriptor that `rule` makes of a request; `None`: it makes none.
#[must_use]
pub fn descriptor<'a>(rule: &'a DescriptorRule, seen: &Seen<'a>) -> Option<Descriptor<'a>> {
    let mut entries = Entries::new();
    for action in &rule.actions {
        match entry(action, seen) {
            Made::Entry(key, value) => entries.push((Cow::Borrowed(key), value)),
            Made::Skipped => {}
            Made::Nothing => return None,
        }
    }
    (!entries.is_empty()).then_some(Descriptor {
        entries,
        limit: rule.limit,
        hits: rule.hits,
        headers: rule.headers,
    })
}

/// What an action comes to.
enum Made<'a> {
    Entry(&'a str, Cow<'a, str>),
    Skipped,
    /// There is no descriptor.
    Nothing,
}

fn entry<'a>(action: &'a Action, seen: &Seen<'a>) -> Made<'a> {
    let request = &seen.request;
    let or_nothing = |key: &'a str, value: Option<Cow<'a, str>>, skip: bool| match value {
        Some(value) => Made::Entry(key, value),
        None if skip => Made::Skipped,
        None => Made::Nothing,
    };
    let only_if = |holds: bool, key: &'a str, value: &'a str| {
        or_nothing(key, holds.then_some(Cow::Borrowed(value)), false)
    };
    match action {
        Action::SourceCluster => Made::Entry("source_cluster", Cow::Borrowed(seen.source)),
        Action::DestinationCluster => {
            Made::Entry("destination_cluster", Cow::Borrowed(seen.destination))
        }
        Action::RemoteAddress => {
            Made::Entry("remote_address", Cow::Owned(request.client.to_string()))
        }
        Action::MaskedRemoteAddress { v4, v6 } => {
            let length = if request.client.is_ipv4() { *v4 } else { *v6 };
            let net = IpNet::new(request.client, length).ok();
            let value = net.map(|net| Cow::Owned(net.trunc().to_string()));
            or_nothing("masked_remote_address", value, false)
        }
        Action::RequestHeader {
            header,
            key,
            skip_if_absent,
        } => or_nothing(key, first(header, seen), *skip_if_absent),
        Action::QueryParameter {
            name,
            key,
            skip_if_absent,
        } => or_nothing(key, parameter(request, name), *skip_if_absent),
        Action::GenericKey { key, value } => Made::Entry(key, Cow::Borrowed(value)),
        Action::HeaderMatch {
            key,
            value,
            expect,
            headers,
        } => {
            let all = headers.iter().all(|one| header_matches(one, seen));
            only_if(all == *expect, key, value)
        }
        Action::QueryMatch {
            key,
            value,
            expect,
            parameters,
        } => {
            let all = parameters.iter().all(|one| parameter_matches(one, request));
            only_if(all == *expect, key, value)
        }
        Action::AddressMatch {
            key,
            value,
            nets,
            invert,
        } => only_if(is_in(nets, request.client) != *invert, key, value),
        Action::Skip => Made::Skipped,
    }
}

fn is_in(nets: &[IpNet], address: IpAddr) -> bool {
    nets.iter().any(|net| net.contains(&address))
}

/// The value of a header, of several lines the first one (Envoy).
fn first<'a>(source: &HeaderSource, seen: &Seen<'a>) -> Option<Cow<'a, str>> {
    match source {
        HeaderSource::Named(name) => {
            let value = seen.request.headers.get(name)?;
            Some(String::from_utf8_lossy(value.as_bytes()))
        }
        other => pseudo(other, seen),
    }
}

fn pseudo<'a>(source: &HeaderSource, seen: &Seen<'a>) -> Option<Cow<'a, str>> {
    let request = &seen.request;
    match source {
        HeaderSource::Named(_) => None,
        HeaderSource::Method => Some(Cow::Borrowed(request.method.as_str())),
        HeaderSource::Path => Some(match request.query {
            None => Cow::Borrowed(request.path),
            Some(query) => Cow::Owned(format!("{}?{query}", request.path)),
        }),
        HeaderSource::Authority => {
            let host = request.headers.get(HOST)?;
            Some(String::from_utf8_lossy(host.as_bytes()))
        }
        HeaderSource::Scheme => Some(Cow::Borrowed(if seen.tls { "https" } else { "http" })),
    }
}

fn parameter<'a>(request: &RequestView<'a>, name: &str) -> Option<Cow<'a, str>> {
    let sent = request.parameter(name)?;
    Some(match Cow::from(percent_decode(sent)) {
        Cow::Borrowed(plain) => String::from_utf8_lossy(plain),
        Cow::Owned(decoded) => Cow::Owned(String::from_utf8_lossy(&decoded).into_owned()),
    })
}

/// Of several lines each is tested by itself, and one that passes is enough
/// (Envoy).
fn header_matches(matcher: &HeaderMatcher, seen: &Seen<'_>) -> bool {
    let mut values: SmallVec<[Cow<'_, [u8]>; 2]> = match &matcher.header {
        HeaderSource::Named(name) => {
            let lines = seen.request.headers.get_all(name).iter();
            lines.map(|line| Cow::Borrowed(line.as_bytes())).collect()
        }
        other => {
            let value = pseudo(other, seen);
            value
                .map(|text| Cow::Owned(text.into_owned().into_bytes()))
                .into_iter()
                .collect()
        }
    };
    if let HeaderTest::Present(present) = matcher.test {
        let there = !values.is_empty() || matcher.missing_is_empty;
        return (there == present) != matcher.invert;
    }
    if values.is_empty() {
        // What is not there matches nothing, inverted or not (Envoy).
        if !matcher.missing_is_empty {
            return false;
        }
        values.push(Cow::Borrowed(b""));
    }
    values.iter().any(|value| passes(&matcher.test, value)) != matcher.invert
}

fn passes(test: &HeaderTest, value: &[u8]) -> bool {
    match test {
        HeaderTest::Present(present) => *present,
        HeaderTest::Range(from, to) => {
            let number = std::str::from_utf8(value).ok();
            let number = number.and_then(|text| text.parse::<i64>().ok());
            number.is_some_and(|number| (*from..*to).contains(&number))
        }
        HeaderTest::Text(test) => text_matches(test, value),
    }
}

fn parameter_matches(matcher: &ParameterMatcher, request: &RequestView<'_>) -> bool {
    let value = parameter(request, &matcher.name);
    match (&matcher.test, value) {
        (ParameterTest::Present(present), value) => value.is_some() == *present,
        (ParameterTest::Text(_), None) => false,
        (ParameterTest::Text(test), Some(value)) => text_matches(test, value.as_bytes()),
    }
}

fn text_matches(test: &TextTest, text: &[u8]) -> bool {
    let lowered;
    let text = if test.ignore_case {
        lowered = text.to_ascii_lowercase();
        &lowered
    } else {
        text
    };
    match &test.looks_for {
        TextPattern::Exact(wanted) => text == wanted.as_bytes(),
        TextPattern::Prefix(wanted) => text.starts_with(wanted.as_bytes()),
        TextPattern::Suffix(wanted) => text.ends_with(wanted.as_bytes()),
        TextPattern::Contains(wanted) => contains(text, wanted.as_bytes()),
        TextPattern::Regex(regex) => regex.is_match(text),
    }
}

fn contains(text: &[u8], wanted: &[u8]) -> bool {
    wanted.is_empty() || text.windows(wanted.len()).any(|part| part == wanted)
}

#[cfg(test)]
mod tests;
