//! What the daemon's settings for its log and for traces come to.

#![expect(clippy::unwrap_used, reason = "a helper that fails, fails the test")]

use std::time::Duration;

use limiter_daemon::policy::plan::{
    LogConfig, LogFormat, LogLevel, OtlpConfig, OtlpProtocol, Plan, TraceParent, TracingConfig,
};

mod policy_support;

use policy_support::{Scratch, good};

fn loaded(name: &str, text: &str) -> Plan {
    let dir = Scratch::new(name);
    std::fs::write(dir.0.join("limiterd.yaml"), text).unwrap();
    good(dir.0.to_str().unwrap())
}

fn with(name: &str, spec: &str) -> Plan {
    let text = format!(
        "apiVersion: limiterd.io/v1alpha1\nkind: LimiterConfig\nmetadata: {{ name: d }}\nspec: {{ {spec} }}\n"
    );
    loaded(name, &text)
}

#[test]
fn the_example_of_the_reference_is_what_holds_without_it() {
    let reference = std::fs::read_to_string("../docs/traces.md").unwrap();
    let example = reference.split("```yaml\n").nth(1).unwrap();
    let example = example.split("```").next().unwrap();
    let expected = TracingConfig {
        otlp: OtlpConfig {
            host: "127.0.0.1".to_owned(),
            port: 4317,
            tls: false,
            path: String::new(),
            protocol: OtlpProtocol::Grpc,
            headers_file: None,
            ca_file: None,
            timeout: Duration::from_secs(10),
        },
        sampling: 10_000,
        parent: TraceParent::Follow,
        service_name: "limiterd".to_owned(),
    };
    let written = loaded("traces", example);
    assert_eq!(written.daemon.tracing.as_ref(), Some(&expected));
    let short = "tracing: { otlp: { endpoint: 'http://127.0.0.1' } }";
    assert_eq!(with("traces-short", short).daemon.tracing, Some(expected));
}

#[test]
fn an_endpoint_is_a_url() {
    for (number, (otlp, url)) in [
        ("endpoint: 'http://collector'", "http://collector:4317"),
        (
            "endpoint: 'https://[2001:db8::1]:443/'",
            "https://[2001:db8::1]:443",
        ),
        (
            "endpoint: 'http://collector', protocol: Http",
            "http://collector:4318/v1/traces",
        ),
        (
            "endpoint: 'https://collector:443/otlp/v1/traces', protocol: Http, caFile: /ca.pem",
            "https://collector:443/otlp/v1/traces",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let spec = format!("tracing: {{ otlp: {{ {otlp} }}, sampling: 0.0001 }}");
        let tracing = with(&format!("endpoint-{number}"), &spec).daemon.tracing;
        let tracing = tracing.unwrap();
        assert_eq!(tracing.otlp.url(), url);
        assert_eq!(tracing.sampling, 1);
    }
}

#[test]
fn what_the_log_is_not_told_keeps_its_default() {
    assert_eq!(with("log-none", "").daemon.log, LogConfig::default());
    let log = with("log-some", "log: { level: Debug, format: Json }")
        .daemon
        .log;
    assert_eq!((log.level, log.format), (LogLevel::Debug, LogFormat::Json));
    assert_eq!(log.lines_per_second, LogConfig::default().lines_per_second);
    let log = with("log-lines", "log: { linesPerSecond: 1 }").daemon.log;
    assert_eq!((log.level, log.lines_per_second), (LogLevel::Info, 1));
}
