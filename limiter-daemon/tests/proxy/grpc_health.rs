//! A gRPC server that answers each call as the test says.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, Sender, channel};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::http2::{PiecesOf, runtime};
use super::stage::{PATIENCE, address};

/// A call as it came.
pub(crate) struct Call {
    pub(crate) path: String,
    pub(crate) content_type: String,
    pub(crate) body: Bytes,
}

/// What it is answered with: a message behind its prefix, and a status. Without a message, the
/// status is in the head.
type Reply = oneshot::Sender<(Vec<u8>, &'static str)>;

pub(crate) struct GrpcHost {
    pub(crate) address: SocketAddr,
    calls: Receiver<(Call, Reply)>,
}

impl GrpcHost {
    pub(crate) fn new() -> Self {
        let listener = std::net::TcpListener::bind(address()).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (called, calls) = channel();
        std::thread::spawn(move || runtime().block_on(accept(listener, called)));
        Self { address, calls }
    }

    /// Waits for a call.
    pub(crate) fn next(&self) -> (Call, Reply) {
        self.calls.recv_timeout(PATIENCE).unwrap()
    }
}

async fn accept(listener: std::net::TcpListener, called: Sender<(Call, Reply)>) {
    let listener = TcpListener::from_std(listener).unwrap();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let called = called.clone();
        let service = hyper::service::service_fn(move |request| {
            let called = called.clone();
            async move { Ok::<_, Infallible>(answer(request, &called).await) }
        });
        tokio::spawn(async move {
            let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            let served = builder.serve_connection(TokioIo::new(stream), service);
            let _ended = served.await;
        });
    }
}

async fn answer(request: Request<Incoming>, called: &Sender<(Call, Reply)>) -> Response<PiecesOf> {
    let (head, body) = request.into_parts();
    let call = Call {
        path: head.uri.path().to_owned(),
        content_type: head.headers["content-type"].to_str().unwrap().to_owned(),
        body: body.collect().await.unwrap().to_bytes(),
    };
    let (reply, replied) = oneshot::channel();
    // The test may be over.
    let _over = called.send((call, reply));
    let (message, status) = replied.await.unwrap_or((Vec::new(), "14"));
    let status = HeaderValue::from_static(status);
    let mut response = Response::new(PiecesOf(Vec::new()));
    let headers = response.headers_mut();
    headers.insert("content-type", HeaderValue::from_static("application/grpc"));
    if message.is_empty() {
        headers.insert("grpc-status", status);
        return response;
    }
    let trailers = HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), status)]);
    response.body_mut().0 = vec![Frame::trailers(trailers), Frame::data(message.into())];
    response
}
