//! A request as a log has it.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, Method, StatusCode};

use crate::engine::settle::Failure;

/// A request of a log.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// Nanoseconds since 1970 (UTC). When it began; of logs that only say when it ended, that.
    pub(super) at: u64,
    /// Nanoseconds until its response was over; 0 where the log does not say.
    pub(super) took: u64,
    /// Whom it is attributed to, in the canonical form.
    pub(super) client: IpAddr,
    /// The connection's other end, with its port, where the log has both.
    pub(super) peer: Option<SocketAddr>,
    /// The address that the connection came to, where the log has it.
    pub(super) local: Option<SocketAddr>,
    pub(super) method: Method,
    /// As it was sent, without the query.
    pub(super) path: String,
    pub(super) query: Option<String>,
    /// Host and port, as sent; `None`: the log does not say.
    pub(super) host: Option<String>,
    /// Those that the policies look at and the log has.
    pub(super) headers: HeaderMap,
    pub(super) answer: Answered,
    /// What limiterd's own log says of the limits; `None`: another's log.
    pub(super) logged: Option<Logged>,
}

/// What came of a request when it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Answered {
    /// Nobody knows what the upstream would have said: it was not asked.
    #[default]
    Unknown,
    /// It was refused before anybody asked for limits: it is no HTTP that is taken.
    Refused,
    /// A rate limit service that was asked about it denied it.
    DeniedElsewhere,
    Upstream {
        status: StatusCode,
        /// The response ended early.
        broken: bool,
    },
    Failed(Failure),
}

/// The decision on the limits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Logged {
    pub(super) over_limit: bool,
    /// The rule that denied it, or the one with the fewest tokens left; `None`: no limit was met.
    pub(super) rule: Option<String>,
}

impl Answered {
    /// From what a log says: a status, Envoy's response flags, and details, where there are. `met`: it
    /// says that limits were met.
    pub(super) fn new(status: Option<u16>, flags: &str, details: Option<&str>, met: bool) -> Self {
        let flags = || flags.split(',').map(str::trim);
        let any = |wanted: &[&str]| flags().any(|flag| wanted.contains(&flag));
        match details {
            Some("via_upstream") => return Self::upstream(status, any(&["UC"])),
            None | Some("-" | "") => {}
            Some(details) => {
                if let Some(told) = Self::of_details(details, met) {
                    return told;
                }
            }
        }
        if any(&["UO"]) {
            return Self::Failed(Failure::Overload);
        }
        if any(&["UF", "UT", "UC", "LR", "UR"]) {
            return Self::Failed(Failure::Upstream);
        }
        if any(&["DPE"]) && !met {
            return Self::Refused;
        }
        let by_proxy = any(&["RL", "RLSE", "NR", "UH", "NC", "FI", "DPE", "UAEX"]);
        if by_proxy || details.is_some_and(|details| !matches!(details, "-" | "")) {
            return Self::Unknown;
        }
        Self::upstream(status, false)
    }

    /// limiterd's own.
    fn of_details(details: &str, met: bool) -> Option<Self> {
        Some(match details {
            "no_endpoint"
            | "upstream_unreachable"
            | "upstream_broke"
            | "upstream_timeout"
            | "no_upgrade" => Self::Failed(Failure::Upstream),
            "circuit_open" | "pending_timeout" | "admission_control" => {
                Self::Failed(Failure::Overload)
            }
            "request_rate_limited" => Self::DeniedElsewhere,
            "bad_request" | "connect" | "no_client_address" | "http_1_0" | "head_too_large"
            | "body_too_large" | "misdirected"
                if !met =>
            {
                Self::Refused
            }
            _ => return None,
        })
    }

    fn upstream(status: Option<u16>, broken: bool) -> Self {
        let status = status.and_then(|status| StatusCode::from_u16(status).ok());
        // 429 without a word about whose it is: of a limiter, most likely.
        match status {
            Some(status) if status != StatusCode::TOO_MANY_REQUESTS => {
                Self::Upstream { status, broken }
            }
            _ => Self::Unknown,
        }
    }
}
