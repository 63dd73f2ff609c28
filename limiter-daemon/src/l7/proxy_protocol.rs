//! The PROXY protocol before everything else: who a connection is from, if a proxy passes it on.

use std::io;
use std::net::SocketAddr;

use bytes::{Buf as _, BytesMut};
use ppp::{HeaderResult, PartialResult as _, v1, v2};
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::io::Rewind;
use crate::policy::plan::ProxyProtocol;

/// Bytes of a header at most; version 2 could state 65,551, and nobody sends more than a few
/// hundred.
const MAX_HEADER: usize = 4 << 10;
/// Opening of version 1, whose header is one line of at most so many bytes.
const V1: &[u8] = b"PROXY ";
const V1_LINE: usize = 107;
/// Opening of version 2.
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Reads the header where there must or may be one. Gives the stream behind it, and the address that
/// the header states, if any (a health check of the proxy's own states none).
///
/// # Errors
/// Reading fails, or there is no valid header where one must be.
pub(super) async fn read<S>(
    mode: ProxyProtocol,
    mut stream: S,
) -> io::Result<(Rewind<S>, Option<SocketAddr>)>
where
    S: AsyncRead + Unpin,
{
    let mut seen = BytesMut::new();
    if mode == ProxyProtocol::Off {
        return Ok((Rewind::new(seen.freeze(), stream), None));
    }
    loop {
        if stream.read_buf(&mut seen).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if ![V1, V2].iter().any(|signature| opens(&seen, signature)) {
            if mode == ProxyProtocol::Optional {
                return Ok((Rewind::new(seen.freeze(), stream), None));
            }
            return Err(invalid("no PROXY protocol header"));
        }
        if seen.starts_with(&V1[..1]) && seen.len() < V1_LINE && !seen.contains(&b'\n') {
            continue;
        }
        let header = HeaderResult::parse(&seen);
        if !header.is_incomplete() {
            let (length, source) = understood(&header)?;
            seen.advance(length);
            return Ok((Rewind::new(seen.freeze(), stream), source));
        }
        if seen.len() >= MAX_HEADER {
            return Err(invalid("PROXY protocol header too long"));
        }
    }
}

/// Whether `seen` is the beginning of `signature`, or begins with it.
fn opens(seen: &[u8], signature: &[u8]) -> bool {
    let both = seen.len().min(signature.len());
    seen[..both] == signature[..both]
}

/// Length of the header and the source that it states.
fn understood(header: &HeaderResult<'_>) -> io::Result<(usize, Option<SocketAddr>)> {
    match header {
        HeaderResult::V1(Ok(header)) => {
            let source = match header.addresses {
                v1::Addresses::Tcp4(ip) => Some((ip.source_address, ip.source_port).into()),
                v1::Addresses::Tcp6(ip) => Some((ip.source_address, ip.source_port).into()),
                v1::Addresses::Unknown => None,
            };
            Ok((header.header.len(), source))
        }
        HeaderResult::V2(Ok(header)) => {
            let source = match header.addresses {
                _ if header.command == v2::Command::Local => None,
                v2::Addresses::IPv4(ip) => Some((ip.source_address, ip.source_port).into()),
                v2::Addresses::IPv6(ip) => Some((ip.source_address, ip.source_port).into()),
                v2::Addresses::Unspecified | v2::Addresses::Unix(_) => None,
            };
            Ok((header.len(), source))
        }
        HeaderResult::V1(Err(_)) | HeaderResult::V2(Err(_)) => {
            Err(invalid("malformed PROXY protocol header"))
        }
    }
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = b"PROXY TCP4 192.0.2.1 198.51.100.1 5000 80\r\n";
    const UNKNOWN: &[u8] = b"PROXY UNKNOWN\r\n";
    const BINARY: &[u8] =
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\xc6\x33\x64\x01\x13\x88\0\x50";
    const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
    const HTTP: &[u8] = b"POST / HTTP/1.1\r\n\r\n";

    /// Sends byte by byte.
    #[derive(Debug)]
    struct Slow<'a>(&'a [u8]);

    impl AsyncRead for Slow<'_> {
        fn poll_read(
            mut self: std::pin::Pin<&mut Self>,
            _cx: &mut std::task::Context<'_>,
            buf: &mut tokio::io::ReadBuf<'_>,
        ) -> std::task::Poll<io::Result<()>> {
            if let Some((first, rest)) = self.0.split_first() {
                buf.put_slice(&[*first]);
                self.0 = rest;
            }
            std::task::Poll::Ready(Ok(()))
        }
    }

    async fn outcome(mode: ProxyProtocol, sent: &[u8]) -> Option<(Option<SocketAddr>, Vec<u8>)> {
        let (mut stream, source) = read(mode, Slow(sent)).await.ok()?;
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        Some((source, rest))
    }

    #[tokio::test]
    async fn headers_of_both_versions_state_the_source() {
        let stated = Some("192.0.2.1:5000".parse().unwrap());
        for (header, source) in [
            (TEXT, stated),
            (BINARY, stated),
            (UNKNOWN, None),
            (LOCAL, None),
        ] {
            let sent = [header, HTTP].concat();
            for mode in [ProxyProtocol::Required, ProxyProtocol::Optional] {
                assert_eq!(outcome(mode, &sent).await, Some((source, HTTP.to_vec())));
            }
            assert_eq!(
                outcome(ProxyProtocol::Off, &sent).await,
                Some((None, sent.clone()))
            );
            let cut = outcome(ProxyProtocol::Required, &header[..header.len() - 1]).await;
            assert_eq!(cut, None);
        }
    }

    #[tokio::test]
    async fn what_is_no_header_is_let_through_or_not() {
        let optional = outcome(ProxyProtocol::Optional, HTTP).await;
        assert_eq!(optional, Some((None, HTTP.to_vec())));
        assert_eq!(outcome(ProxyProtocol::Required, HTTP).await, None);
        for bad in [
            b"PROXY TCP4 192.0.2.999 198.51.100.1 5000 80\r\n".to_vec(),
            [b"PROXY TCP4 ".as_slice(), &[b'1'; 200]].concat(),
            [&BINARY[..14], b"\xff\xff".as_slice(), &[0; 8 << 10]].concat(),
        ] {
            assert_eq!(outcome(ProxyProtocol::Optional, &bad).await, None);
            assert_eq!(outcome(ProxyProtocol::Required, &bad).await, None);
        }
    }
}
