//! Asking the running daemon over its admin listener.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio_rustls::TlsConnector;

use super::endpoint::Endpoint;
use crate::l7::tls;
use crate::names;
use crate::policy;
use crate::policy::plan::{Pem, StoreTls};

const TIMEOUT: Duration = Duration::from_secs(10);
/// Where the file is that has the token, if no option says.
const TOKEN_FILE: &str = "LIMITERD_TOKEN_FILE";

/// Where the daemon is, and who asks it.
#[derive(Clone, Debug, clap::Args)]
pub struct Admin {
    /// Admin address of the daemon, as 127.0.0.1:9901, `https://gateway.example:9901` or the path of
    /// its Unix socket.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9901")]
    admin: Endpoint,
    #[command(flatten)]
    credentials: Credentials,
}

/// Who asks, and whom he trusts.
#[derive(Clone, Debug, clap::Args)]
pub struct Credentials {
    /// File with the token to show; by default the one that LIMITERD_TOKEN_FILE names.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Authorities of the daemon's certificate in PEM; by default the system's.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Certificate to show, a chain in PEM.
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// Its key in PEM.
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl Admin {
    /// The daemon there, asked by whom these belong to.
    #[must_use]
    pub const fn by(admin: Endpoint, credentials: Credentials) -> Self {
        Self { admin, credentials }
    }

    /// Sends a request, with `body` as JSON; the answer's text.
    ///
    /// # Errors
    /// When the daemon cannot be reached, or refuses: with its reason.
    pub fn ask(&self, method: Method, path: &str, body: Option<&str>) -> anyhow::Result<String> {
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
    pub fn ask_if_there(&self, path: &str) -> anyhow::Result<Option<String>> {
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
        &self,
        method: Method,
        path: &str,
        body: Option<&str>,
    ) -> anyhow::Result<(StatusCode, String)> {
        let token = self.credentials.token()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let sent = self.send(method, path, body, token);
            let asked = tokio::time::timeout(TIMEOUT, sent).await;
            asked.with_context(|| format!("no answer from {} in {TIMEOUT:?}", self.admin))?
        })
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&str>,
        token: Option<HeaderValue>,
    ) -> anyhow::Result<(StatusCode, String)> {
        let stream = self.connect().await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, self.admin.authority())
            .header(CONTENT_TYPE, "application/json");
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, token);
        }
        let request = request.body(Full::new(Bytes::from(body.unwrap_or("").to_owned())))?;
        let answer = async {
            let response = sender.send_request(request).await?;
            let status = response.status();
            let text = response.into_body().collect().await?.to_bytes();
            anyhow::Ok((status, String::from_utf8_lossy(&text).into_owned()))
        };
        let mut connection = std::pin::pin!(connection);
        tokio::select! {
            answer = answer => answer.with_context(|| format!("limiterd at {}", self.admin)),
            ended = &mut connection => {
                ended.with_context(|| {
                    format!("limiterd at {} speaks otherwise; https:// or not?", self.admin)
                })?;
                bail!("limiterd closed the connection");
            }
        }
    }

    async fn connect(&self) -> anyhow::Result<Box<dyn Stream>> {
        let unreachable = || {
            format!(
                "cannot reach limiterd at {}; is it running? --admin names another address",
                self.admin
            )
        };
        let (host, port, secure) = match &self.admin {
            Endpoint::Unix(path) => {
                let stream = UnixStream::connect(path).await;
                return Ok(Box::new(stream.with_context(unreachable)?));
            }
            Endpoint::Tcp { host, port, secure } => (host.as_str(), *port, *secure),
        };
        let stream = names::connect(host, port).await;
        let stream = stream.with_context(unreachable)?;
        if !secure {
            return Ok(Box::new(stream));
        }
        let name = ServerName::try_from(host.to_owned())
            .with_context(|| format!("`{host}` is no name that a certificate can have"))?;
        let config = tls::peer(&self.credentials.tls()?)?;
        let connector = TlsConnector::from(tls::offering(&config, &["http/1.1"]));
        let secured = connector.connect(name, stream).await;
        let secured = secured.with_context(|| {
            format!(
                "no TLS with limiterd at {}; --ca names the authorities that it goes by, --cert a \
                 certificate to show",
                self.admin
            )
        })?;
        Ok(Box::new(secured))
    }
}

impl Credentials {
    /// What to show as `Authorization`.
    fn token(&self) -> anyhow::Result<Option<HeaderValue>> {
        let named = std::env::var_os(TOKEN_FILE).filter(|path| !path.is_empty());
        let Some(path) = self.token_file.clone().or_else(|| named.map(PathBuf::from)) else {
            return Ok(None);
        };
        let text = String::from_utf8(read(&path)?)
            .ok()
            .with_context(|| format!("{}: this is not UTF-8", path.display()))?;
        let mut lines = text.lines().map(str::trim);
        let token = lines.find(|line| !line.is_empty());
        let token = token.with_context(|| format!("{}: no token is in it", path.display()))?;
        let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
            .ok()
            .with_context(|| format!("{}: this is no token", path.display()))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    fn tls(&self) -> anyhow::Result<StoreTls> {
        let authorities = self.ca.as_deref().map(read).transpose()?;
        let certificate = match (&self.cert, &self.key) {
            (Some(chain), Some(key)) => {
                let name = chain.display().to_string();
                let pair = policy::certificate(&name, &read(chain)?, &read(key)?);
                Some(pair.map_err(anyhow::Error::msg)?)
            }
            _ => None,
        };
        Ok(StoreTls {
            authorities: authorities.map(Pem),
            certificate,
        })
    }
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}
