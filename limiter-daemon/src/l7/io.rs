//! Streams: bytes that were read ahead given back, and the kinds of connections behind one type.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::client::TlsStream;

/// A stream whose first bytes were read already.
#[derive(Debug)]
pub(super) struct Rewind<S> {
    ahead: Bytes,
    inner: S,
}

impl<S> Rewind<S> {
    pub(super) const fn new(ahead: Bytes, inner: S) -> Self {
        Self { ahead, inner }
    }

    pub(super) fn into_parts(self) -> (Bytes, S) {
        (self.ahead, self.inner)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Rewind<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            return Pin::new(&mut self.inner).poll_read(cx, buf);
        }
        let take = self.ahead.len().min(buf.remaining());
        buf.put_slice(&self.ahead[..take]);
        self.ahead.advance(take);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Rewind<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// Writes `bufs`, joined if they are small: one `send` costs less than a `writev`.
pub(super) fn write_joined<S: AsyncWrite + Unpin>(
    stream: &mut S,
    cx: &mut Context<'_>,
    bufs: &[io::IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    const SMALL: usize = 1 << 10;
    let stream = Pin::new(stream);
    if let [only] = bufs {
        return stream.poll_write(cx, only);
    }
    if bufs.iter().map(|buf| buf.len()).sum::<usize>() > SMALL {
        return stream.poll_write_vectored(cx, bufs);
    }
    let mut joined = [0; SMALL];
    let mut length = 0;
    for buf in bufs {
        joined[length..length + buf.len()].copy_from_slice(buf);
        length += buf.len();
    }
    stream.poll_write(cx, &joined[..length])
}

/// A connection to an endpoint, before TLS.
#[derive(Debug)]
pub(super) enum Raw {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A connection to an endpoint.
#[derive(Debug)]
pub(super) enum UpstreamIo {
    Plain(Raw),
    Tls(Box<TlsStream<Raw>>),
}

/// Passes reads and writes on to whichever stream an enum holds.
macro_rules! passes_on {
    ($name:ident { $($variant:ident),+ }) => {
        impl AsyncRead for $name {
            fn poll_read(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                match self.get_mut() { $(Self::$variant(s) => Pin::new(s).poll_read(cx, buf)),+ }
            }
        }

        impl AsyncWrite for $name {
            fn poll_write(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &[u8],
            ) -> Poll<io::Result<usize>> {
                match self.get_mut() { $(Self::$variant(s) => Pin::new(s).poll_write(cx, buf)),+ }
            }

            fn poll_write_vectored(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                bufs: &[io::IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                match self.get_mut() { $(Self::$variant(s) => write_joined(s, cx, bufs)),+ }
            }

            fn is_write_vectored(&self) -> bool {
                match self { $(Self::$variant(s) => s.is_write_vectored()),+ }
            }

            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() { $(Self::$variant(s) => Pin::new(s).poll_flush(cx)),+ }
            }

            fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() { $(Self::$variant(s) => Pin::new(s).poll_shutdown(cx)),+ }
            }
        }
    };
}

passes_on!(Raw { Tcp, Unix });
passes_on!(UpstreamIo { Plain, Tls });

/// Whether the connection opens with HTTP/2's preface (RFC 9113 section 3.4); `PRI ` tells it from
/// every method. What was read for it is given back; `begun` says whether there is any.
pub(super) async fn speaks_http2<S>(
    stream: Rewind<S>,
    begun: &mut bool,
) -> io::Result<(bool, Rewind<S>)>
where
    S: AsyncRead + Unpin,
{
    const OPENING: &[u8] = b"PRI ";
    let (ahead, mut inner) = stream.into_parts();
    let mut seen = BytesMut::from(ahead);
    loop {
        *begun = !seen.is_empty();
        let got = seen.len().min(OPENING.len());
        if seen[..got] != OPENING[..got] {
            return Ok((false, Rewind::new(seen.freeze(), inner)));
        }
        if got == OPENING.len() {
            return Ok((true, Rewind::new(seen.freeze(), inner)));
        }
        if inner.read_buf(&mut seen).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// Waits for a connection's first bytes. They are given back; `begun` says whether there are any.
///
/// # Errors
/// None come any more.
pub(super) async fn first_bytes<S>(stream: Rewind<S>, begun: &mut bool) -> io::Result<Rewind<S>>
where
    S: AsyncRead + Unpin,
{
    /// A TLS hello is about as long.
    const ROOM: usize = 512;
    let (ahead, mut inner) = stream.into_parts();
    if !ahead.is_empty() {
        *begun = true;
        return Ok(Rewind::new(ahead, inner));
    }
    let mut seen = BytesMut::with_capacity(ROOM);
    if inner.read_buf(&mut seen).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    *begun = true;
    Ok(Rewind::new(seen.freeze(), inner))
}

/// Checks HTTP/2's preface and that SETTINGS follow it (RFC 9113 section 3.4), which the h2 crate
/// leaves out. What was read is given back; `begun` says whether there is any.
///
/// # Errors
/// Something else comes.
pub(super) async fn http2_preface<S>(stream: Rewind<S>, begun: &mut bool) -> io::Result<Rewind<S>>
where
    S: AsyncRead + Unpin,
{
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    /// Length of a frame's head, and where in it the type is.
    const HEAD: usize = 9;
    const TYPE: usize = 3;
    const SETTINGS: u8 = 4;
    let (ahead, mut inner) = stream.into_parts();
    let mut seen = BytesMut::from(ahead);
    loop {
        *begun = !seen.is_empty();
        let got = seen.len().min(PREFACE.len());
        if seen[..got] != PREFACE[..got] {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "no HTTP/2"));
        }
        match seen.get(PREFACE.len() + TYPE) {
            Some(&SETTINGS) if seen.len() >= PREFACE.len() + HEAD => {
                return Ok(Rewind::new(seen.freeze(), inner));
            }
            None | Some(&SETTINGS) => {}
            Some(_) => return Err(io::Error::new(io::ErrorKind::InvalidData, "no SETTINGS")),
        }
        if inner.read_buf(&mut seen).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_preface_is_told_from_methods_and_given_back() {
        for (sent, wanted) in [
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), true),
            (b"PRINT / HTTP/1.1\r\n\r\n", false),
            (b"POST / HTTP/1.1\r\n\r\n", false),
            (b"G", false),
        ] {
            for ahead in 0..=sent.len().min(5) {
                let stream = Rewind::new(Bytes::copy_from_slice(&sent[..ahead]), &sent[ahead..]);
                let (http2, mut stream) = speaks_http2(stream, &mut false).await.unwrap();
                assert_eq!(http2, wanted);
                let mut all = Vec::new();
                stream.read_to_end(&mut all).await.unwrap();
                assert_eq!(all, sent);
            }
        }
        assert!(
            speaks_http2(Rewind::new(Bytes::new(), b"PR".as_slice()), &mut false)
                .await
                .is_err()
        );
    }
}
