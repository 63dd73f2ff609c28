//! The rate limit service on the wire: what HTTP/2 may bring, and what no good client sends.

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use h2::client::SendRequest;
use h2::{Ping, PingPong, Reason};
use http::{HeaderMap, Method, Request, StatusCode};
use limiter_daemon::rls::proto::{RateLimitResponse, SHOULD_RATE_LIMIT};
use prost::Message as _;
use tests::daemon::{Daemon, Policies};
use tests::netns::Netns;
use tests::rls::question;
use tokio::net::TcpStream;

const ADDRESS: &str = "127.0.0.1:8081";
const GRPC: &str = "application/grpc";
const FILES: &str = "
apiVersion: limiterd.io/v1alpha1
kind: LimiterConfig
metadata: { name: limiterd }
spec: { rls: { listen: '127.0.0.1:8081' } }
---
domain: shop
descriptors:
  - key: user
    rate_limit: { unit: year, requests_per_unit: 1000 }
";

/// An answer, whatever it is.
#[derive(Debug)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
    trailers: HeaderMap,
}

impl Answer {
    /// The status of gRPC, in the trailers or in a head without a body.
    fn grpc(&self) -> &str {
        let status = self.trailers.get("grpc-status");
        let status = status.or_else(|| self.headers.get("grpc-status"));
        status
            .and_then(|status| status.to_str().ok())
            .unwrap_or("none")
    }

    /// What is left of the limit.
    fn left(&self) -> Result<u32> {
        let message = self.body.get(5..).context("no message")?;
        let response = RateLimitResponse::decode(message)?;
        let status = response.statuses.first().context("no status")?;
        Ok(status.limit_remaining)
    }
}

struct Client {
    sender: SendRequest<Bytes>,
    pings: PingPong,
}

impl Client {
    async fn connect() -> Result<Self> {
        let stream = TcpStream::connect(ADDRESS).await?;
        let (sender, mut connection) = h2::client::handshake(stream).await?;
        let pings = connection.ping_pong().context("no pings")?;
        let _ends_with_the_runtime = tokio::spawn(connection);
        Ok(Self { sender, pings })
    }

    /// Asks with a body in pieces, each of which has arrived before the next is sent.
    async fn ask(
        &mut self,
        method: Method,
        path: &str,
        kind: &str,
        pieces: &[&[u8]],
    ) -> Result<Answer> {
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{ADDRESS}{path}"))
            .header("content-type", kind)
            .header("te", "trailers")
            .body(())?;
        self.sender = self.sender.clone().ready().await?;
        let (answer, mut body) = self.sender.send_request(request, pieces.is_empty())?;
        for (index, piece) in pieces.iter().enumerate() {
            let last = index + 1 == pieces.len();
            // One who was answered already need not be told the rest.
            let _answered = body.send_data(Bytes::copy_from_slice(piece), last);
            if !last {
                self.pings.ping(Ping::opaque()).await?;
            }
        }
        let (head, mut stream) = answer.await?.into_parts();
        let mut body = Vec::new();
        while let Some(data) = stream.data().await {
            let data = data?;
            stream.flow_control().release_capacity(data.len())?;
            body.extend(data);
        }
        Ok(Answer {
            status: head.status,
            headers: head.headers,
            body,
            trailers: stream.trailers().await?.unwrap_or_default(),
        })
    }

    async fn call(&mut self, pieces: &[&[u8]]) -> Result<Answer> {
        self.ask(Method::POST, SHOULD_RATE_LIMIT, GRPC, pieces)
            .await
    }
}

fn framed(compressed: u8, message: &[u8]) -> Result<Vec<u8>> {
    let length = u32::try_from(message.len())?.to_be_bytes();
    Ok([&[compressed][..], &length, message].concat())
}

fn on_the_wire(test: impl AsyncFnOnce(Client) -> Result<()> + Send) -> Result<()> {
    let netns = Netns::new("rlsw")?;
    let policies = Policies::new(&[("0.yaml", FILES)])?;
    let _daemon = Daemon::start(&netns, policies.path())?;
    netns.enter(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async { test(Client::connect().await?).await })
    })
}

#[test]
fn a_question_may_come_in_pieces() -> Result<()> {
    on_the_wire(async |mut client| {
        let message = framed(0, &question("shop", &["user=ann"]).encode_to_vec())?;
        let (begin, end) = message.split_at(3);
        let whole = client.call(&[&message]).await?;
        ensure!((whole.grpc(), whole.left()?) == ("0", 999), "{whole:?}");
        let ways: [Vec<&[u8]>; 3] = [
            vec![begin, b"", end],
            vec![&message, b""],
            vec![b"", begin, end, b""],
        ];
        for pieces in ways {
            let answer = client.call(&pieces).await?;
            ensure!(
                (answer.status, answer.grpc()) == (StatusCode::OK, "0"),
                "{pieces:?}: {answer:?}"
            );
        }
        ensure!(client.call(&[&message]).await?.left()? == 995);
        Ok(())
    })
}

#[test]
fn what_is_no_question_is_told_so_and_counts_nothing() -> Result<()> {
    on_the_wire(async |mut client| {
        let message = question("shop", &["user=ann"]).encode_to_vec();
        let good = framed(0, &message)?;
        let two = [good.as_slice(), &good].concat();
        let piece = vec![b'x'; 16 << 10];
        let large: Vec<&[u8]> = std::iter::once(&[0, 0, 16, 0, 0][..])
            .chain(std::iter::repeat_n(piece.as_slice(), 17))
            .collect();
        let compressed = framed(1, &message)?;
        let no_protobuf = framed(0, b"\x0a\x7f")?;
        let cases: [(Vec<&[u8]>, &str); 7] = [
            (vec![], "13"),
            (vec![b""], "13"),
            (vec![&good[..good.len() - 1]], "13"),
            (vec![&two], "13"),
            (vec![&compressed], "12"),
            (vec![&no_protobuf], "13"),
            (large, "11"),
        ];
        for (pieces, code) in cases {
            let answer = client.call(&pieces).await?;
            ensure!(
                (answer.status, answer.grpc()) == (StatusCode::OK, code),
                "{code}: {answer:?}"
            );
        }
        let answer = client
            .ask(Method::POST, SHOULD_RATE_LIMIT, "text/plain", &[&good])
            .await?;
        ensure!(answer.status == 415, "{answer:?}");
        let answer = client.ask(Method::POST, "/no/such", GRPC, &[&good]).await?;
        ensure!(answer.grpc() == "12", "{answer:?}");
        // One who goes away in the middle is no harm to others.
        let request = Request::post(format!("http://{ADDRESS}{SHOULD_RATE_LIMIT}"))
            .header("content-type", GRPC)
            .body(())?;
        let (_answer, mut body) = client.sender.send_request(request, false)?;
        body.send_data(Bytes::copy_from_slice(&good[..7]), false)?;
        client.pings.ping(Ping::opaque()).await?;
        body.send_reset(Reason::CANCEL);
        ensure!(client.call(&[&good]).await?.left()? == 999);
        Ok(())
    })
}

#[test]
fn many_questions_at_once_are_all_counted() -> Result<()> {
    on_the_wire(async |client| {
        let message = framed(0, &question("shop", &["user=ann"]).encode_to_vec())?;
        let message = Bytes::from(message);
        let mut sender = client.sender;
        let mut left = Vec::new();
        for _ in 0..5 {
            let mut answers = Vec::new();
            for _ in 0..100 {
                sender = sender.ready().await?;
                let request = Request::post(format!("http://{ADDRESS}{SHOULD_RATE_LIMIT}"))
                    .header("content-type", GRPC)
                    .body(())?;
                let (answer, mut body) = sender.send_request(request, false)?;
                body.send_data(message.clone(), true)?;
                answers.push(answer);
            }
            for answer in answers {
                let mut stream = answer.await?.into_body();
                let data = stream.data().await.context("no message")??;
                let response = RateLimitResponse::decode(&data[5..])?;
                left.push(response.statuses[0].limit_remaining);
            }
        }
        left.sort_unstable();
        ensure!(left == (500..1000).collect::<Vec<_>>(), "{left:?}");
        Ok(())
    })
}

#[test]
fn json_and_health_over_http2() -> Result<()> {
    on_the_wire(async |mut client| {
        let json = br#"{"domain": "shop", "descriptors": [{"entries": [{"key": "user", "value": "ann"}]}]}"#;
        let (begin, end) = json.split_at(20);
        let kind = "application/json";
        let answer = client
            .ask(Method::POST, "/json", kind, &[begin, end])
            .await?;
        ensure!(answer.status == 200, "{answer:?}");
        let text = String::from_utf8(answer.body)?;
        ensure!(text.contains("999"), "{text}");
        for (method, body) in [(Method::GET, "OK"), (Method::HEAD, "")] {
            let answer = client.ask(method, "/healthcheck", kind, &[]).await?;
            ensure!(answer.status == 200, "{answer:?}");
            ensure!(answer.body == body.as_bytes(), "{answer:?}");
        }
        Ok(())
    })
}
