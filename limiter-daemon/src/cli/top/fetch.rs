//! Asking the daemon all that the screen tells.

use http::Method;
use serde::de::DeserializeOwned;

use super::board::Look;
use super::page::Page;
use crate::cli::client::Admin;
use crate::l7::clock::Clock;

/// Looks at the daemon once.
///
/// # Errors
/// When it cannot be asked, or says what this version does not understand.
pub(super) fn fetch(admin: &Admin, clock: Clock) -> anyhow::Result<Look> {
    let metrics = admin.ask(Method::GET, "/metrics", None)?;
    // Rates are over the time between two pages of metrics.
    let at = clock.now();
    let node: crate::admin::node::NodeView =
        serde_json::from_str(&admin.ask(Method::GET, "/node", None)?)?;
    Ok(Look {
        at,
        metrics: Page::read(&metrics),
        fleet: match node.store {
            Some(_) => there(admin, "/fleet")?,
            None => None,
        },
        offenders: there(admin, "/l4/top")?,
        limited: there(admin, "/offenders")?,
        blocks: there(admin, "/blocks")?,
        node,
    })
}

/// What `path` says; `None`: this daemon has no such thing.
fn there<T: DeserializeOwned>(admin: &Admin, path: &str) -> anyhow::Result<Option<T>> {
    let answer = admin.ask_if_there(path)?;
    Ok(match answer {
        Some(text) => Some(serde_json::from_str(&text)?),
        None => None,
    })
}
