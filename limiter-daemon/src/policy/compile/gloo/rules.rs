//! Rules of Gloo's routes: what requests they take, what is done with those, and what limits them.

use std::sync::Arc;
use std::time::Duration;

use super::asks::Levels;
use super::gateways::At;
use super::levels::Local;
use super::{Context, label};
use crate::policy::gloo::action::Action;
use crate::policy::gloo::matcher::Matcher;
use crate::policy::gloo::route::Route;
use crate::policy::gloo::route_options::RouteOptions;
use crate::policy::gloo::virtual_host_options::HostOptions;
use crate::policy::gloo::virtual_service::VirtualService;
use crate::policy::kinds::Kind;
use crate::policy::plan::{
    Answer, Filters, PathRewrite, RateLimits, Rewrite, RouteMatch, RouteRule, RouteTraffic,
    Timeouts, WeightedBackend,
};
use crate::policy::resource::{Meta, Name};

/// Gloo's (and Envoy's) default of `timeout`.
const TIMEOUT: Duration = Duration::from_secs(15);
/// What routes have from above.
#[derive(Clone)]
pub(super) struct Above<'a> {
    /// What their paths begin with.
    pub(super) prefix: &'a str,
    /// Matchers whose headers, parameters and methods they take over, all of them.
    pub(super) matchers: Vec<&'a Matcher>,
    pub(super) inheritable: bool,
    pub(super) options: RouteOptions,
    pub(super) local: Local,
    pub(super) broken: Option<String>,
    /// Begins the names of rules.
    pub(super) path: String,
    /// Tables on the way here.
    pub(super) tables: Vec<&'a Name>,
}

/// Where routes are written.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) kind: Kind,
    pub(super) meta: &'a Meta,
}

impl<'a> Place<'a> {
    pub(super) fn table(self) -> Option<&'a Name> {
        (self.kind == Kind::RouteTable).then_some(&self.meta.name)
    }
}

/// What the rules of one virtual service have in common.
pub(super) struct Host<'a, 'b> {
    pub(super) at: &'b At<'a>,
    pub(super) service: &'a VirtualService,
    pub(super) options: HostOptions,
}

/// A rule in the place of routes that cannot be served as they are meant.
pub(super) fn lost(matchers: &[Matcher], here: &Above<'_>, why: String) -> Option<RouteRule> {
    let matches = matches(matchers, here);
    (!matches.is_empty()).then(|| RouteRule {
        name: Some(here.path.clone()),
        matches,
        broken: Some(here.broken.clone().unwrap_or(why)),
        ..RouteRule::default()
    })
}

/// What requests of a route must be like, with what it takes over from above.
fn matches(matchers: &[Matcher], here: &Above<'_>) -> Vec<RouteMatch> {
    let mut matches: Vec<_> = matchers.iter().flat_map(Matcher::plan).collect();
    for above in &here.matchers {
        let both = |own: &RouteMatch, other: RouteMatch| {
            let differs = own.method.is_some() && other.method.is_some();
            if differs && own.method != other.method {
                return None;
            }
            Some(RouteMatch {
                path: own.path.clone(),
                method: own.method.clone().or(other.method),
                headers: [own.headers.as_slice(), &other.headers].concat(),
                query: [own.query.as_slice(), &other.query].concat(),
            })
        };
        matches = matches
            .iter()
            .flat_map(|own| {
                above
                    .plan()
                    .into_iter()
                    .filter_map(|other| both(own, other))
            })
            .collect();
    }
    matches
}

/// The rule of a route; `None`: no request could take it.
pub(super) fn rule<'a>(
    route: &Route,
    action: &'a Action,
    place: Place<'a>,
    here: &Above<'a>,
    host: &Host<'a, '_>,
    context: &mut Context<'a, '_>,
) -> Option<RouteRule> {
    let matches = matches(&route.matchers, here);
    if matches.is_empty() {
        context.findings.at(&place.meta.origin).warning(
            &route.mark,
            "no request has both the methods of this route and those it takes over",
            "look at `methods` of the routes that are delegated here",
        );
        return None;
    }
    let options = &here.options;
    let any_case = route
        .matchers
        .iter()
        .any(|one| one.any_case && one.is_prefix);
    if let Some(rewrite) = options.prefix_rewrite.as_ref().filter(|_| any_case) {
        context.findings.at(&place.meta.origin).error(
            &route.mark,
            format!(
                "`prefixRewrite: {}` of a prefix without regard to case is not supported yet",
                rewrite.value
            ),
            "remove `caseSensitive: false`, or write a route for each spelling",
        );
    }
    let mut filters = filters(options, &host.options);
    let traffic = RouteTraffic {
        retry: options
            .retry
            .clone()
            .or_else(|| host.options.retry.clone())
            .flatten(),
        stream_idle: options.idle_timeout.flatten(),
        stream_idle_unbounded: options.idle_timeout == Some(None),
        fault: options.fault.clone(),
        ..RouteTraffic::default()
    };
    let mut backends = Vec::new();
    match action {
        Action::Forward(destinations) => {
            for one in destinations {
                let to = &one.to;
                backends.push(WeightedBackend {
                    backend: context.destinations.find(
                        to,
                        options.hash_by.as_ref(),
                        place.meta,
                        context.findings,
                    ),
                    weight: one.weight,
                    filters: None,
                });
            }
        }
        Action::Redirect(redirect) => {
            filters.rewrite = None;
            filters.redirect = Some(redirect.clone());
        }
        Action::Answer(status, body) => {
            filters.rewrite = None;
            filters.answer = Some(Answer {
                status: *status,
                body: body.clone().unwrap_or_default(),
            });
        }
    }
    let mut limits = RateLimits::default();
    limits.local.extend(here.local.plan(host.at.manner));
    let mut broken = here.broken.clone();
    let own = label(Kind::VirtualService, &host.service.meta.name);
    let of_route = format!("{own}/route/{}", here.path);
    let levels = Levels {
        labels: [&own, &of_route],
        metas: [&host.service.meta, place.meta],
        limits: [&host.options.limits, &here.options.limits],
    };
    let door = host.at.door();
    limits.global.extend(context.asks.basic(&levels, &door));
    let asks = context
        .asks
        .on(&levels, &door, context.findings, &mut broken);
    Some(RouteRule {
        name: Some(here.path.clone()),
        matches,
        filters,
        backends,
        timeouts: Timeouts {
            request: options.timeout.unwrap_or(Some(TIMEOUT)),
            backend_request: None,
        },
        limits: Arc::new(limits),
        asks: Arc::new(asks),
        traffic: Arc::new(traffic),
        broken,
    })
}

fn filters(options: &RouteOptions, host: &HostOptions) -> Filters {
    let none = crate::policy::gloo::traffic::Headers::default();
    let own = options.headers.as_ref().unwrap_or(&none);
    let headers = own.then(host.headers.as_ref().unwrap_or(&none));
    let path = options
        .prefix_rewrite
        .as_ref()
        .map(|text| PathRewrite::Prefix(text.value.clone()));
    let hostname = options.host_rewrite.clone();
    Filters {
        request_headers: headers.request,
        response_headers: headers.response,
        redirect: None,
        answer: None,
        rewrite: (path.is_some() || hostname.is_some()).then_some(Rewrite { hostname, path }),
        mirrors: Vec::new(),
    }
}
