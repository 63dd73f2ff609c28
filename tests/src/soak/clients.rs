//! What clients do in a round of the soak.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Tally;
use crate::packets::Random;

const PROXY: &str = "127.0.0.1:8080";
/// For one request; what takes longer has no end.
const PATIENCE: Duration = Duration::from_secs(60);

type Http = Client<HttpConnector, Full<Bytes>>;

/// What a client is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Errand {
    /// One request after the other, all over one connection.
    Steady,
    /// Many at once over one connection of HTTP/2, some of which are cancelled.
    Streams,
    /// To a backend that misbehaves.
    Rough,
    /// Many at once to a backend that takes few.
    Busy,
    /// More than may be.
    Limited,
    /// Goes away: in the middle of a head, a body, an answer, or while it waits.
    Leaves,
}

impl Errand {
    pub(super) const ALL: [Self; 14] = [
        Self::Steady,
        Self::Leaves,
        Self::Streams,
        Self::Steady,
        Self::Busy,
        Self::Rough,
        Self::Leaves,
        Self::Steady,
        Self::Limited,
        Self::Streams,
        Self::Rough,
        Self::Leaves,
        Self::Busy,
        Self::Steady,
    ];

    /// # Errors
    /// When something takes for ever.
    pub(super) async fn run(self, seed: u64, tally: Arc<Tally>) -> Result<()> {
        let random = &mut Random::new(seed);
        match self {
            Self::Steady => {
                let http = client();
                for _ in 0..20 {
                    exchange(http.request(request(random, "steady")?), &tally).await?;
                }
                Ok(())
            }
            Self::Streams => streams(random, &tally).await,
            Self::Rough => at_once(random, "rough", 6, &tally).await,
            Self::Busy => at_once(random, "busy", 15, &tally).await,
            Self::Limited => at_once(random, "limited", 15, &tally).await,
            Self::Leaves => {
                for _ in 0..10 {
                    timeout(PATIENCE, leave(random))
                        .await
                        .context("leaving takes for ever")?;
                    tally.count("left");
                }
                Ok(())
            }
        }
    }
}

fn client() -> Http {
    Client::builder(TokioExecutor::new()).build_http()
}

/// A GET for a body of some length, or a PUT with one.
fn request(random: &mut Random, host: &str) -> Result<Request<Full<Bytes>>> {
    let length = match random.below(4) {
        0 => random.below(1 << 20),
        1 => random.below(60_000),
        _ => random.below(1000),
    };
    let (method, path, body) = if random.once_in(2) {
        (Method::GET, format!("/bytes/{length}"), Bytes::new())
    } else {
        (Method::PUT, "/".to_owned(), Bytes::from(vec![b'.'; length]))
    };
    let user = random.below(10);
    let request = Request::builder()
        .method(method)
        .uri(format!("http://{PROXY}{path}"))
        .header("host", format!("{host}.test"))
        .header("x-user", user);
    Ok(request.body(Full::new(body))?)
}

/// # Errors
/// When it takes for ever; what is told is counted.
async fn exchange<E>(
    answer: impl Future<Output = Result<Response<Incoming>, E>>,
    tally: &Tally,
) -> Result<()> {
    let exchange = async {
        let Ok(response) = answer.await else {
            return "broken".to_owned();
        };
        let status = response.status().as_u16().to_string();
        let mut body = response.into_body();
        // Some have no end until they are broken off: nothing of them is kept.
        while let Some(frame) = body.frame().await {
            if frame.is_err() {
                return "broken".to_owned();
            }
        }
        status
    };
    let told = timeout(PATIENCE, exchange).await;
    tally.count(told.context("a request has no end")?);
    Ok(())
}

/// Requests at once, each on a connection of its own.
async fn at_once(random: &mut Random, host: &str, count: usize, tally: &Arc<Tally>) -> Result<()> {
    let mut asked = JoinSet::new();
    for _ in 0..count {
        let (request, tally) = (request(random, host)?, Arc::clone(tally));
        asked.spawn(async move { exchange(client().request(request), &tally).await });
    }
    while let Some(done) = asked.join_next().await {
        done??;
    }
    Ok(())
}

async fn streams(random: &mut Random, tally: &Arc<Tally>) -> Result<()> {
    let stream = TokioIo::new(TcpStream::connect(PROXY).await?);
    let shaken = http2::handshake(TokioExecutor::new(), stream).await;
    let (sender, connection) = shaken.context("no HTTP/2")?;
    let connection = tokio::spawn(connection);
    let mut asked = Vec::new();
    for _ in 0..20 {
        let host = if random.once_in(4) { "rough" } else { "steady" };
        let (mut sender, told) = (sender.clone(), Arc::clone(tally));
        let mut request = request(random, host)?;
        let path = request.uri().path();
        *request.uri_mut() = format!("http://{host}.test{path}").parse()?;
        request.headers_mut().remove("host");
        asked.push(tokio::spawn(async move {
            exchange(sender.send_request(request), &told).await
        }));
        if random.once_in(3) {
            let one = asked.swap_remove(random.below(asked.len()));
            tokio::task::yield_now().await;
            one.abort();
            match one.await {
                // It was done already.
                Ok(done) => done?,
                Err(_) => tally.count("cancelled"),
            }
        }
    }
    for one in asked {
        one.await??;
    }
    drop(sender);
    // Without anybody who may send, it comes to its end.
    let ended = timeout(PATIENCE, connection).await;
    ended.context("a connection does not end")???;
    Ok(())
}

/// Sends some of a request, reads some of the answer, and goes.
async fn leave(random: &mut Random) {
    let host = ["steady", "rough", "busy"][random.below(3)];
    let request = format!(
        "PUT / HTTP/1.1\r\nhost: {host}.test\r\ncontent-length: 100000\r\n\r\n{}",
        ".".repeat(100_000)
    );
    let get =
        format!("GET /bytes/1000000 HTTP/1.1\r\nhost: {host}.test\r\nconnection: close\r\n\r\n");
    let (bytes, reads) = match random.below(5) {
        0 => (&request[..random.below(40)], 0),
        1 => (&request[..60 + random.below(90_000)], 0),
        2 => (&request[..], 0),
        3 => (&get[..], 0),
        _ => (&get[..], random.below(500_000)),
    };
    let going = async {
        let mut stream = TcpStream::connect(PROXY).await?;
        stream.write_all(bytes.as_bytes()).await?;
        stream.flush().await?;
        let mut piece = [0; 4096];
        let mut read = 0;
        while read < reads {
            match stream.read(&mut piece).await? {
                0 => break,
                count => read += count,
            }
        }
        Ok::<_, std::io::Error>(())
    };
    // It may be told to go before it wants to.
    let _gone = going.await;
}
