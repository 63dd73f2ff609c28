//! How requests and backends are treated besides limits, in words.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::words::{clean, header_changes, redirect};
use crate::policy::plan::{
    Abort, AdmissionControl, BackendSettings, Balancing, CircuitBreaker, Fault, Fraction, HashBy,
    HealthCheck, LoadBalancer, LookupFamily, OutlierDetection, Probe, Replacement,
    ResponseOverride, ResponseSource, Retry, RouteTraffic, TcpKeepalive,
};

/// A share, as `12.5 %`.
fn share(fraction: Fraction) -> String {
    if 100 % fraction.denominator == 0 {
        let percent = u64::from(fraction.numerator) * u64::from(100 / fraction.denominator);
        return format!("{percent} %");
    }
    // Parts of a million are percent with four decimals, which is how policies give them.
    match fraction.denominator {
        1_000_000 => format!("{} %", fraction.as_f64() * 100.0),
        denominator => format!("{} of {denominator}", fraction.numerator),
    }
}

/// Statuses, as `200, 500 to 599`.
fn statuses(ranges: &[RangeInclusive<u16>]) -> String {
    let ranges: Vec<String> = ranges
        .iter()
        .map(|range| match (range.start(), range.end()) {
            (start, end) if start == end => start.to_string(),
            (start, end) => format!("{start} to {end}"),
        })
        .collect();
    ranges.join(", ")
}

/// What is done to the requests of a rule.
pub(crate) fn traffic(traffic: &RouteTraffic) -> Vec<String> {
    let mut said = Vec::new();
    said.extend(traffic.retry.as_ref().map(retry));
    said.extend(
        traffic
            .max_stream_duration
            .map(|time| format!("at most {time:?} for a request and its response")),
    );
    said.extend(
        traffic
            .stream_idle
            .map(|time| format!("at most {time:?} between two pieces")),
    );
    if traffic.stream_idle_unbounded {
        said.push("any time between two pieces".to_owned());
    }
    if let Some(fault) = &traffic.fault {
        faults(fault, &mut said);
    }
    said.extend(traffic.overrides.iter().map(override_of));
    said.extend(
        traffic
            .request_buffer
            .map(|bytes| format!("requests are read whole first, up to {bytes} bytes")),
    );
    said.extend(traffic.admission_control.as_ref().map(admission));
    said
}

fn retry(retry: &Retry) -> String {
    let mut on: Vec<String> = retry
        .triggers
        .iter()
        .map(|trigger| trigger.name().to_owned())
        .collect();
    if !retry.statuses.is_empty() {
        let codes: Vec<String> = retry.statuses.iter().map(u16::to_string).collect();
        for name in &mut on {
            if name == "retriable-status-codes" {
                *name = format!("{name} ({})", codes.join(", "));
            }
        }
    }
    let methods = if retry.any_method {
        "every method"
    } else {
        "idempotent methods"
    };
    let times = if retry.max_retries == 1 {
        "once".to_owned()
    } else {
        format!("{} times", retry.max_retries)
    };
    let mut text = format!(
        "retried at most {times}, {methods}, on {}, after up to {:?} growing to {:?}",
        on.join(", "),
        retry.base_interval,
        retry.max_interval
    );
    if let Some(time) = retry.per_try_timeout {
        text += &format!(", {time:?} for each attempt");
    }
    text
}

fn aborted(abort: Abort) -> String {
    match abort {
        Abort::Http(status) => status.as_u16().to_string(),
        Abort::Grpc(status) => format!("gRPC status {status}"),
    }
}

/// What every request is answered with on purpose.
pub(super) fn always_aborted(traffic: &RouteTraffic) -> Option<String> {
    let (abort, share) = traffic.fault.as_ref()?.abort?;
    (share.numerator >= share.denominator).then(|| aborted(abort))
}

fn faults(fault: &Fault, said: &mut Vec<String>) {
    if let Some((time, fraction)) = &fault.delay {
        said.push(format!(
            "{} of the requests are delayed by {time:?} on purpose",
            share(*fraction)
        ));
    }
    if let Some((abort, fraction)) = &fault.abort {
        said.push(format!(
            "{} of the requests are answered with {} on purpose",
            share(*fraction),
            aborted(*abort)
        ));
    }
}

fn override_of(one: &ResponseOverride) -> String {
    let whose = match one.source {
        ResponseSource::All => "answers",
        ResponseSource::Local => "limiterd's own answers",
        ResponseSource::Backend => "the backend's answers",
    };
    let mut parts = Vec::new();
    match &one.with {
        Replacement::Redirect(to) => parts.push(redirect(to)),
        Replacement::Response {
            status,
            content_type,
            body,
            headers,
        } => {
            parts.extend(status.map(|status| format!("status {}", status.as_u16())));
            parts.extend(
                body.as_ref()
                    .map(|body| format!("a body of {} bytes", body.len())),
            );
            parts.extend(
                content_type
                    .as_ref()
                    .map(|kind| clean(&String::from_utf8_lossy(kind.as_bytes()))),
            );
            header_changes("response", headers, &mut parts);
        }
    }
    format!(
        "{whose} with {} get: {}",
        statuses(&one.statuses),
        parts.join(", ")
    )
}

fn admission(control: &AdmissionControl) -> String {
    let mut text = format!(
        "up to {} refused while fewer than {} of those in the last {:?} succeed",
        share(control.max_rejection),
        share(control.min_success_rate),
        control.sampling_window
    );
    if control.min_request_rate > 0 {
        text += &format!(", from {} requests a second", control.min_request_rate);
    }
    text + &format!(" (aggression {})", control.aggression)
}

/// How a backend is treated: its breakers, and what is not as it is without a policy.
pub(crate) fn settings(settings: &BackendSettings) -> Vec<String> {
    let plain = BackendSettings::default();
    let mut said = vec![breaker(&settings.circuit_breaker)];
    if settings.load_balancer != plain.load_balancer {
        said.push(balancer(&settings.load_balancer));
    }
    said.extend(settings.outlier_detection.as_ref().map(outliers));
    said.extend(settings.health_check.as_ref().map(health));
    let watched = settings.outlier_detection.is_some() || settings.health_check.is_some();
    if watched || settings.panic_threshold != plain.panic_threshold {
        said.push(match settings.panic_threshold {
            0 => "health always counts".to_owned(),
            percent => format!("health counts while {percent} % are healthy"),
        });
    }
    if settings.connect_timeout != plain.connect_timeout {
        let time = settings.connect_timeout;
        said.push(format!("at most {time:?} for a connection to be made"));
    }
    if settings.idle_timeout != plain.idle_timeout {
        said.push(age("idle", settings.idle_timeout));
    }
    if settings.max_connection_age != plain.max_connection_age {
        said.push(age("old", settings.max_connection_age));
    }
    said.extend(settings.tcp_keepalive.as_ref().map(keepalive));
    if settings.dns != plain.dns {
        let family = match settings.dns.family {
            LookupFamily::Ipv4Preferred => "IPv4, else IPv6",
            LookupFamily::Ipv4 => "IPv4",
            LookupFamily::Ipv6 => "IPv6",
            LookupFamily::Ipv6Preferred => "IPv6, else IPv4",
            LookupFamily::Ipv4AndIpv6 => "IPv4 and IPv6",
        };
        let sooner = if settings.dns.respect_ttl {
            ", or sooner by TTL"
        } else {
            ""
        };
        let every = settings.dns.refresh;
        said.push(format!("names looked up every {every:?}{sooner}, {family}"));
    }
    said
}

fn age(what: &str, most: Option<Duration>) -> String {
    match most {
        Some(time) => format!("connections are at most {time:?} {what}"),
        None => format!("connections may be {what} for ever"),
    }
}

fn breaker(breaker: &CircuitBreaker) -> String {
    let mut text = format!(
        "breakers: {} connections ({} to an endpoint), {} pending, {} parallel requests, ",
        breaker.max_connections,
        breaker.max_connections_per_endpoint,
        breaker.max_pending_requests,
        breaker.max_parallel_requests,
    );
    text += &match &breaker.retry_budget {
        Some(budget) => format!(
            "{} of them as retries and at least {}",
            share(budget.share),
            budget.min_concurrency
        ),
        None => format!("{} parallel retries", breaker.max_parallel_retries),
    };
    if let Some(most) = breaker.max_requests_per_connection {
        text += &format!(", {most} requests a connection");
    }
    text
}

fn balancer(balancer: &LoadBalancer) -> String {
    let mut text = match &balancer.algorithm {
        Balancing::LeastRequest => "balanced by least requests".to_owned(),
        Balancing::RoundRobin => "balanced round robin".to_owned(),
        Balancing::Random => "balanced at random".to_owned(),
        Balancing::ConsistentHash { by, table_size } => {
            format!("balanced by hash of {} (table of {table_size})", hashed(by))
        }
    };
    if let Some(window) = balancer.slow_start {
        text += &format!(", new endpoints in {window:?}");
    }
    text
}

fn hashed(by: &HashBy) -> String {
    match by {
        HashBy::SourceIp => "the client's address".to_owned(),
        HashBy::Headers(names) => {
            let names: Vec<&str> = names.iter().map(http::HeaderName::as_str).collect();
            format!("header {}", names.join(", "))
        }
        HashBy::Cookie { name, ttl, .. } => match ttl {
            Some(_) => format!("cookie {}, which is set if absent", clean(name)),
            None => format!("cookie {}", clean(name)),
        },
        HashBy::QueryParams(names) => format!("query parameter {}", clean(&names.join(", "))),
    }
}

fn outliers(outliers: &OutlierDetection) -> String {
    let counts = [
        (outliers.consecutive_5xx, "5xx"),
        (outliers.consecutive_gateway_errors, "gateway errors"),
        (
            outliers
                .consecutive_local_origin_failures
                .filter(|_| outliers.split_local_origin),
            "failures without an answer",
        ),
    ];
    let mut after: Vec<String> = counts
        .into_iter()
        .filter_map(|(count, what)| Some(format!("{} {what} in a row", count?)))
        .collect();
    after.extend(
        outliers
            .failure_percentage
            .map(|percent| format!("{percent} % failures")),
    );
    if after.is_empty() {
        after.push("nothing".to_owned());
    }
    let one = if outliers.always_eject_one {
        ", one in any case"
    } else {
        ""
    };
    format!(
        "ejected after {}, for {:?} and longer, looked through every {:?}, up to {} % at once{one}",
        after.join(" or "),
        outliers.base_ejection_time,
        outliers.interval,
        outliers.max_ejection_percent
    )
}

fn health(check: &HealthCheck) -> String {
    let what = match &check.probe {
        Probe::Http {
            host,
            path,
            method,
            expected_statuses,
            ..
        } => {
            let host = host.as_deref().unwrap_or_default();
            let wanted = statuses(expected_statuses);
            format!("{method} {host}{} for {wanted}", clean(path))
        }
        Probe::Tcp { receive, .. } if receive.is_empty() => "a TCP connection".to_owned(),
        Probe::Tcp { .. } => "a TCP connection and an answer".to_owned(),
        Probe::Grpc { service } if service.is_empty() => "gRPC health".to_owned(),
        Probe::Grpc { service } => format!("gRPC health of {}", clean(service)),
    };
    format!(
        "asked every {:?}: {what}, within {:?}; out after failing {} times in a row, back after {}",
        check.interval, check.timeout, check.unhealthy_threshold, check.healthy_threshold
    )
}

fn keepalive(keepalive: &TcpKeepalive) -> String {
    let mut text = "TCP keep-alive".to_owned();
    if let Some(idle) = keepalive.idle {
        text += &format!(" after {idle:?}");
    }
    if let Some(interval) = keepalive.interval {
        text += &format!(" every {interval:?}");
    }
    if let Some(probes) = keepalive.probes {
        text += &format!(", {probes} probes");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_told_as_they_were_given() {
        let of = |numerator, denominator| {
            share(Fraction {
                numerator,
                denominator,
            })
        };
        assert_eq!(of(25, 100), "25 %");
        assert_eq!(of(1, 2), "50 %");
        assert_eq!(of(125_000, 1_000_000), "12.5 %");
        assert_eq!(of(1, 3), "1 of 3");
    }

    #[test]
    fn without_a_policy_only_breakers_are_told() {
        let said = settings(&BackendSettings::default());
        assert_eq!(
            said,
            [
                "breakers: 1024 connections (1024 to an endpoint), 1024 pending, 1024 parallel requests, 1024 parallel retries"
            ]
        );
        assert!(traffic(&RouteTraffic::default()).is_empty());
    }

    #[test]
    fn retries_name_what_they_follow() {
        let said = traffic(&RouteTraffic {
            retry: Some(Retry {
                per_try_timeout: Some(Duration::from_secs(1)),
                ..Retry::default()
            }),
            ..RouteTraffic::default()
        });
        assert_eq!(
            said,
            [
                "retried at most 2 times, idempotent methods, on connect-failure, refused-stream, retriable-status-codes (503), cancelled, unavailable, after up to 25ms growing to 250ms, 1s for each attempt"
            ]
        );
    }
}
