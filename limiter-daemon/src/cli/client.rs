//! Asking the running daemon over its admin listener.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

const TIMEOUT: Duration = Duration::from_secs(10);

/// Where the daemon is.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Admin {
    /// Admin address of the daemon.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9901")]
    admin: SocketAddr,
}

impl Admin {
    /// The daemon at `address`.
    #[must_use]
    pub const fn at(address: SocketAddr) -> Self {
        Self { admin: address }
    }

    /// Sends a request, with `body` as JSON; the answer's text.
    ///
    /// # Errors
    /// When the daemon cannot be reached, or refuses: with its reason.
    pub fn ask(self, method: Method, path: &str, body: Option<&str>) -> anyhow::Result<String> {
        let (status, text) = self.answer(method, path, body)?;
        if !status.is_success() {
            bail!("{}", text.trim_end());
        }
        Ok(text)
    }

    /// What is under `path`; `None`: this daemon has no such thing.
    ///
    /// # Errors
    /// As [`Admin::ask`].
    pub fn ask_if_there(self, path: &str) -> anyhow::Result<Option<String>> {
        let (status, text) = self.answer(Method::GET, path, None)?;
        match status {
            StatusCode::NOT_FOUND => Ok(None),
            status if status.is_success() => Ok(Some(text)),
            _ => bail!("{}", text.trim_end()),
        }
    }

    /// Status and text of the answer, whatever they are.
    ///
    /// # Errors
    /// When the daemon cannot be reached.
    pub fn answer(
        self,
        method: Method,
        path: &str,
        body: Option<&str>,
    ) -> anyhow::Result<(StatusCode, String)> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let asked = tokio::time::timeout(TIMEOUT, self.send(method, path, body)).await;
            asked.with_context(|| format!("no answer from {} in {TIMEOUT:?}", self.admin))?
        })
    }

    async fn send(
        self,
        method: Method,
        path: &str,
        body: Option<&str>,
    ) -> anyhow::Result<(StatusCode, String)> {
        let stream = TcpStream::connect(self.admin).await.with_context(|| {
            format!(
                "cannot reach limiterd at {}; is it running? --admin names another address",
                self.admin
            )
        })?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, self.admin.to_string())
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body.unwrap_or("").to_owned())))?;
        let answer = async {
            let response = sender.send_request(request).await?;
            let status = response.status();
            let text = response.into_body().collect().await?.to_bytes();
            anyhow::Ok((status, String::from_utf8_lossy(&text).into_owned()))
        };
        let mut connection = std::pin::pin!(connection);
        tokio::select! {
            answer = answer => answer,
            ended = &mut connection => {
                ended?;
                bail!("limiterd closed the connection");
            }
        }
    }
}
