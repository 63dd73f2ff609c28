//! What a client asks for by TLS (SNI), read ahead and given back to the byte.

use std::io;

use bytes::BytesMut;
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::engine::route::hostname;
use crate::l7::io::Rewind;

/// Bytes of a hello, at most; usual ones have 250 to 1,800. What Envoy reads, too.
const MAX_HELLO: usize = 16 << 10;
/// Bytes for which there is room at once.
const PIECE: usize = 2 << 10;
/// The type of record that TLS begins with (RFC 8446 section 5.1). What begins otherwise is no TLS.
const HANDSHAKE: u8 = 22;

/// The name, in lower case; empty: none, or this is no TLS.
///
/// # Errors
/// It begins as TLS and goes on otherwise, is too long, or breaks off before the hello is over.
pub(super) async fn name<S>(stream: Rewind<S>) -> io::Result<(Box<str>, Rewind<S>)>
where
    S: AsyncRead + Unpin,
{
    let (ahead, mut inner) = stream.into_parts();
    let mut seen = BytesMut::from(ahead);
    let mut acceptor = Acceptor::default();
    let mut looked_at = 0;
    loop {
        if seen.first().is_some_and(|first| *first != HANDSHAKE) {
            return Ok((Box::default(), Rewind::new(seen.freeze(), inner)));
        }
        while looked_at < seen.len() {
            looked_at += acceptor.read_tls(&mut &seen[looked_at..])?;
            let accepted = acceptor.accept();
            let accepted = accepted
                .map_err(|(error, _alert)| io::Error::new(io::ErrorKind::InvalidData, error))?;
            if let Some(accepted) = accepted {
                let hello = accepted.client_hello();
                let name = hostname(hello.server_name().unwrap_or("")).as_ref().into();
                return Ok((name, Rewind::new(seen.freeze(), inner)));
            }
        }
        if seen.len() >= MAX_HELLO {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "hello too long"));
        }
        seen.reserve(PIECE);
        if inner.read_buf(&mut seen).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::sync::Arc;
    use std::task::{Context, Poll};

    use bytes::Bytes;
    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, ClientConnection, RootCertStore};
    use tokio::io::ReadBuf;

    use super::*;

    /// Gives so many bytes at a time.
    struct Pieces<'a>(&'a [u8], usize);

    impl AsyncRead for Pieces<'_> {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            let take = self.1.min(self.0.len()).min(buf.remaining());
            let (now, later) = self.0.split_at(take);
            buf.put_slice(now);
            self.0 = later;
            Poll::Ready(Ok(()))
        }
    }

    /// What a client that asks for `name` begins with.
    fn hello(name: &str) -> Vec<u8> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut sent = Vec::new();
        client.write_tls(&mut sent).unwrap();
        sent
    }

    /// The name that is found, and all that is given back.
    async fn found(sent: &[u8], piece: usize) -> io::Result<(String, Vec<u8>)> {
        let ahead = sent.len().min(piece / 2);
        let (ahead, later) = sent.split_at(ahead);
        let stream = Rewind::new(Bytes::copy_from_slice(ahead), Pieces(later, piece));
        let (name, mut stream) = name(stream).await?;
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await?;
        Ok((name.into(), all))
    }

    #[tokio::test]
    async fn names_are_found_and_everything_is_given_back() {
        let early = [hello("X.Example"), vec![23; 40_000]].concat();
        let early = early.as_slice();
        // An address is no name to ask for (RFC 6066 section 3).
        let address = hello("192.0.2.1");
        for piece in [1, 7, 1000, 1 << 20] {
            for (sent, wanted) in [
                (early, "x.example"),
                (&address, ""),
                (b"HELO there", ""),
                (b"\x80", ""),
            ] {
                let (name, all) = found(sent, piece).await.unwrap();
                assert_eq!(name, wanted);
                assert!(all == sent, "{wanted} by {piece}");
            }
        }
    }

    #[tokio::test]
    async fn what_is_no_hello_and_what_has_no_end_is_refused() {
        let whole = hello("x.example");
        // Fragments of a hello that is said to have 61,440 bytes.
        let mut long = Vec::new();
        for start in [&[1, 0, 0xf0, 0][..], &[0; 4], &[0; 4], &[0; 4], &[0; 4]] {
            long.extend([&[22, 3, 1, 0x10, 0][..], start, &[0; 0x0ffc]].concat());
        }
        for piece in [1, 5000] {
            for (sent, wanted) in [
                (&whole[..whole.len() - 1], io::ErrorKind::UnexpectedEof),
                (&[], io::ErrorKind::UnexpectedEof),
                (&[22, 3, 1, 0, 4, 9, 0, 0, 0], io::ErrorKind::InvalidData),
                (&[22, 3, 1, 0xff, 0xff, 1], io::ErrorKind::InvalidData),
                (&long, io::ErrorKind::InvalidData),
            ] {
                let refused = found(sent, piece).await.unwrap_err();
                assert_eq!(refused.kind(), wanted, "{refused}");
            }
        }
    }
}
