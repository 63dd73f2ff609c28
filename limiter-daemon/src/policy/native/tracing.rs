//! `tracing` of the `LimiterConfig`.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use http::Uri;
use http::uri::Scheme;
use serde::Deserialize;

use super::limiter_config::bounded_duration;
use crate::policy::decode::At;
use crate::policy::findings::{Mark, Scope};
use crate::policy::plan::{ALL_TRACED, OtlpConfig, OtlpProtocol, TraceParent, TracingConfig};

const TIMEOUT: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(60);
/// As OpenTelemetry has it.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);
const GRPC_PORT: u16 = 4317;
const HTTP_PORT: u16 = 4318;
const PATH: &str = "/v1/traces";
/// Characters.
const MAX_NAME: usize = 255;
/// Of a percent: the smallest share is one of a million requests.
const STEPS: f64 = 10_000.0;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawTracing {
    otlp: Option<At<RawOtlp>>,
    sampling: Option<At<f64>>,
    parent: Option<Parent>,
    service_name: Option<At<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawOtlp {
    endpoint: Option<At<String>>,
    protocol: Option<Protocol>,
    headers_file: Option<At<String>>,
    ca_file: Option<At<String>>,
    timeout: Option<At<String>>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
enum Parent {
    Follow,
    Ignore,
}

#[derive(Clone, Copy, Debug, Deserialize)]
enum Protocol {
    Grpc,
    Http,
}

/// Checks it; `None` with errors.
pub(super) fn lower(raw: At<RawTracing>, scope: &mut Scope<'_>) -> Option<TracingConfig> {
    let At { value: raw, mark } = raw;
    let sampling = match raw.sampling {
        None => Some(ALL_TRACED / 100),
        Some(percent) => sampling(&percent, scope),
    };
    let service_name = match raw.service_name {
        None => Some("limiterd".to_owned()),
        Some(name) => service_name(name, scope),
    };
    let Some(otlp) = raw.otlp else {
        scope.error(
            &mark,
            "tracing needs an `otlp`",
            "write where spans go, as `otlp: {endpoint: \"http://127.0.0.1:4317\"}`",
        );
        return None;
    };
    let otlp = lower_otlp(otlp, scope);
    Some(TracingConfig {
        otlp: otlp?,
        sampling: sampling?,
        parent: match raw.parent {
            None | Some(Parent::Follow) => TraceParent::Follow,
            Some(Parent::Ignore) => TraceParent::Ignore,
        },
        service_name: service_name?,
    })
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "from 0 to a million"
)]
fn sampling(percent: &At<f64>, scope: &mut Scope<'_>) -> Option<u32> {
    let value = percent.value;
    let steps = (value * STEPS).round();
    if !(0.0..=100.0).contains(&value) {
        scope.error(
            &percent.mark,
            format!("{value} is not a percentage of the requests to trace"),
            "it may be 0 to 100; without traces leave `tracing` out",
        );
        return None;
    }
    if value > 0.0 && steps < 1.0 {
        scope.error(
            &percent.mark,
            format!("{value} percent is less than one request of a million"),
            "write 0.0001 or more, or 0",
        );
        return None;
    }
    Some(steps as u32)
}

fn service_name(name: At<String>, scope: &mut Scope<'_>) -> Option<String> {
    let fits = !name.is_empty() && name.chars().count() <= MAX_NAME;
    if fits && !name.chars().any(char::is_control) {
        return Some(name.value);
    }
    let message = format!(
        "`{}` is not the name of a service",
        name.value.escape_debug()
    );
    let remedy = format!("write 1 to {MAX_NAME} characters that can be printed");
    scope.error(&name.mark, message, remedy);
    None
}

fn lower_otlp(raw: At<RawOtlp>, scope: &mut Scope<'_>) -> Option<OtlpConfig> {
    let At { value: raw, mark } = raw;
    let protocol = match raw.protocol {
        None | Some(Protocol::Grpc) => OtlpProtocol::Grpc,
        Some(Protocol::Http) => OtlpProtocol::Http,
    };
    let timeout = bounded_duration(raw.timeout.as_ref(), &TIMEOUT, scope);
    let headers_file = file(raw.headers_file, scope);
    let ca_file_mark = raw.ca_file.as_ref().map(|path| path.mark.clone());
    let ca_file = file(raw.ca_file, scope);
    let endpoint = endpoint(raw.endpoint, protocol, &mark, scope)?;
    if let Some(mark) = ca_file_mark
        && !endpoint.tls
    {
        scope.error(
            &mark,
            "an endpoint without TLS shows no certificate",
            "begin the endpoint with `https://`, or remove this",
        );
    }
    Some(OtlpConfig {
        host: endpoint.host,
        port: endpoint.port,
        tls: endpoint.tls,
        path: endpoint.path,
        protocol,
        headers_file,
        ca_file,
        timeout: timeout.unwrap_or(TIMEOUT_DEFAULT),
    })
}

struct Endpoint {
    host: String,
    port: u16,
    tls: bool,
    path: String,
}

fn endpoint(
    text: Option<At<String>>,
    protocol: OtlpProtocol,
    mark: &Mark,
    scope: &mut Scope<'_>,
) -> Option<Endpoint> {
    let remedy = match protocol {
        OtlpProtocol::Grpc => "write it as `http://127.0.0.1:4317` or `https://collector:4317`",
        OtlpProtocol::Http => {
            "write it as `http://127.0.0.1:4318` or `https://collector/v1/traces`"
        }
    };
    let Some(text) = text else {
        scope.error(mark, "the collector needs an `endpoint`", remedy);
        return None;
    };
    if let Some(endpoint) = parse(&text, protocol) {
        return Some(endpoint);
    }
    let message = match protocol {
        OtlpProtocol::Grpc => format!("`{}` is not the URL of a host", text.value),
        OtlpProtocol::Http => format!("`{}` is not a URL without a query", text.value),
    };
    scope.error(&text.mark, message, remedy);
    None
}

fn parse(text: &str, protocol: OtlpProtocol) -> Option<Endpoint> {
    let uri: Uri = text.parse().ok()?;
    let scheme = uri.scheme()?;
    let tls = *scheme == Scheme::HTTPS;
    if !tls && *scheme != Scheme::HTTP || uri.query().is_some() {
        return None;
    }
    let authority = uri.authority()?;
    let host = authority.host();
    if host.is_empty() || authority.as_str().contains('@') {
        return None;
    }
    let host = host
        .strip_prefix('[')
        .map_or(host, |host| host.trim_end_matches(']'));
    let port = match (authority.port(), protocol) {
        (Some(port), _) => Some(port.as_u16()).filter(|port| *port != 0)?,
        (None, OtlpProtocol::Grpc) => GRPC_PORT,
        (None, OtlpProtocol::Http) => HTTP_PORT,
    };
    let path = match (protocol, uri.path()) {
        (OtlpProtocol::Grpc, "" | "/") => String::new(),
        (OtlpProtocol::Grpc, _) => return None,
        (OtlpProtocol::Http, "" | "/") => PATH.to_owned(),
        (OtlpProtocol::Http, path) => path.to_owned(),
    };
    Some(Endpoint {
        host: host.to_owned(),
        port,
        tls,
        path,
    })
}

fn file(path: Option<At<String>>, scope: &mut Scope<'_>) -> Option<PathBuf> {
    let path = path?;
    let text = path.as_str();
    if text.starts_with('/') && !text.ends_with('/') && !text.contains('\0') {
        return Some(PathBuf::from(text));
    }
    let message = format!("`{text}` is not the absolute path of a file");
    scope.error(&path.mark, message, "write one as `/etc/limiterd/otlp`");
    None
}
