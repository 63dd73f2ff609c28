//! `admissionControl`: requests are refused while too many of them fail.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde::Deserialize;

use super::merge::{by_field, whole};
use super::numbers;
use crate::policy::decode::At;
use crate::policy::findings::Scope;
use crate::policy::plan::{self, Fraction};

const SUCCESS: RangeInclusive<u32> = 1..=100;
const REJECTION: RangeInclusive<u32> = 0..=100;
const AGGRESSION: RangeInclusive<u32> = 1..=10;
/// The rate of requests is counted by the second.
const LEAST_WINDOW: Duration = Duration::from_secs(1);
const WINDOW: Duration = Duration::from_secs(30);

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawAdmissionControl {
    sampling_window: Option<At<String>>,
    min_success_rate: Option<At<u32>>,
    rejection_aggression: Option<At<u32>>,
    min_request_rate: Option<u32>,
    max_rejection_percent: Option<At<u32>>,
    success_criteria: Option<RawCriteria>,
}

#[derive(Debug, Deserialize)]
struct RawCriteria {
    http: Option<RawHttp>,
    grpc: Option<RawGrpc>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawHttp {
    status_codes: Option<At<Vec<At<u16>>>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawGrpc {
    status_codes: Option<At<Vec<GrpcStatus>>>,
}

/// In the order of their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[repr(u8)]
enum GrpcStatus {
    Ok,
    Cancelled,
    Unknown,
    InvalidArgument,
    DeadlineExceeded,
    NotFound,
    AlreadyExists,
    PermissionDenied,
    ResourceExhausted,
    FailedPrecondition,
    Aborted,
    OutOfRange,
    Unimplemented,
    Internal,
    Unavailable,
    DataLoss,
    Unauthenticated,
}

/// What Envoy takes for success: what the caller, not the server, is to blame for.
const GRPC_SUCCESS: [GrpcStatus; 11] = [
    GrpcStatus::Ok,
    GrpcStatus::Cancelled,
    GrpcStatus::Unknown,
    GrpcStatus::InvalidArgument,
    GrpcStatus::NotFound,
    GrpcStatus::AlreadyExists,
    GrpcStatus::PermissionDenied,
    GrpcStatus::FailedPrecondition,
    GrpcStatus::OutOfRange,
    GrpcStatus::Unimplemented,
    GrpcStatus::Unauthenticated,
];

#[derive(Clone, Debug, Default)]
pub(crate) struct AdmissionControl {
    sampling_window: Option<Duration>,
    min_success_rate: Option<u32>,
    aggression: Option<u32>,
    min_request_rate: Option<u32>,
    max_rejection: Option<u32>,
    http_success: Option<BTreeSet<u16>>,
    grpc_success: Option<Vec<GrpcStatus>>,
}

by_field!(AdmissionControl {
    sampling_window,
    min_success_rate,
    aggression,
    min_request_rate,
    max_rejection,
    http_success,
    grpc_success,
});
whole!(Vec<GrpcStatus>);

/// Checks `admissionControl`.
pub(super) fn lower(raw: RawAdmissionControl, scope: &mut Scope<'_>) -> AdmissionControl {
    let (http, grpc) = raw
        .success_criteria
        .map(|criteria| {
            let http = criteria.http.and_then(|http| http.status_codes);
            (http, criteria.grpc.and_then(|grpc| grpc.status_codes))
        })
        .unwrap_or_default();
    if let Some(list) = grpc.as_ref().filter(|list| list.is_empty()) {
        scope.error(&list.mark, "no statuses", "write at least one, as `[Ok]`");
    }
    let number = |at: Option<At<u32>>, range, scope: &mut Scope<'_>| {
        at.and_then(|at| numbers::within(&at, range, scope))
    };
    AdmissionControl {
        sampling_window: numbers::time_of_at_least(
            raw.sampling_window.as_ref(),
            LEAST_WINDOW,
            scope,
        ),
        min_success_rate: number(raw.min_success_rate, &SUCCESS, scope),
        aggression: number(raw.rejection_aggression, &AGGRESSION, scope),
        min_request_rate: raw.min_request_rate,
        max_rejection: number(raw.max_rejection_percent, &REJECTION, scope),
        http_success: http.and_then(|list| numbers::statuses(&list, scope)),
        grpc_success: grpc.map(|list| list.value),
    }
}

impl AdmissionControl {
    pub(super) fn plan(&self) -> plan::AdmissionControl {
        let numbers = |list: &[GrpcStatus]| {
            numbers::ranges(&list.iter().map(|status| u16::from(*status as u8)).collect())
        };
        plan::AdmissionControl {
            sampling_window: self.sampling_window.unwrap_or(WINDOW),
            min_success_rate: Fraction::percent(self.min_success_rate.unwrap_or(95)),
            aggression: f64::from(self.aggression.unwrap_or(1)),
            min_request_rate: self.min_request_rate.unwrap_or(0),
            max_rejection: Fraction::percent(self.max_rejection.unwrap_or(80)),
            http_success: self
                .http_success
                .as_ref()
                .map_or_else(|| vec![100..=499], numbers::ranges),
            grpc_success: self
                .grpc_success
                .as_deref()
                .map_or_else(|| numbers(&GRPC_SUCCESS), numbers),
        }
    }
}
