//! A client of Envoy's rate limit service.

use std::time::Duration;

use anyhow::{Context as _, Result};
use limiter_daemon::rls::proto::{
    Entry, RateLimitDescriptor, RateLimitRequest, RateLimitResponse, SHOULD_RATE_LIMIT,
};
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

use crate::netns::Netns;

/// For an answer; nothing is measured by it.
const PATIENCE: Duration = Duration::from_secs(30);

/// A question; each descriptor as `key=value,key=value`.
#[must_use]
pub fn question(domain: &str, descriptors: &[&str]) -> RateLimitRequest {
    RateLimitRequest {
        domain: domain.to_owned(),
        descriptors: descriptors.iter().map(|text| descriptor(text)).collect(),
        hits_addend: 0,
    }
}

/// `key=value,key=value`
#[must_use]
pub fn descriptor(text: &str) -> RateLimitDescriptor {
    let entry = |entry: &str| {
        let (key, value) = entry.split_once('=').unwrap_or((entry, ""));
        Entry {
            key: key.to_owned(),
            value: value.to_owned(),
        }
    };
    RateLimitDescriptor {
        entries: text.split(',').map(entry).collect(),
        ..RateLimitDescriptor::default()
    }
}

/// Asks one after the other, over one connection to `address` in `netns`.
///
/// # Errors
/// When there is no connection.
pub fn ask(
    netns: &Netns,
    address: &str,
    questions: Vec<RateLimitRequest>,
) -> Result<Vec<Result<RateLimitResponse, Status>>> {
    netns.enter(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let mut grpc = connect(address).await?;
            let mut answers = Vec::new();
            for question in questions {
                grpc.ready().await.context("the service is not ready")?;
                let codec = ProstCodec::<RateLimitRequest, RateLimitResponse>::default();
                let path = PathAndQuery::from_static(SHOULD_RATE_LIMIT);
                let answer = grpc.unary(Request::new(question), path, codec).await;
                answers.push(answer.map(tonic::Response::into_inner));
            }
            Ok(answers)
        })
    })
}

async fn connect(address: &str) -> Result<Grpc<Channel>> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?.timeout(PATIENCE);
    Ok(Grpc::new(endpoint.connect().await?))
}
