//! What is asked by which path.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use tokio::time::timeout;
use tonic::body::Body;
use tonic::codegen::Service as TowerService;

use super::body::RequestBody;
use super::json;
use super::proto::Code;
use super::service::Service;
use super::unary::MAX_MESSAGE;

/// How long a question may take to be there.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

type Answering = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

/// A gRPC service of another crate, as a function.
pub(super) type Handler = Arc<dyn Fn(Request<RequestBody>) -> Answering + Send + Sync>;

/// Everything that is served at the address.
#[derive(Clone)]
pub(super) struct Paths {
    pub(super) service: Service,
    pub(super) health: Handler,
    /// The versions of the protocol, by the beginning of their paths.
    pub(super) reflection: [(&'static str, Handler); 2],
}

/// Makes a function of a service.
pub(super) fn handler<S>(service: S) -> Handler
where
    S: TowerService<Request<RequestBody>, Response = Response<Body>, Error = Infallible>,
    S: Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
{
    Arc::new(move |request| {
        let answer = service.clone().call(request);
        Box::pin(async move {
            match answer.await {
                Ok(response) => response,
                Err(never) => match never {},
            }
        })
    })
}

impl Paths {
    pub(super) async fn answer(&self, request: Request<RequestBody>) -> Response<Body> {
        let path = request.uri().path();
        if path.starts_with("/grpc.health.v1.Health/") {
            return (self.health)(request).await;
        }
        if let Some((_, handler)) = self.reflection.iter().find(|(of, _)| path.starts_with(of)) {
            return handler(request).await;
        }
        match (path, request.method()) {
            ("/json", &Method::POST) => self.json(request).await,
            ("/healthcheck", &Method::GET | &Method::HEAD) => {
                plain(StatusCode::OK, "OK".to_owned())
            }
            ("/json" | "/healthcheck", _) => plain(
                StatusCode::METHOD_NOT_ALLOWED,
                "another method\n".to_owned(),
            ),
            _ if is_grpc(&request) => {
                tonic::Status::unimplemented("there is no such method").into_http()
            }
            _ => plain(
                StatusCode::NOT_FOUND,
                "try POST /json, GET /healthcheck, or gRPC\n".to_owned(),
            ),
        }
    }

    /// 200, 429 over a limit, 400 for what is no question, 500 for what cannot be answered.
    async fn json(&self, request: Request<RequestBody>) -> Response<Body> {
        let body = Limited::new(request.into_body(), MAX_MESSAGE).collect();
        let body = match timeout(PATIENCE, body).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) if error.is::<LengthLimitError>() => {
                let why = format!("at most {MAX_MESSAGE} bytes are read\n");
                return plain(StatusCode::PAYLOAD_TOO_LARGE, why);
            }
            Ok(Err(error)) => return plain(StatusCode::BAD_REQUEST, format!("{error}\n")),
            Err(_late) => {
                let why = "the request did not come\n".to_owned();
                return plain(StatusCode::REQUEST_TIMEOUT, why);
            }
        };
        let question = match json::request(&body) {
            Ok(question) => question,
            Err(why) => return plain(StatusCode::BAD_REQUEST, format!("{why}\n")),
        };
        match self.service.answer(&question).answer().await {
            Ok(answer) => {
                let status = if answer.overall_code == i32::from(Code::OverLimit) {
                    StatusCode::TOO_MANY_REQUESTS
                } else {
                    StatusCode::OK
                };
                let mut response = plain(status, json::response(&answer).to_string());
                let kind = HeaderValue::from_static("application/json");
                response.headers_mut().insert(CONTENT_TYPE, kind);
                response
            }
            Err(failure) => {
                let status = match failure.code() {
                    tonic::Code::InvalidArgument => StatusCode::BAD_REQUEST,
                    _ => StatusCode::INTERNAL_SERVER_ERROR,
                };
                plain(status, format!("{}\n", failure.message()))
            }
        }
    }
}

fn is_grpc(request: &Request<RequestBody>) -> bool {
    let kind = request.headers().get(CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

fn plain(status: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(Body::new(Full::new(Bytes::from(text))));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
