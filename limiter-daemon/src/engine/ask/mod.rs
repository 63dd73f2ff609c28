//! Asking a rate limit service about a request (Envoy's HTTP rate limit filter): what is asked, by
//! whom, and what the answer means. Who answers is behind [`RateLimitService`].

mod own;
mod stats;
pub(crate) mod words;

use std::borrow::Cow;
use std::fmt::Debug;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use smallvec::SmallVec;

use super::descriptors::{Descriptor, Seen, descriptor};
use super::runtime::{Percent, Runtime};
use super::time::Now;
use crate::policy::plan::runtime::{ENABLED, ENFORCING, of_key};
use crate::policy::plan::{self, AskFilter, AskedService, DescriptorRule, RequestType, TimeUnit};
pub use own::OwnService;
pub use stats::{AskCounts, AskStat, AskStats};

/// Answers questions about requests.
pub trait RateLimitService: Debug + Send + Sync {
    /// The answer may come at once, or later; who asks sees to it that it does not wait for ever.
    fn ask(&self, question: &Question<'_>, now: Now) -> Answer;
}

/// Finds who answers.
pub trait Services: Debug + Send + Sync {
    fn find(&self, service: &AskedService) -> Arc<dyn RateLimitService>;
}

/// What is asked about a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question<'a> {
    pub domain: Cow<'a, str>,
    /// Never empty.
    pub descriptors: SmallVec<[Descriptor<'a>; 2]>,
}

impl Question<'_> {
    /// The same, for later.
    #[must_use]
    pub fn into_owned(self) -> Question<'static> {
        let descriptors = self.descriptors.into_iter();
        Question {
            domain: Cow::Owned(self.domain.into_owned()),
            descriptors: descriptors.map(Descriptor::into_owned).collect(),
        }
    }
}

/// When a service answers.
pub enum Answer {
    Ready(Result<Reply, Failure>),
    Pending(Pin<Box<dyn Future<Output = Result<Reply, Failure>> + Send>>),
}

impl Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ready(reply) => f.debug_tuple("Ready").field(reply).finish(),
            Self::Pending(_) => f.write_str("Pending"),
        }
    }
}

/// What a service says of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    pub over_limit: bool,
    /// One for each descriptor, in their order, of a service that keeps to the protocol.
    pub statuses: SmallVec<[ReplyStatus; 2]>,
    pub response_headers: Vec<(HeaderName, HeaderValue)>,
    pub request_headers: Vec<(HeaderName, HeaderValue)>,
    /// Of the answer to a request that is denied.
    pub body: Bytes,
}

/// What a service says of a descriptor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplyStatus {
    pub over_limit: bool,
    /// `None`: nothing limits it.
    pub limit: Option<ReplyLimit>,
    pub remaining: u64,
    /// Whole seconds.
    pub reset: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplyLimit {
    pub requests: u32,
    /// `None`: the service did not say.
    pub unit: Option<TimeUnit>,
    /// Empty: it has none.
    pub name: String,
}

/// Why a service says nothing of a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    #[error("no answer in time")]
    Late,
    #[error("not connected")]
    Disconnected,
    /// The service, or what is between.
    #[error("{0}")]
    Refused(String),
}

/// A filter on a rule of a route, ready to ask.
#[derive(Debug)]
pub struct Asking {
    pub filter: Arc<AskFilter>,
    pub service: Arc<dyn RateLimitService>,
    domain: String,
    pub source: String,
    descriptors: Vec<(Arc<DescriptorRule>, Option<Arc<Percent>>)>,
    enabled: Arc<Percent>,
    enforcing: Arc<Percent>,
}

/// What is asked about a request; what is `None` is not asked.
#[derive(Debug, Default)]
pub struct Questions<'a> {
    /// Before it goes on.
    pub first: Option<Question<'a>>,
    /// When its response is over.
    pub last: Option<Question<'a>>,
}

impl Asking {
    #[must_use]
    pub fn compile(asking: &plan::Asking, services: &dyn Services, runtime: &Runtime) -> Self {
        let descriptors = asking.descriptors.iter().map(|rule| {
            let key = Some(&rule.disable_key).filter(|key| !key.is_empty());
            let switch = key.map(|key| runtime.cell(&of_key(key)));
            (Arc::clone(rule), switch)
        });
        Self {
            service: services.find(&asking.filter.service),
            filter: Arc::clone(&asking.filter),
            domain: asking.domain.clone(),
            source: asking.source.clone(),
            descriptors: descriptors.collect(),
            enabled: runtime.cell(ENABLED),
            enforcing: runtime.cell(ENFORCING),
        }
    }

    /// What is asked about a request. `internal`: it says that it is (`x-envoy-internal`), and may say
    /// so. `random` draws evenly spread numbers.
    pub fn questions<'a>(
        &'a self,
        seen: &Seen<'a>,
        internal: bool,
        random: &mut dyn FnMut() -> u64,
    ) -> Questions<'a> {
        let ours = match self.filter.requests {
            RequestType::Both => true,
            RequestType::Internal => internal,
            RequestType::External => !internal,
        };
        if !self.enabled.takes(random()) || !ours {
            return Questions::default();
        }
        let seen = Seen {
            source: &self.source,
            ..*seen
        };
        let (mut first, mut last) = (SmallVec::new(), SmallVec::new());
        for (rule, switch) in &self.descriptors {
            if switch
                .as_ref()
                .is_some_and(|switch| !switch.takes(random()))
            {
                continue;
            }
            let list = if rule.at_the_end {
                &mut last
            } else {
                &mut first
            };
            list.extend(descriptor(rule, &seen));
        }
        let question = |descriptors: SmallVec<[Descriptor<'a>; 2]>| {
            (!descriptors.is_empty()).then_some(Question {
                domain: Cow::Borrowed(self.domain.as_str()),
                descriptors,
            })
        };
        Questions {
            first: question(first),
            last: question(last),
        }
    }

    /// Whether a request is denied if the answer says so, for which `random` was drawn.
    #[must_use]
    pub fn enforces(&self, random: u64) -> bool {
        self.enforcing.takes(random)
    }
}

/// Where there is nobody to ask but limiterd itself, if at all: for plans that are looked at only.
#[derive(Debug, Default)]
pub struct Nobody;

impl Services for Nobody {
    fn find(&self, _service: &AskedService) -> Arc<dyn RateLimitService> {
        Arc::new(Self)
    }
}

impl RateLimitService for Nobody {
    fn ask(&self, _question: &Question<'_>, _now: Now) -> Answer {
        Answer::Ready(Err(Failure::Disconnected))
    }
}

/// Says the same of every question.
#[derive(Debug)]
pub struct Failing(pub String);

impl RateLimitService for Failing {
    fn ask(&self, _question: &Question<'_>, _now: Now) -> Answer {
        Answer::Ready(Err(Failure::Refused(self.0.clone())))
    }
}

#[cfg(test)]
mod tests;
