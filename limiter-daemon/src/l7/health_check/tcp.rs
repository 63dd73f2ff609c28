//! Checks by a TCP connection, over TLS where the backend speaks it.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::probe::Failure;
use crate::l7::upstream::{Offer, Target, open};

/// Bytes that are looked at.
const MAX_RECEIVED: usize = 64 << 10;

/// Connects, sends `send`, and waits until all of `receive` have come.
pub(super) async fn ask(target: &Target, send: &[u8], receive: &[Vec<u8>]) -> Result<(), Failure> {
    let opened = open(target, None, Offer::http(target.is_http2())).await;
    let (mut io, _) = opened.map_err(Failure::Unreachable)?;
    if !send.is_empty() {
        io.write_all(send).await.map_err(Failure::broken)?;
        io.flush().await.map_err(Failure::broken)?;
    }
    let mut wanted = Wanted {
        blocks: receive,
        seen: Vec::new(),
    };
    let mut buffer = [0; 4 << 10];
    let mut received = 0;
    while !wanted.come() {
        if received >= MAX_RECEIVED {
            return Err(Failure::Bytes(MAX_RECEIVED));
        }
        let read = io.read(&mut buffer).await.map_err(Failure::broken)?;
        if read == 0 {
            return Err(Failure::broken("closed before it sent what is expected"));
        }
        received += read;
        wanted.seen.extend_from_slice(&buffer[..read]);
    }
    Ok(())
}

/// Blocks that must come in this order, with anything between them.
struct Wanted<'a> {
    blocks: &'a [Vec<u8>],
    /// Behind the blocks that came.
    seen: Vec<u8>,
}

impl Wanted<'_> {
    /// Whether all have come.
    fn come(&mut self) -> bool {
        while let Some((first, rest)) = self.blocks.split_first() {
            let Some(at) = position(&self.seen, first) else {
                return false;
            };
            self.seen.drain(..at + first.len());
            self.blocks = rest;
        }
        true
    }
}

fn position(seen: &[u8], wanted: &[u8]) -> Option<usize> {
    if wanted.is_empty() {
        return Some(0);
    }
    seen.windows(wanted.len()).position(|part| part == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_come_in_their_order_with_anything_between() {
        let blocks = [b"ab".to_vec(), b"b".to_vec(), Vec::new(), b"c".to_vec()];
        for (pieces, come) in [
            (&["ab", "b", "c"][..], true),
            (&["..a", "b..b", "..c"], true),
            (&["abc"], false),
            (&["b", "ab", "c", "b"], false),
            (&["b", "ab", "c", "bc"], true),
            (&[], false),
        ] {
            let mut wanted = Wanted {
                blocks: &blocks,
                seen: Vec::new(),
            };
            let mut done = false;
            for piece in pieces {
                assert!(!done);
                wanted.seen.extend_from_slice(piece.as_bytes());
                done = wanted.come();
            }
            assert_eq!(done, come, "{pieces:?}");
        }
        let mut nothing = Wanted {
            blocks: &[],
            seen: Vec::new(),
        };
        assert!(nothing.come());
    }
}
