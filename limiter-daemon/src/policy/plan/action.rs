//! Descriptors: what a rate limit service is told of a request, and the actions that make them.
//!
//! As Envoy has them (`config.route.v3.RateLimit`). Each descriptor is a list of entries, a key and a
//! value each; each action yields one entry, or says that there is no such descriptor.

use http::HeaderName;
use ipnet::IpNet;
use regex::bytes::Regex;

use super::TimeUnit;

/// A descriptor of requests: what it is made of, and how it is counted.
#[derive(Clone, Debug)]
pub struct DescriptorRule {
    /// Which filters it is for, 0 to 10.
    pub stage: u8,
    /// A setting that may switch it off for a part of the requests; empty: none.
    pub disable_key: String,
    /// In their order; never empty.
    pub actions: Vec<Action>,
    /// Applies instead of what the service is configured with.
    pub limit: Option<LimitOverride>,
    /// `None`: as the service has it, usually 1.
    pub hits: Option<HitsAddend>,
    /// It is sent when the response is over, and nobody waits for the answer.
    pub at_the_end: bool,
    /// Whether clients are told of it in `X-RateLimit-*`; `None`: as the filter has it.
    pub headers: Option<bool>,
}

/// A limit that a descriptor brings along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitOverride {
    pub requests: u32,
    pub unit: TimeUnit,
}

/// What a request counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HitsAddend {
    /// 0: it is only asked.
    pub number: u64,
    /// They are given back.
    pub negative: bool,
}

/// What yields an entry of a descriptor. Where nothing else is said, one that has no value to yield
/// means that there is no descriptor.
#[derive(Clone, Debug)]
pub enum Action {
    /// Who asks: [`Asking::source`](super::Asking).
    SourceCluster,
    /// The backend that the request goes to.
    DestinationCluster,
    /// The client's address.
    RemoteAddress,
    /// The network that the client's address is in, by the lengths of its prefix (0 to 32, 0 to 128).
    MaskedRemoteAddress {
        v4: u8,
        v6: u8,
    },
    RequestHeader {
        header: HeaderSource,
        key: String,
        /// Without the header there is no entry, and a descriptor all the same.
        skip_if_absent: bool,
    },
    /// The first parameter of this name, percent-decoded.
    QueryParameter {
        name: String,
        key: String,
        skip_if_absent: bool,
    },
    GenericKey {
        key: String,
        value: String,
    },
    /// If all of `headers` match, or (`expect: false`) not all.
    HeaderMatch {
        key: String,
        value: String,
        expect: bool,
        headers: Vec<HeaderMatcher>,
    },
    /// If all of `parameters` match, or (`expect: false`) not all.
    QueryMatch {
        key: String,
        value: String,
        expect: bool,
        parameters: Vec<ParameterMatcher>,
    },
    /// If the client's address is in any of `nets`, or (`invert`) in none.
    AddressMatch {
        key: String,
        value: String,
        nets: Vec<IpNet>,
        invert: bool,
    },
    /// Yields nothing, and does no harm.
    Skip,
}

/// What a header is looked for in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderSource {
    Named(HeaderName),
    /// `:method`
    Method,
    /// `:path`, with the query.
    Path,
    /// `:authority`, or the host that the request is for.
    Authority,
    /// `:scheme`
    Scheme,
}

/// A test of a header.
#[derive(Clone, Debug)]
pub struct HeaderMatcher {
    pub header: HeaderSource,
    pub test: HeaderTest,
    /// It matches where the test fails; not where there is no header, unless presence is the test.
    pub invert: bool,
    /// A header that is not there counts as an empty one.
    pub missing_is_empty: bool,
}

#[derive(Clone, Debug)]
pub enum HeaderTest {
    /// It is there, or (`false`) it is not.
    Present(bool),
    /// A whole number from the first to before the second.
    Range(i64, i64),
    Text(TextTest),
}

/// A test of a parameter of the query.
#[derive(Clone, Debug)]
pub struct ParameterMatcher {
    pub name: String,
    pub test: ParameterTest,
}

#[derive(Clone, Debug)]
pub enum ParameterTest {
    /// It is there, or (`false`) it is not.
    Present(bool),
    Text(TextTest),
}

/// A test of a text. Without regard to the case of ASCII letters, what is looked for is in lower case.
#[derive(Clone, Debug)]
pub struct TextTest {
    pub looks_for: TextPattern,
    pub ignore_case: bool,
}

#[derive(Clone, Debug)]
pub enum TextPattern {
    Exact(String),
    Prefix(String),
    Suffix(String),
    Contains(String),
    /// Must match the whole text.
    Regex(Regex),
}
