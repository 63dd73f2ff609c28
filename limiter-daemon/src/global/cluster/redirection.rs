//! What a server answers that has not done what it was asked, as the keys are elsewhere.

use redis::{ErrorKind, ServerErrorKind};

use super::map;
use crate::global::{Inner, link};
use crate::policy::plan::StoreHost;

/// Where a server sends who asks.
pub(super) enum Redirection {
    Moved(StoreHost),
    Ask(StoreHost),
    TryAgain,
}

/// Where `server` sends who asks; `None`: it is another error.
pub(super) fn redirection(error: &link::Error, server: &Inner) -> Option<Redirection> {
    let link::Error::Redis(error) = error else {
        return None;
    };
    let host = || {
        let (place, _slot) = error.redirect_node()?;
        map::host(place, server.host.as_ref()?)
    };
    match error.kind() {
        ErrorKind::Server(ServerErrorKind::Moved) => host().map(Redirection::Moved),
        ErrorKind::Server(ServerErrorKind::Ask) => host().map(Redirection::Ask),
        ErrorKind::Server(ServerErrorKind::TryAgain) => Some(Redirection::TryAgain),
        _ => None,
    }
}
