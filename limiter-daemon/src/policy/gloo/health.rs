//! `healthChecks` and `outlierDetection` of upstreams, as Envoy's first API has them.

use std::ops::RangeInclusive;
use std::time::Duration;

use http::Method;
use serde::Deserialize;

use crate::policy::decode::{At, Unheeded, Unsupported};
use crate::policy::envoy_gateway::backend_traffic_policy::health_check::{
    check_path, host, method,
};
use crate::policy::findings::Scope;
use crate::policy::plan::{HealthCheck, OutlierDetection, Probe};
use crate::policy::units;

const MAX_PAYLOAD: usize = 1024;
const MAX_PAYLOADS: usize = 16;
const MAX_RANGES: usize = 64;
/// Envoy's default of `interval` of `outlierDetection`.
const INTERVAL: Duration = Duration::from_secs(10);

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "unsupported fields are told by the decoder")]
pub(super) struct RawHealthCheck {
    timeout: At<String>,
    interval: At<String>,
    initial_jitter: Option<At<String>>,
    interval_jitter: Option<Unheeded>,
    interval_jitter_percent: Option<Unheeded>,
    unhealthy_threshold: At<u32>,
    healthy_threshold: At<u32>,
    reuse_connection: Option<Unheeded>,
    http_health_check: Option<At<RawHttp>>,
    tcp_health_check: Option<At<RawTcp>>,
    grpc_health_check: Option<At<RawGrpc>>,
    custom_health_check: Option<Unsupported>,
    no_traffic_interval: Option<Unheeded>,
    unhealthy_interval: Option<Unheeded>,
    unhealthy_edge_interval: Option<Unheeded>,
    healthy_edge_interval: Option<Unheeded>,
    event_log_path: Option<Unheeded>,
    always_log_health_check_failures: Option<Unheeded>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "unsupported fields are told by the decoder")]
struct RawHttp {
    host: Option<At<String>>,
    path: At<String>,
    method: Option<At<String>>,
    expected_statuses: Option<At<Vec<At<RawRange>>>>,
    service_name: Option<Unsupported>,
    request_headers_to_add: Option<Unsupported>,
    request_headers_to_remove: Option<Unsupported>,
    use_http2: Option<Unsupported>,
    response_assertions: Option<Unsupported>,
}

#[derive(Debug, Deserialize)]
struct RawRange {
    start: At<u16>,
    end: At<u16>,
}

#[derive(Debug, Deserialize)]
struct RawTcp {
    send: Option<At<RawPayload>>,
    receive: Option<At<Vec<At<RawPayload>>>>,
}

#[derive(Debug, Deserialize)]
struct RawPayload {
    text: At<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "unsupported fields are told by the decoder")]
struct RawGrpc {
    service_name: Option<String>,
    authority: Option<Unsupported>,
    initial_metadata: Option<Unsupported>,
}

/// Checks `healthChecks`; `None`: hosts are not asked, or after an error.
pub(super) fn checks(
    list: At<Vec<At<RawHealthCheck>>>,
    scope: &mut Scope<'_>,
) -> Option<HealthCheck> {
    let mut checks = list.value.into_iter();
    let At { value: raw, mark } = checks.next()?;
    if let Some(second) = checks.next() {
        let message = "hosts are asked in one way";
        scope.error(&second.mark, message, "keep one of the checks");
    }
    let probe = match (
        raw.http_health_check,
        raw.tcp_health_check,
        raw.grpc_health_check,
    ) {
        (Some(http), None, None) => Some(self::http(http.value, scope)),
        (None, Some(tcp), None) => Some(self::tcp(tcp.value, scope)),
        (None, None, Some(grpc)) => Some(Some(Probe::Grpc {
            service: grpc.value.service_name.unwrap_or_default(),
        })),
        _ => None,
    };
    if probe.is_none() && raw.custom_health_check.is_none() {
        scope.error(
            &mark,
            "hosts are asked in one way",
            "give it one of `httpHealthCheck`, `tcpHealthCheck` and `grpcHealthCheck`",
        );
    }
    for at in [&raw.unhealthy_threshold, &raw.healthy_threshold] {
        if at.value == 0 {
            scope.error(&at.mark, "0 is not possible", "write 1 or more");
        }
    }
    let initial_jitter = raw.initial_jitter.as_ref();
    Some(HealthCheck {
        timeout: units::positive_duration(&raw.timeout, scope)?,
        interval: units::positive_duration(&raw.interval, scope)?,
        initial_jitter: initial_jitter.and_then(|text| units::bound(text, scope)?),
        unhealthy_threshold: raw.unhealthy_threshold.value,
        healthy_threshold: raw.healthy_threshold.value,
        probe: probe??,
    })
}

fn http(raw: RawHttp, scope: &mut Scope<'_>) -> Option<Probe> {
    check_path(&raw.path, scope);
    let host = raw.host.filter(|text| !text.is_empty());
    let host = host.map(|text| self::host(&text, scope));
    let method = raw.method.filter(|text| !text.is_empty());
    let method = method.map(|text| self::method(&text, scope));
    let statuses = raw.expected_statuses.filter(|list| !list.is_empty());
    let expected_statuses = match statuses {
        None => Some(vec![200..=200]),
        Some(list) => {
            scope.at_most(&list.mark, list.len(), MAX_RANGES);
            let ranges: Vec<_> = list.value.iter().map(|at| range(at, scope)).collect();
            ranges.into_iter().collect()
        }
    };
    Some(Probe::Http {
        host: match host {
            Some(host) => Some(host?),
            None => None,
        },
        path: raw.path.value,
        method: method.unwrap_or(Some(Method::GET))?,
        expected_statuses: expected_statuses?,
        expected_body: None,
    })
}

/// Statuses from `start` up to one before `end`.
fn range(at: &At<RawRange>, scope: &mut Scope<'_>) -> Option<RangeInclusive<u16>> {
    let (start, end) = (at.value.start.value, at.value.end.value);
    if start < 100 || end > 600 || start >= end {
        scope.error(
            &at.mark,
            format!("no status is from {start} up to, but not including, {end}"),
            "write 100 to 599 as `start`, and a greater `end` of at most 600",
        );
        return None;
    }
    Some(start..=end - 1)
}

fn tcp(raw: RawTcp, scope: &mut Scope<'_>) -> Option<Probe> {
    let send = match raw.send {
        Some(send) => payload(&send, scope)?,
        None => Vec::new(),
    };
    let receive = match raw.receive {
        Some(list) => {
            scope.at_most(&list.mark, list.len(), MAX_PAYLOADS);
            let all: Vec<_> = list.value.iter().map(|at| payload(at, scope)).collect();
            all.into_iter().collect::<Option<_>>()?
        }
        None => Vec::new(),
    };
    Some(Probe::Tcp { send, receive })
}

/// Bytes that are written in hexadecimal.
fn payload(at: &At<RawPayload>, scope: &mut Scope<'_>) -> Option<Vec<u8>> {
    let text = &at.value.text;
    let pairs = text.as_bytes().chunks(2);
    let byte = |pair: &[u8]| match pair {
        [high, low] => {
            let digit = |byte: u8| char::from(byte).to_digit(16);
            u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()
        }
        _ => None,
    };
    let bytes: Option<Vec<u8>> = pairs.map(byte).collect();
    let bytes = bytes.filter(|bytes| (1..=MAX_PAYLOAD).contains(&bytes.len()));
    if bytes.is_none() {
        scope.error(
            &text.mark,
            format!("`{}` are not bytes in hexadecimal", text.value),
            format!("write 1 to {MAX_PAYLOAD} of them, as `50494e47`"),
        );
    }
    bytes
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "unsupported fields are told by the decoder")]
pub(super) struct RawOutliers {
    #[serde(rename = "consecutive5xx", alias = "consecutive5Xx")]
    consecutive_5xx: Option<u32>,
    interval: Option<At<String>>,
    base_ejection_time: Option<At<String>>,
    max_ejection_percent: Option<At<u32>>,
    #[serde(rename = "enforcingConsecutive5xx", alias = "enforcingConsecutive5Xx")]
    enforcing_consecutive_5xx: Option<At<u32>>,
    consecutive_gateway_failure: Option<At<u32>>,
    enforcing_consecutive_gateway_failure: Option<At<u32>>,
    split_external_local_origin_errors: Option<bool>,
    consecutive_local_origin_failure: Option<At<u32>>,
    enforcing_consecutive_local_origin_failure: Option<At<u32>>,
    enforcing_success_rate: Option<At<u32>>,
    success_rate_minimum_hosts: Option<Unheeded>,
    success_rate_request_volume: Option<Unheeded>,
    success_rate_stdev_factor: Option<Unheeded>,
    enforcing_local_origin_success_rate: Option<At<u32>>,
}

/// Checks `outlierDetection`; what it does not say is as Envoy has it.
pub(super) fn outliers(raw: RawOutliers, scope: &mut Scope<'_>) -> OutlierDetection {
    let default = OutlierDetection::default();
    for at in [
        &raw.enforcing_success_rate,
        &raw.enforcing_local_origin_success_rate,
    ] {
        if let Some(at) = at.as_ref().filter(|at| at.value > 0) {
            scope.error(
                &at.mark,
                "hosts are not ejected by their rate of success beside that of others yet",
                "write 0, and eject by `consecutive5xx`",
            );
        }
    }
    let time = |text: &Option<At<String>>, default, scope: &mut Scope<'_>| {
        let given = text.as_ref();
        given
            .and_then(|text| units::positive_duration(text, scope))
            .unwrap_or(default)
    };
    let interval = time(&raw.interval, INTERVAL, scope);
    let base_ejection_time = time(&raw.base_ejection_time, default.base_ejection_time, scope);
    let most = raw.max_ejection_percent;
    if let Some(at) = most.as_ref().filter(|at| at.value > 100) {
        let message = format!("{} is more than all", at.value);
        scope.error(&at.mark, message, "write a percentage, 0 to 100");
    }
    let by_5xx = enforced(raw.enforcing_consecutive_5xx.as_ref(), true, scope);
    let by_gateway = enforced(
        raw.enforcing_consecutive_gateway_failure.as_ref(),
        false,
        scope,
    );
    if let Some(at) = raw
        .consecutive_gateway_failure
        .as_ref()
        .filter(|_| !by_gateway)
    {
        scope.warning(
            &at.mark,
            "no host is ejected for it",
            "add `enforcingConsecutiveGatewayFailure: 100`, or remove it",
        );
    }
    let local = raw.enforcing_consecutive_local_origin_failure.as_ref();
    let by_local = enforced(local, true, scope);
    let split = raw.split_external_local_origin_errors.unwrap_or_default();
    if let Some(at) = raw
        .consecutive_local_origin_failure
        .as_ref()
        .filter(|_| !split)
    {
        scope.warning(
            &at.mark,
            "it has no effect without `splitExternalLocalOriginErrors: true`",
            "add that, or remove this",
        );
    }
    let count = |given: Option<u32>, is: bool| Some(given.unwrap_or(5)).filter(|n| is && *n > 0);
    let value = |at: Option<At<u32>>| at.map(|at| at.value);
    OutlierDetection {
        interval,
        consecutive_5xx: count(raw.consecutive_5xx, by_5xx),
        consecutive_gateway_errors: count(value(raw.consecutive_gateway_failure), by_gateway),
        split_local_origin: split,
        consecutive_local_origin_failures: count(
            value(raw.consecutive_local_origin_failure),
            by_local,
        ),
        failure_percentage: None,
        base_ejection_time,
        max_ejection_percent: most.map_or(default.max_ejection_percent, |at| at.value.min(100)),
        always_eject_one: false,
    }
}

/// Whether hosts are ejected: for all that is counted, or for nothing of it.
fn enforced(at: Option<&At<u32>>, default: bool, scope: &mut Scope<'_>) -> bool {
    match at.map(|at| (at.value, &at.mark)) {
        None => default,
        Some((0, _)) => false,
        Some((100, _)) => true,
        Some((percent, mark)) => {
            scope.error(
                mark,
                format!("to eject in {percent} % of the cases is not supported"),
                "write 100, or 0 for never",
            );
            default
        }
    }
}
