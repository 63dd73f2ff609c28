//! Clients that come one after the other, each with a connection and a request of its own.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context as _, Result, ensure};

use crate::daemon::eventually;
use crate::netns::Netns;
use crate::raw::bounded;

const CLIENTS: usize = 8;

/// What became of them.
#[derive(Debug, Default)]
pub struct Storm {
    over: AtomicBool,
    answered: AtomicUsize,
    refused: AtomicUsize,
    /// Why clients that were let in got no answer.
    broken: Mutex<Vec<String>>,
}

impl Storm {
    /// Does `work` while clients in `netns` ask `address`.
    ///
    /// # Errors
    /// What `work` returns, and when the namespace cannot be entered.
    pub fn during(
        netns: &Netns,
        address: SocketAddr,
        work: impl FnOnce(&Self) -> Result<()>,
    ) -> Result<Self> {
        let storm = Self::default();
        thread::scope(|scope| {
            let clients: Vec<_> = (0..CLIENTS)
                .map(|_| scope.spawn(|| netns.enter(|| storm.client(address))))
                .collect();
            let result = work(&storm);
            storm.over.store(true, Ordering::Relaxed);
            for client in clients {
                client
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            }
            result
        })?;
        Ok(storm)
    }

    fn client(&self, address: SocketAddr) -> Result<()> {
        while !self.over.load(Ordering::Relaxed) {
            match TcpStream::connect(address) {
                Ok(stream) => match ask(stream) {
                    Ok(()) => drop(self.answered.fetch_add(1, Ordering::Relaxed)),
                    Err(error) => self.broken().push(format!("{error:#}")),
                },
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                    self.refused.fetch_add(1, Ordering::Relaxed);
                }
                // It was let in, and before it knew, it was reset.
                Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                    self.broken().push(error.to_string());
                }
                Err(error) => return Err(error).context("cannot connect"),
            }
        }
        Ok(())
    }

    fn broken(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.broken
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Waits until so many more clients have been answered.
    ///
    /// # Errors
    /// When they are not.
    pub fn pass(&self, clients: usize) -> Result<()> {
        let from = self.answered();
        eventually("the storm", || {
            Ok((self.answered() >= from + clients).then_some(()))
        })
    }

    #[must_use]
    pub fn answered(&self) -> usize {
        self.answered.load(Ordering::Relaxed)
    }

    #[must_use]
    pub fn refused(&self) -> usize {
        self.refused.load(Ordering::Relaxed)
    }

    /// # Errors
    /// When a client that was let in got no answer.
    pub fn all_answered(&self) -> Result<()> {
        let broken = self.broken();
        ensure!(
            broken.is_empty(),
            "{} of {}: {:?}",
            broken.len(),
            self.answered(),
            broken.first()
        );
        Ok(())
    }
}

fn ask(mut stream: TcpStream) -> Result<()> {
    bounded(&stream)?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a.test\r\nconnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let head = String::from_utf8_lossy(&answer);
    ensure!(head.starts_with("HTTP/1.1 200 "), "{head:?}");
    Ok(())
}
