//! HTTP clients: one request, or many at once, each on a connection of its own.

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::task::JoinSet;

/// An answer, read to its end.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header as text; empty if it is absent.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or("")
    }
}

/// HTTP version to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speak {
    Http1,
    /// HTTP/2 in clear text with prior knowledge.
    H2c,
}

/// One GET over HTTP/1.1.
///
/// # Errors
/// When there is no answer.
pub fn get(url: &str) -> Result<Answer> {
    let request = Request::get(url).body(Full::default())?;
    many(Speak::Http1, vec![request])?
        .pop()
        .context("no answer")
}

/// `count` GETs at once, with these headers.
///
/// # Errors
/// When one of them has no answer.
pub fn gets(url: &str, headers: &[(&str, &str)], count: usize) -> Result<Vec<Answer>> {
    let request = || {
        let mut request = Request::get(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Ok(request.body(Full::default())?)
    };
    many(
        Speak::Http1,
        (0..count).map(|_| request()).collect::<Result<_>>()?,
    )
}

/// All requests at once, each on a connection of its own.
///
/// # Errors
/// When one of them has no answer.
pub fn many(speak: Speak, requests: Vec<Request<Full<Bytes>>>) -> Result<Vec<Answer>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut asked = JoinSet::new();
        for request in requests {
            let client = Client::builder(TokioExecutor::new())
                .http2_only(speak == Speak::H2c)
                .build_http();
            asked.spawn(async move {
                let response = client.request(request).await?;
                let (head, body) = response.into_parts();
                let body = body.collect().await?.to_bytes();
                Ok(Answer {
                    status: head.status,
                    headers: head.headers,
                    body,
                })
            });
        }
        let mut answers = Vec::new();
        while let Some(answer) = asked.join_next().await {
            answers
                .push(answer?.map_err(|error: anyhow::Error| error.context("a request failed"))?);
        }
        Ok(answers)
    })
}

/// How many answers have this status.
#[must_use]
pub fn count(answers: &[Answer], status: u16) -> usize {
    answers
        .iter()
        .filter(|answer| answer.status == status)
        .count()
}
