//! TLS that ends here, whatever is in it.

use std::io;
use std::sync::Arc;

use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use crate::l7::active::TcpTls;

/// Shakes hands. A client that offers by ALPN nothing of what is offered here gets no answer to it,
/// as from Envoy, and no refusal: what is spoken is for the two ends to know.
///
/// # Errors
/// The handshake fails.
pub(super) async fn accept<S>(tls: &TcpTls, stream: S) -> io::Result<TlsStream<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let hello = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
    let known = |offered: &[u8]| tls.config.alpn_protocols.iter().any(|own| own == offered);
    let agreed = match hello.client_hello().alpn() {
        Some(mut offered) => offered.any(known),
        None => true,
    };
    let config = if agreed { &tls.config } else { &tls.silent };
    // Who goes away from here on has had its answer: that is a failure, not a change of mind.
    let failed = |error| io::Error::new(io::ErrorKind::InvalidData, error);
    let shaken = hello.into_stream(Arc::clone(config)).await;
    shaken.map_err(failed)
}
