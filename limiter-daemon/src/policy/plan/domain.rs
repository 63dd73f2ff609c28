//! Limits that Envoy's rate limit service protocol asks about: domains and their descriptors.

use std::collections::BTreeMap;
use std::sync::Arc;

use limiter_common::Limit;

use super::{Algorithm, Written};

/// What hits beyond are near a limit, in millionths of it: the reference service's default.
const NEAR: u32 = 800_000;

/// The entry that a descriptor which is a set begins with, as Gloo's gateways and its server have it.
pub const SET_MARK: (&str, &str) = ("generic_key", "solo.setDescriptor.uniqueValue");

/// A domain: what requests that name it are limited by.
#[derive(Clone, Debug, PartialEq)]
pub struct Domain {
    pub name: String,
    /// How its limits count.
    pub algorithm: Algorithm,
    /// What its counts are called in a store that nodes share.
    pub keys: DomainKeys,
    /// What holds while that store does not answer.
    pub on_store_failure: OnDomainFailure,
    /// It says what it would deny, and denies nothing.
    pub shadow: bool,
    /// All its limits are quotas.
    pub quota: bool,
    /// Millionths of a limit beyond which hits are near it.
    pub near: u32,
    /// In the order of the files.
    pub descriptors: Vec<Descriptor>,
    /// What holds of descriptors that begin with [`SET_MARK`], in their order; `None`: the mark means
    /// nothing here.
    pub sets: Option<Vec<SetRule>>,
    /// A part of it was never valid: nothing can be said of its requests, and why.
    pub broken: Option<String>,
}

impl Domain {
    /// A domain without limits, which counts as the reference service does.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            algorithm: Algorithm::FixedWindow,
            keys: DomainKeys::Own,
            on_store_failure: OnDomainFailure::default(),
            shadow: false,
            quota: false,
            near: NEAR,
            descriptors: Vec::new(),
            sets: None,
            broken: None,
        }
    }
}

/// What counts of a domain are called in a store that nodes share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum DomainKeys {
    /// By limiterd: with a hash tag, and without the values of requests.
    #[default]
    Own,
    /// As the reference service calls them, so that both count together. Fixed windows only.
    Reference {
        /// What keys begin with (`CACHE_KEY_PREFIX` there).
        prefix: String,
    },
}

/// What holds of a domain while the store that counts its limits does not answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnDomainFailure {
    /// Questions are answered with an error; who asks has a failure mode.
    #[default]
    Error,
    /// The node counts in its own memory, where limits are full ones at first.
    Local,
    /// Its limits are not there.
    Allow,
    /// Requests that meet one are denied.
    Deny,
}

impl OnDomainFailure {
    pub const ALL: [Self; 4] = [Self::Error, Self::Local, Self::Allow, Self::Deny];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Local => "local",
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

/// A node of a domain's tree: what one entry of a descriptor must be like, and what holds then.
#[derive(Clone, Debug, PartialEq)]
pub struct Descriptor {
    pub key: String,
    pub value: EntryValue,
    /// All values that a pattern matches are counted together.
    pub share_threshold: bool,
    /// Its values are told in statistics, unless they are counted together.
    pub value_to_metric: bool,
    pub limit: Option<DomainLimit>,
    pub descriptors: Vec<Self>,
}

impl Descriptor {
    /// `key_value`, or `key`: the reference service's name for it in statistics.
    #[must_use]
    pub fn label(&self) -> String {
        match &self.value {
            EntryValue::Any => self.key.clone(),
            EntryValue::Is(value) | EntryValue::Like(value) => format!("{}_{value}", self.key),
        }
    }
}

/// A limit on descriptors that are sets: on those that have all of its entries, whatever their order
/// and whatever else they have.
#[derive(Clone, Debug, PartialEq)]
pub struct SetRule {
    /// Keys and values, in order and none twice; of a key without a value each value has a count of
    /// its own. Empty: it is met by every set.
    pub entries: Vec<(String, Option<String>)>,
    pub limit: DomainLimit,
}

/// The value of an entry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum EntryValue {
    /// Any; each has a count of its own.
    Any,
    Is(String),
    /// One like this, in which each `*` stands for any text, also for none; each has a count of its
    /// own, unless they share.
    Like(String),
}

/// A limit of a domain.
#[derive(Clone, Debug, PartialEq)]
pub struct DomainLimit {
    pub amount: Amount,
    /// Told to clients, and what `replaces` of other limits refer to.
    pub name: Option<String>,
    /// Names of limits that do not apply where this one does.
    pub replaces: Vec<String>,
    /// Counts what would be denied, denies nothing.
    pub shadow: bool,
    /// Denies only if all such limits that a request meets are over.
    pub quota: bool,
    /// All values are told in its statistics, unless they are counted together.
    pub detailed: bool,
    /// Told with requests that conform.
    pub metadata: Option<Metadata>,
    /// Of the limits in a tree that a request meets, those with the highest weight are counted and may
    /// deny. The others are not there.
    pub weight: u32,
    /// It is counted and may deny whatever its weight, or, of a rule of sets, its place.
    pub always: bool,
    /// Where it is written, if anywhere.
    pub written: Option<Arc<Written>>,
}

/// Names and values that files give a limit.
pub type Metadata = BTreeMap<String, MetadataValue>;

/// One of them.
#[derive(Clone, Debug, PartialEq)]
pub enum MetadataValue {
    Null,
    Bool(bool),
    Number(f64),
    Text(String),
    List(Vec<Self>),
    Map(Metadata),
}

/// How much a limit of a domain admits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// Everything. Only where a file says so.
    Unlimited,
    /// Nothing (`requests_per_unit: 0`).
    Nothing(TimeUnit),
    PerUnit {
        requests: u32,
        unit: TimeUnit,
        /// The same as a token bucket.
        limit: Limit,
    },
}

/// The unit of time of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TimeUnit {
    Second,
    Minute,
    Hour,
    Day,
    Week,
    /// 30 days.
    Month,
    /// 365 days.
    Year,
}

impl TimeUnit {
    pub const ALL: [Self; 7] = [
        Self::Second,
        Self::Minute,
        Self::Hour,
        Self::Day,
        Self::Week,
        Self::Month,
        Self::Year,
    ];

    #[must_use]
    pub const fn seconds(self) -> u64 {
        match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::Hour => 3_600,
            Self::Day => 86_400,
            Self::Week => 7 * 86_400,
            Self::Month => 30 * 86_400,
            Self::Year => 365 * 86_400,
        }
    }

    /// As files and the JSON form write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Second => "second",
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
            Self::Year => "year",
        }
    }
}
