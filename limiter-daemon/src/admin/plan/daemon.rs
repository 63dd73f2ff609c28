//! The daemon's own settings.

use serde::Serialize;

use super::seconds;
use crate::policy::plan::{
    ALL_TRACED, AccessLog, DaemonConfig, LogFormat, LogTarget, TracingConfig,
};

#[derive(Debug, Serialize)]
pub(super) struct DaemonView {
    interfaces: Vec<String>,
    pin_path: String,
    admin: String,
    workers: Option<usize>,
    max_buckets: usize,
    max_sources: u32,
    sketch_cells: u32,
    drain_delay_seconds: f64,
    drain_timeout_seconds: f64,
    /// As `json to /dev/stdout`; `None`: there is none.
    access_log: Option<String>,
    /// As `1 % to http://127.0.0.1:4317`; `None`: nothing is traced.
    tracing: Option<String>,
    /// Where Envoy's rate limit service is served; `None`: nowhere.
    rls: Option<String>,
}

impl From<&DaemonConfig> for DaemonView {
    fn from(config: &DaemonConfig) -> Self {
        let interfaces = config.interfaces.iter();
        Self {
            interfaces: interfaces.map(|interface| interface.name.clone()).collect(),
            pin_path: config.pin_path.display().to_string(),
            admin: config.admin.to_string(),
            workers: config.workers,
            max_buckets: config.max_buckets,
            max_sources: config.max_sources,
            sketch_cells: config.sketch_cells,
            drain_delay_seconds: seconds(config.drain_delay),
            drain_timeout_seconds: seconds(config.drain_timeout),
            access_log: config.access_log.as_ref().map(access_log),
            tracing: config.tracing.as_ref().map(traces),
            rls: config.rls.as_ref().map(|rls| rls.listen.to_string()),
        }
    }
}

fn traces(tracing: &TracingConfig) -> String {
    let percent = f64::from(tracing.sampling) * 100.0 / f64::from(ALL_TRACED);
    format!("{percent} % to {}", tracing.otlp.url())
}

fn access_log(log: &AccessLog) -> String {
    let format = match log.format {
        LogFormat::Json => "json",
        LogFormat::Text => "text",
    };
    let target = match &log.target {
        LogTarget::Stdout => "/dev/stdout".to_owned(),
        LogTarget::Stderr => "/dev/stderr".to_owned(),
        LogTarget::File(path) => path.display().to_string(),
    };
    format!("{format} to {target}, {} %", log.sample)
}
