//! Connections to upstreams: HTTP/1.1, pooled, one pool a worker.

use std::time::Duration;

use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, Response, Uri, Version};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::respond::Refusal;
use crate::policy::plan::Endpoint;

/// How long a connection to an endpoint may take (Envoy Gateway's `timeout.tcp.connectTimeout`).
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an upstream may take until its response headers; long, because LLMs think long.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(300);
/// Idle connections older than this are closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Idle connections kept for each endpoint, for each worker.
const MAX_IDLE: usize = 256;

/// A worker's connections to upstreams.
#[derive(Clone, Debug)]
pub(super) struct Upstreams {
    client: Client<HttpConnector, Incoming>,
}

impl Upstreams {
    pub(super) fn new() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(MAX_IDLE)
            .build(connector);
        Self { client }
    }

    /// Sends `request` to `authority` and waits for the response's head.
    ///
    /// # Errors
    /// [`Refusal`] as the client is to see it.
    pub(super) async fn send(
        &self,
        authority: Authority,
        mut request: Request<Incoming>,
    ) -> Result<Response<Incoming>, Refusal> {
        let mut uri = http::uri::Parts::default();
        uri.scheme = Some(Scheme::HTTP);
        uri.authority = Some(authority);
        uri.path_and_query = Some(
            request
                .uri()
                .path_and_query()
                .cloned()
                .unwrap_or(PathAndQuery::from_static("/")),
        );
        *request.uri_mut() = Uri::from_parts(uri)
            .map_err(|_invalid| Refusal::BadRequest("the request target is not a URI"))?;
        *request.version_mut() = Version::HTTP_11;
        match tokio::time::timeout(RESPONSE_TIMEOUT, self.client.request(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) if error.is_connect() => Err(Refusal::Unreachable(error.into())),
            Ok(Err(error)) => Err(Refusal::Broken(error.into())),
            Err(_elapsed) => Err(Refusal::Timeout),
        }
    }
}

/// The authority of an endpoint; `None` for a name that is not one.
pub(super) fn authority(endpoint: &Endpoint) -> Option<Authority> {
    let text = match endpoint {
        Endpoint::Ip(ip, port) => std::net::SocketAddr::new(*ip, *port).to_string(),
        Endpoint::Fqdn(name, port) => format!("{name}:{port}"),
        Endpoint::Unix(_) => return None,
    };
    text.parse().ok()
}
