//! `ListenerSet`: more listeners of a Gateway.

use serde::Deserialize;

use super::GROUP;
use super::listener::{self, Listener, RawListener};
use super::references::RawObjectRef;
use crate::policy::decode::At;
use crate::policy::findings::{Mark, Scope};
use crate::policy::resource::{Meta, Name};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RawListenerSet {
    parent_ref: RawObjectRef,
    listeners: At<Vec<At<RawListener>>>,
}

/// A ListenerSet, checked by itself.
#[derive(Clone, Debug)]
pub(crate) struct ListenerSet {
    pub(crate) meta: Meta,
    pub(crate) gateway: Name,
    /// Where its Gateway is named.
    pub(crate) mark: Mark,
    pub(crate) listeners: Vec<Listener>,
}

/// Checks a ListenerSet.
pub(crate) fn lower(raw: At<RawListenerSet>, meta: Meta, scope: &mut Scope<'_>) -> ListenerSet {
    let raw = raw.value;
    let group = raw
        .parent_ref
        .group
        .as_ref()
        .map_or(GROUP, |at| at.as_str());
    if group != GROUP {
        let message = format!("the group `{group}` has no Gateways");
        scope.error(
            &raw.parent_ref.name.mark,
            message,
            format!("write `{GROUP}`"),
        );
    }
    let parent = raw.parent_ref.lower("Gateway", &meta.name.namespace);
    if parent.kind != "Gateway" {
        scope.error(
            &parent.mark,
            format!("a ListenerSet does not belong to a `{}`", parent.kind),
            "name a `Gateway`",
        );
    }
    ListenerSet {
        gateway: parent.name,
        mark: parent.mark,
        listeners: listener::lower_all(raw.listeners, &meta, scope),
        meta,
    }
}
