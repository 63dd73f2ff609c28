//! Routes of virtual services and of route tables.

use serde::Deserialize;

use super::action::{self, Action, Delegate, RawAnswer, RawDelegate, RawRedirect, RawRouteAction};
use super::matcher::{self, Matcher, RawMatcher};
use super::references::{self, RawOptionsRefs, Reference};
use super::route_options::{self, RawRouteOptions, RouteOptions};
use crate::policy::decode::{At, Unsupported};
use crate::policy::findings::{Mark, Scope};

const MAX_ROUTES: usize = 4096;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawRoute {
    name: Option<At<String>>,
    matchers: Option<At<Vec<At<RawMatcher>>>>,
    inheritable_matchers: Option<bool>,
    inheritable_path_matchers: Option<Unsupported>,
    route_action: Option<At<RawRouteAction>>,
    redirect_action: Option<At<RawRedirect>>,
    direct_response_action: Option<At<RawAnswer>>,
    delegate_action: Option<At<RawDelegate>>,
    graphql_api_ref: Option<Unsupported>,
    options: Option<RawRouteOptions>,
    options_config_refs: Option<RawOptionsRefs>,
}

/// A route, checked by itself.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    pub(crate) name: Option<String>,
    /// Never empty, unless there was an error.
    pub(crate) matchers: Vec<Matcher>,
    /// Routes that it is delegated to take over its matchers; `None`: as the route above has it.
    pub(crate) inheritable: Option<bool>,
    pub(crate) does: Does,
    pub(crate) options: RouteOptions,
    /// Options that are written elsewhere.
    pub(crate) delegates: Vec<Reference>,
    pub(crate) mark: Mark,
}

#[derive(Clone, Debug)]
pub(crate) enum Does {
    Act(Action),
    Delegate(Delegate),
}

/// Checks the routes of a virtual service or of a table, from `namespace`.
pub(super) fn lower(
    raw: Option<At<Vec<At<RawRoute>>>>,
    namespace: &str,
    scope: &mut Scope<'_>,
) -> Vec<Route> {
    let Some(list) = raw else {
        return Vec::new();
    };
    scope.at_most(&list.mark, list.len(), MAX_ROUTES);
    let mut names = std::collections::BTreeSet::new();
    let mut routes = Vec::new();
    for raw in list.value {
        if let Some(name) = raw.name.as_ref().filter(|name| !name.is_empty())
            && !names.insert(name.value.clone())
        {
            let message = format!("a route named `{}` is there already", name.value);
            scope.error(&name.mark, message, "give each a name of its own");
        }
        routes.extend(one(raw, namespace, scope));
    }
    routes
}

fn one(
    At { value: raw, mark }: At<RawRoute>,
    namespace: &str,
    scope: &mut Scope<'_>,
) -> Option<Route> {
    let told = raw.graphql_api_ref.is_some();
    let _told_by_the_decoder = raw.inheritable_path_matchers;
    let given = [
        raw.route_action.is_some(),
        raw.redirect_action.is_some(),
        raw.direct_response_action.is_some(),
        raw.delegate_action.is_some(),
    ];
    let given = given.into_iter().filter(|given| *given).count();
    let mut does: Option<Does> = None;
    if let Some(raw) = raw.route_action {
        does = Some(Does::Act(action::forward(raw, namespace, scope)));
    }
    if let Some(raw) = raw.redirect_action {
        does = Some(Does::Act(action::redirect(raw.value, scope)));
    }
    if let Some(raw) = raw.direct_response_action {
        does = action::answer(raw.value, scope).map(Does::Act);
    }
    if let Some(raw) = raw.delegate_action {
        does = action::delegate(raw, namespace, scope).map(Does::Delegate);
    }
    if given > 1 {
        scope.error(
            &mark,
            "a route does one thing",
            "keep one of `routeAction`, `redirectAction`, `directResponseAction` and `delegateAction`",
        );
    }
    if given == 0 && !told {
        scope.error(
            &mark,
            "the route does nothing",
            "give it `routeAction`, `redirectAction`, `directResponseAction` or `delegateAction`",
        );
    }
    let matchers = matcher::lower(raw.matchers, &mark, scope);
    let options = raw.options.unwrap_or_default();
    Some(Route {
        name: raw.name.map(|at| at.value).filter(|name| !name.is_empty()),
        matchers,
        inheritable: raw.inheritable_matchers,
        options: route_options::lower(options, namespace, scope),
        delegates: references::delegates(raw.options_config_refs, namespace),
        does: does?,
        mark,
    })
}
