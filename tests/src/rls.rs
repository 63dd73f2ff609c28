//! A client of Envoy's rate limit service.

use std::time::Duration;

use anyhow::{Context as _, Result};
use limiter_daemon::rls::proto::{
    Entry, RateLimitDescriptor, RateLimitRequest, RateLimitResponse, SHOULD_RATE_LIMIT,
};
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
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
    ask_by(netns, plain(address)?, questions)
}

/// Asks once, with these headers.
///
/// # Errors
/// When there is no connection, or no answer.
pub fn ask_with(
    netns: &Netns,
    address: &str,
    headers: &[(&'static str, &'static str)],
    question: RateLimitRequest,
) -> Result<RateLimitResponse> {
    inside(netns, plain(address)?, async |mut grpc| {
        grpc.ready().await.context("the service is not ready")?;
        let codec = ProstCodec::<RateLimitRequest, RateLimitResponse>::default();
        let mut request = Request::new(question);
        for (name, value) in headers {
            request.metadata_mut().insert(*name, value.parse()?);
        }
        let path = PathAndQuery::from_static(SHOULD_RATE_LIMIT);
        Ok(grpc.unary(request, path, codec).await?.into_inner())
    })
}

/// The same by an endpoint, which may be one of TLS.
///
/// # Errors
/// When there is no connection.
pub fn ask_by(
    netns: &Netns,
    endpoint: Endpoint,
    questions: Vec<RateLimitRequest>,
) -> Result<Vec<Result<RateLimitResponse, Status>>> {
    inside(netns, endpoint, async |mut grpc| {
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
}

/// An endpoint of TLS, as `host`, trusting `authority` and with the certificate and key of `client`,
/// all in PEM.
///
/// # Errors
/// When the address is none.
pub fn secure(
    address: &str,
    host: &str,
    authority: &str,
    client: Option<(&str, &str)>,
) -> Result<Endpoint> {
    let mut tls = ClientTlsConfig::new()
        .domain_name(host)
        .ca_certificate(Certificate::from_pem(authority));
    if let Some((certificate, key)) = client {
        tls = tls.identity(Identity::from_pem(certificate, key));
    }
    let endpoint = Endpoint::from_shared(format!("https://{address}"))?.timeout(PATIENCE);
    Ok(endpoint.tls_config(tls)?)
}

fn plain(address: &str) -> Result<Endpoint> {
    Ok(Endpoint::from_shared(format!("http://{address}"))?.timeout(PATIENCE))
}

fn inside<T: Send>(
    netns: &Netns,
    endpoint: Endpoint,
    talk: impl AsyncFnOnce(Grpc<Channel>) -> Result<T> + Send,
) -> Result<T> {
    netns.enter(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async { talk(Grpc::new(endpoint.connect().await?)).await })
    })
}

#[derive(Clone, PartialEq, prost::Message)]
struct Text {
    #[prost(string, tag = "1")]
    text: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Health {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// What gRPC health says of a service; 1: it serves.
///
/// # Errors
/// When it is not known.
pub fn health(netns: &Netns, address: &str, service: &str) -> Result<i32> {
    inside(netns, plain(address)?, async |mut grpc| {
        grpc.ready().await?;
        let path = PathAndQuery::from_static("/grpc.health.v1.Health/Check");
        let request = Request::new(Text {
            text: service.to_owned(),
        });
        let codec = ProstCodec::<Text, Health>::default();
        Ok(grpc.unary(request, path, codec).await?.into_inner().status)
    })
}

#[derive(Clone, PartialEq, prost::Message)]
struct ReflectionRequest {
    #[prost(string, optional, tag = "4")]
    file_containing_symbol: Option<String>,
    #[prost(string, optional, tag = "7")]
    list_services: Option<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ReflectionResponse {
    #[prost(message, optional, tag = "4")]
    files: Option<Files>,
    #[prost(message, optional, tag = "6")]
    services: Option<Services>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Files {
    #[prost(bytes = "vec", repeated, tag = "1")]
    files: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Services {
    #[prost(message, repeated, tag = "1")]
    services: Vec<Text>,
}

/// The names of all services by gRPC reflection, and how many files describe `symbol`.
///
/// # Errors
/// When there is no reflection.
pub fn reflect(netns: &Netns, address: &str, symbol: &str) -> Result<(Vec<String>, usize)> {
    inside(netns, plain(address)?, async |mut grpc| {
        grpc.ready().await?;
        let path = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo";
        let list = ReflectionRequest {
            file_containing_symbol: None,
            list_services: Some(String::new()),
        };
        let find = ReflectionRequest {
            file_containing_symbol: Some(symbol.to_owned()),
            list_services: None,
        };
        let questions = Request::new(tonic::codegen::tokio_stream::iter([list, find]));
        let codec = ProstCodec::<ReflectionRequest, ReflectionResponse>::default();
        let answers = grpc.streaming(questions, PathAndQuery::from_static(path), codec);
        let mut answers = answers.await?.into_inner();
        let (mut services, mut files) = (Vec::new(), 0);
        while let Some(answer) = answers.message().await? {
            services.extend(answer.services.unwrap_or_default().services);
            files += answer.files.unwrap_or_default().files.len();
        }
        Ok((services.into_iter().map(|one| one.text).collect(), files))
    })
}
