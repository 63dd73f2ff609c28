//! What is asked, and what can be wrong with the answer.

use std::io;

use super::{grpc, http, tcp};
use crate::l7::upstream::Target;
use crate::policy::plan::{HealthCheck, Probe};

/// Why a check failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("no answer in time")]
    TooSlow,
    #[error("no connection: {0}")]
    Unreachable(io::Error),
    #[error("the connection broke: {0}")]
    Broken(Box<dyn std::error::Error + Send + Sync>),
    #[error("it does not speak HTTP/2")]
    NoHttp2,
    #[error("the request cannot be made: {0}")]
    Request(#[from] ::http::Error),
    #[error("it answered with status {0}")]
    Status(u16),
    #[error("what is expected is not in the first {0} bytes of the body")]
    Body(usize),
    #[error("what is expected is not in the first {0} bytes that it sent")]
    Bytes(usize),
    #[error("it answered with gRPC status {0}")]
    Grpc(String),
    #[error("its answer is no HealthCheckResponse")]
    Malformed,
    #[error("it says that it is not serving (status {0})")]
    NotServing(u64),
}

impl Failure {
    /// Whether the host said so itself. As in Envoy, that needs no threshold; what may be the
    /// network's fault does.
    pub(super) const fn is_answer(&self) -> bool {
        match self {
            Self::TooSlow | Self::Unreachable(_) | Self::Broken(_) | Self::NoHttp2 => false,
            Self::Request(_) | Self::Bytes(_) => false,
            Self::Status(_) | Self::Body(_) => true,
            Self::Grpc(_) | Self::Malformed | Self::NotServing(_) => true,
        }
    }

    pub(super) fn broken(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Broken(cause.into())
    }
}

/// Asks once. Takes as long as it takes: the caller bounds the time.
pub(super) async fn ask(target: &Target, settings: &HealthCheck) -> Result<(), Failure> {
    match &settings.probe {
        Probe::Http {
            host,
            path,
            method,
            expected_statuses,
            expected_body,
        } => {
            let asked = http::Asked {
                host: host.as_deref(),
                path,
                method,
            };
            let expected = http::Expected {
                statuses: expected_statuses,
                body: expected_body.as_deref(),
            };
            http::ask(target, &asked, &expected).await
        }
        Probe::Tcp { send, receive } => tcp::ask(target, send, receive).await,
        Probe::Grpc { service } => grpc::ask(target, service).await,
    }
}
