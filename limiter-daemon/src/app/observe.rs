//! What tells of requests: the access log and traces.

use std::sync::Arc;

use anyhow::Context as _;
use http::HeaderMap;
use rustls::ClientConfig;

use super::privileges;
use crate::l7::access_log::{self, AccessLog};
use crate::l7::record::Sink;
use crate::l7::tls;
use crate::policy::plan::{DaemonConfig, OtlpConfig, OtlpProtocol, Pem, StoreTls};
use crate::traces::{self, Tracer};

/// Takes the records of requests, and whom that belongs to.
type Log = (Option<Arc<dyn Sink>>, Option<access_log::Owner>);
/// Traces requests, and whom that belongs to.
type Traces = (Option<Arc<Tracer>>, Option<traces::Owner>);

/// Starts the access log, if there is to be one.
pub(super) fn access_log(config: &DaemonConfig) -> anyhow::Result<Log> {
    let Some(log) = &config.access_log else {
        return Ok((None, None));
    };
    let (sink, owner) = AccessLog::start(log).with_context(|| {
        format!(
            "cannot open the access log ({:?}); set spec.accessLog.path of the LimiterConfig",
            log.target
        )
    })?;
    Ok((Some(sink), Some(owner)))
}

/// Starts what sends spans, if there are to be any.
pub(super) fn traces(config: &DaemonConfig) -> anyhow::Result<Traces> {
    let Some(tracing) = &config.tracing else {
        return Ok((None, None));
    };
    let tls = tracing.otlp.tls.then(|| trust(&tracing.otlp)).transpose()?;
    // Whoever may read it: the thread that sends has no capabilities.
    let headers = match &tracing.otlp.headers_file {
        Some(path) => traces::headers::read(path).context("cannot trace requests")?,
        None => HeaderMap::new(),
    };
    let started = privileges::without(|| {
        Tracer::start(tracing, tls, headers)
            .map_err(|error| std::io::Error::other(error.to_string()))
    });
    let (tracer, owner) = started.context("cannot trace requests")?;
    Ok((Some(tracer), Some(owner)))
}

/// How a collector is spoken to by TLS.
fn trust(otlp: &OtlpConfig) -> anyhow::Result<Arc<ClientConfig>> {
    let read = |path| {
        std::fs::read(path).with_context(|| {
            format!("cannot read {path:?}; set spec.tracing.otlp.caFile of the LimiterConfig")
        })
    };
    let authorities = otlp.ca_file.as_ref().map(read).transpose()?.map(Pem);
    let trusted = tls::peer(&StoreTls {
        authorities,
        certificate: None,
    })
    .context("no TLS with the collector of spec.tracing.otlp")?;
    Ok(match otlp.protocol {
        OtlpProtocol::Grpc => trusted,
        OtlpProtocol::Http => {
            let mut config = ClientConfig::clone(&trusted);
            config.alpn_protocols = vec![b"http/1.1".to_vec()];
            Arc::new(config)
        }
    })
}
