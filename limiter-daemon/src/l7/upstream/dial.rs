//! Connections of their own, for what is passed on byte by byte.

use std::sync::Arc;

use tokio::time::timeout;

use super::claim::free_slot;
use super::cluster::InUse;
use super::connect::{Offer, open};
use super::failed::Failed;
use super::{Hold, Pick};
use crate::engine::upstream::{Overflow, Resource};
use crate::l7::io::UpstreamIo;

/// Connects to the endpoint that was chosen, or to another one if that has all the connections it
/// may. Where there is no room nobody waits, as in Envoy: a client that hears nothing may as well
/// come again.
///
/// # Errors
/// [`Failed`].
pub(in crate::l7) async fn dial(pick: &mut Pick) -> Result<(UpstreamIo, Hold), Failed> {
    let target = pick.current_target().ok_or(Failed::NoEndpoint)?;
    let mut in_use = InUse::new(None, Arc::clone(target));
    let Some(slot) = free_slot(pick, &mut in_use) else {
        return Err(Failed::Overflow(Overflow(Resource::Connections)));
    };
    let settings = Arc::clone(&pick.cluster.settings);
    let opening = open(
        &in_use.target,
        settings.tcp_keepalive.as_ref(),
        Offer::Nothing,
    );
    let opened = timeout(settings.connect_timeout, opening).await;
    slot.connected(!matches!(opened, Ok(Ok(_))));
    let (io, _http2) = opened
        .map_err(|elapsed| Failed::NotConnected(elapsed.into()))?
        .map_err(|error| Failed::NotConnected(error.into()))?;
    let hold = Hold {
        _in_use: in_use,
        _slot: slot,
    };
    Ok((io, hold))
}
