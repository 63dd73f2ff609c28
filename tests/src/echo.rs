//! Upstreams of TCP that tell who they are.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use anyhow::Result;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::netns::Netns;

/// An upstream in `netns` that says `name` and then what it hears, with TLS or without; it ends with
/// the process.
///
/// # Errors
/// When the address is taken.
pub fn echo(
    netns: &Netns,
    address: &str,
    name: &'static str,
    tls: Option<Arc<ServerConfig>>,
) -> Result<()> {
    let listener = netns.enter(|| Ok(TcpListener::bind(address)?))?;
    thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            let tls = tls.clone();
            // What becomes of connections is seen at their other ends.
            thread::spawn(move || match tls {
                None => clear(&stream, name),
                Some(tls) => secured(stream, name, tls),
            });
        }
    });
    Ok(())
}

fn clear(stream: &TcpStream, name: &str) -> Result<()> {
    let mut writer = stream.try_clone()?;
    writer.write_all(name.as_bytes())?;
    std::io::copy(&mut &*stream, &mut writer)?;
    Ok(stream.shutdown(Shutdown::Write)?)
}

fn secured(stream: TcpStream, name: &str, tls: Arc<ServerConfig>) -> Result<()> {
    let mut stream = StreamOwned::new(ServerConnection::new(tls)?, stream);
    stream.write_all(name.as_bytes())?;
    let mut piece = [0; 1024];
    loop {
        let got = stream.read(&mut piece)?;
        if got == 0 {
            return Ok(());
        }
        stream.write_all(piece.get(..got).unwrap_or_default())?;
    }
}
