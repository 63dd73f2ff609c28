//! TLS with a client: the listener is chosen by the name that the client asks for, so that a reload
//! holds for the next handshake and no connection has to be dropped for it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use super::pipeline::Pipeline;
use crate::engine::route::hostname;
use crate::policy::plan::ClientSettings;

/// What a handshake came to.
pub(super) struct Secured<S> {
    pub(super) stream: TlsStream<S>,
    /// The name that the client asked for, in lower case; empty: none.
    pub(super) name: Box<str>,
    pub(super) settings: Arc<ClientSettings>,
    pub(super) http2: bool,
}

/// # Errors
/// The handshake fails, or no listener is for the name.
pub(super) async fn accept<S>(
    pipeline: &Pipeline,
    bind: SocketAddr,
    stream: S,
) -> io::Result<Secured<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let hello = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
    let name: Box<str> = {
        let hello = hello.client_hello();
        hostname(hello.server_name().unwrap_or("")).as_ref().into()
    };
    let (settings, config) = {
        let active = pipeline.active.load();
        let (listener, config) = active.tls(bind, &name).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidInput, "no listener for this name")
        })?;
        (Arc::clone(&listener.client), config)
    };
    // Who goes away from here on has had its answer: that is a failure, not a change of mind.
    let failed = |error| io::Error::new(io::ErrorKind::InvalidData, error);
    let stream = hello.into_stream(config).await.map_err(failed)?;
    let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    Ok(Secured {
        stream,
        name,
        settings,
        http2,
    })
}
