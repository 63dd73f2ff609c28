//! `RouteTable`: routes that others delegate to.

use serde::Deserialize;

use super::route::{self, RawRoute, Route};
use crate::policy::decode::{At, Ignored};
use crate::policy::findings::Scope;
use crate::policy::resource::Meta;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "named, so that no other passes")]
pub(crate) struct RawRouteTable {
    routes: Option<At<Vec<At<RawRoute>>>>,
    weight: Option<At<i32>>,
    /// Of another status than resources have.
    namespaced_statuses: Option<Ignored>,
}

/// A `RouteTable`, checked by itself.
#[derive(Clone, Debug)]
pub(crate) struct RouteTable {
    pub(crate) meta: Meta,
    pub(crate) routes: Vec<Route>,
    /// Of several that a selector selects, the one with the least comes first.
    pub(crate) weight: i32,
}

/// Checks a `RouteTable`.
pub(crate) fn lower(raw: At<RawRouteTable>, meta: Meta, scope: &mut Scope<'_>) -> RouteTable {
    let At { value: raw, mark } = raw;
    let routes = route::lower(raw.routes, &meta.name.namespace, scope);
    if routes.is_empty() {
        scope.warning(&mark, "the table has no routes", "");
    }
    RouteTable {
        routes,
        weight: raw.weight.map_or(0, |at| at.value),
        meta,
    }
}
