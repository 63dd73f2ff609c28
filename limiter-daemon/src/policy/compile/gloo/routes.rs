//! The routes of virtual services, with those of the tables that they delegate to.

use std::sync::Arc;
use std::time::Duration;

use super::gateways::At;
use super::levels::Local;
use super::{Context, label, unusable};
use crate::policy::findings::Mark;
use crate::policy::gloo::action::{Action, Delegate};
use crate::policy::gloo::matcher::Matcher;
use crate::policy::gloo::route::{Does, Route};
use crate::policy::gloo::route_options::RouteOptions;
use crate::policy::gloo::route_table::RouteTable;
use crate::policy::gloo::virtual_host_options::HostOptions;
use crate::policy::gloo::virtual_service::VirtualService;
use crate::policy::kinds::Kind;
use crate::policy::plan::{
    Answer, Filters, PathMatch, PathRewrite, RateLimits, Rewrite, RouteRule, RouteTraffic,
    Timeouts, WeightedBackend,
};
use crate::policy::resource::{Meta, Name};

/// Gloo's (and Envoy's) default of `timeout`.
const TIMEOUT: Duration = Duration::from_secs(15);
/// Tables that delegate to one another.
const MAX_DEPTH: usize = 32;

/// What routes have from above.
#[derive(Clone)]
struct Above<'a> {
    /// What their paths begin with.
    prefix: &'a str,
    /// Matchers whose headers, parameters and methods they take over.
    matcher: Option<&'a Matcher>,
    inheritable: bool,
    options: RouteOptions,
    local: Local,
    broken: Option<String>,
    /// Begins the names of rules.
    path: String,
    /// Tables on the way here.
    tables: Vec<&'a Name>,
}

/// Where routes are written.
#[derive(Clone, Copy)]
struct Place<'a> {
    kind: Kind,
    meta: &'a Meta,
}

impl<'a> Place<'a> {
    fn table(self) -> Option<&'a Name> {
        (self.kind == Kind::RouteTable).then_some(&self.meta.name)
    }
}

/// What the rules of one virtual service have in common.
struct Host<'a, 'b> {
    at: &'b At<'a>,
    service: &'a VirtualService,
    options: HostOptions,
}

/// The rules of a virtual service at a gateway.
pub(super) fn of_service<'a>(
    service: &'a VirtualService,
    at: &At<'a>,
    context: &mut Context<'a, '_>,
) -> Vec<RouteRule> {
    let mut broken = at.broken.clone();
    let mut scope = context.findings.at(&service.meta.origin);
    let name = &service.meta.name;
    let elsewhere = context
        .options
        .of_service(name, &service.delegates, &mut scope, &mut broken);
    let mut options = service.options.clone();
    let mut of_options = None;
    for option in elsewhere {
        let other = &option.options;
        of_options = of_options.or(other.limits.local.as_ref());
        let limits = &mut options.limits;
        limits.actions = limits
            .actions
            .take()
            .or_else(|| other.limits.actions.clone());
        limits.configs = limits
            .configs
            .take()
            .or_else(|| other.limits.configs.clone());
        let anonymous = limits.anonymous.take();
        limits.anonymous = anonymous.or_else(|| other.limits.anonymous.clone());
        options.retry = options.retry.or_else(|| other.retry.clone());
        options.headers = options.headers.or_else(|| other.headers.clone());
    }
    let own = label(Kind::VirtualService, name);
    let local = at
        .local
        .under(&own, of_options)
        .under(&format!("{own}/virtualHost"), options.limits.local.as_ref());
    let above = Above {
        prefix: "/",
        matcher: None,
        inheritable: false,
        options: RouteOptions::default(),
        local,
        broken,
        path: String::new(),
        tables: Vec::new(),
    };
    let host = Host {
        at,
        service,
        options,
    };
    let place = Place {
        kind: Kind::VirtualService,
        meta: &service.meta,
    };
    let mut rules = Vec::new();
    walk(&service.routes, place, &above, &host, context, &mut rules);
    rules
}

fn walk<'a>(
    routes: &'a [Route],
    place: Place<'a>,
    above: &Above<'a>,
    host: &Host<'a, '_>,
    context: &mut Context<'a, '_>,
    rules: &mut Vec<RouteRule>,
) {
    for (index, route) in routes.iter().enumerate() {
        let name = route.name.clone().unwrap_or_else(|| index.to_string());
        let mut broken = above.broken.clone();
        let mut scope = context.findings.at(&place.meta.origin);
        let elsewhere =
            context
                .options
                .of_route(place.table(), &route.delegates, &mut scope, &mut broken);
        let own = format!("{}/route/{name}", label(place.kind, &place.meta.name));
        let mut options = route.options.clone();
        let mut local = Local::default();
        for (label, other) in elsewhere.iter().rev() {
            local = local.under(&format!("{label}/{own}"), other.limits.local.as_ref());
        }
        for (_, other) in &elsewhere {
            options = options.or(other);
        }
        local = local.under(&own, route.options.limits.local.as_ref());
        let here = Above {
            options: options.or(&above.options),
            local: local.or(&above.local),
            broken,
            path: format!("{}{name}", above.path),
            inheritable: route.inheritable.unwrap_or(above.inheritable),
            ..above.clone()
        };
        if !begins(route, place, above, context) {
            continue;
        }
        match &route.does {
            Does::Act(action) => {
                let rule = rule(route, action, place, &here, host, context);
                rules.push(rule);
            }
            Does::Delegate(to) => delegate(route, to, place, &here, host, context, rules),
        }
    }
}

/// Whether the paths of a route begin with what the one above is delegated for; or an error.
fn begins(
    route: &Route,
    place: Place<'_>,
    above: &Above<'_>,
    context: &mut Context<'_, '_>,
) -> bool {
    let mut good = true;
    for matcher in &route.matchers {
        let inside = match &matcher.path {
            PathMatch::StartsWith(text) | PathMatch::Exact(text) | PathMatch::Prefix(text) => {
                text.starts_with(above.prefix)
            }
            // What the expression matches is not known before.
            PathMatch::Regex(_) => true,
        };
        if !inside {
            good = false;
            context.findings.at(&place.meta.origin).error(
                &matcher.mark,
                format!(
                    "the path does not begin with `{}`, for which routes are delegated here",
                    above.prefix
                ),
                format!("write one that does, as `prefix: {}`", above.prefix),
            );
        }
    }
    good
}

fn delegate<'a>(
    route: &'a Route,
    to: &'a Delegate,
    place: Place<'a>,
    here: &Above<'a>,
    host: &Host<'a, '_>,
    context: &mut Context<'a, '_>,
    rules: &mut Vec<RouteRule>,
) {
    let mut error = |mark: &Mark, message: String, remedy: &str| {
        let mut scope = context.findings.at(&place.meta.origin);
        scope.error(mark, message, remedy);
    };
    let [matcher] = route.matchers.as_slice() else {
        let message = "a route with several matchers is not delegated";
        error(&route.mark, message.to_owned(), "make a route of each");
        return;
    };
    let Some(prefix) = matcher.prefix() else {
        let message = "only routes with a `prefix` are delegated";
        error(&matcher.mark, message.to_owned(), "write `prefix`");
        return;
    };
    let narrow =
        !(matcher.headers.is_empty() && matcher.query.is_empty() && matcher.methods.is_empty());
    if narrow && !here.inheritable {
        error(
            &matcher.mark,
            "headers, parameters and methods of a delegated route are not taken over".to_owned(),
            "write `inheritableMatchers: true`, or put them into the routes of the table",
        );
        return;
    }
    let below = Above {
        prefix,
        matcher: here.inheritable.then_some(matcher),
        path: format!("{}/", here.path),
        ..here.clone()
    };
    match to {
        Delegate::To(reference) => {
            let tables = &context.resources.route_tables;
            let Some((name, table)) = tables.get_key_value(&reference.name) else {
                let mut scope = context.findings.at(&place.meta.origin);
                let kind = Kind::RouteTable;
                let why = unusable(context.resources, kind, reference, &mut scope);
                // What it would have done is not known; its requests go to no other route.
                rules.push(lost(matcher, here, why));
                return;
            };
            let from = (&reference.mark, place);
            self::table(name, table, from, &below, host, context, rules);
        }
        Delegate::Selected(selector, mark) => {
            let own = &place.meta.name.namespace;
            let mut tables: Vec<(&'a Name, &'a RouteTable)> = context
                .resources
                .route_tables
                .iter()
                .filter(|(name, table)| selector.selects(own, &name.namespace, &table.meta.labels))
                .collect();
            if tables.is_empty() {
                context.findings.at(&place.meta.origin).warning(
                    mark,
                    "no RouteTable is selected",
                    "give one these labels, or look at `namespaces`",
                );
            }
            tables.sort_by_key(|(name, table)| (table.weight, *name));
            let equal = tables
                .windows(2)
                .any(|pair| matches!(pair, [one, other] if one.1.weight == other.1.weight));
            if equal {
                context.findings.at(&place.meta.origin).warning(
                    mark,
                    "several RouteTables of one `weight` are selected: their routes are sorted by \
                     how specific their paths are",
                    "give each a `weight` of its own",
                );
            }
            for group in tables.chunk_by(|one, other| one.1.weight == other.1.weight) {
                let mut found = Vec::new();
                for (name, table) in group {
                    let from = (mark, place);
                    self::table(name, table, from, &below, host, context, &mut found);
                }
                if group.len() > 1 {
                    found.sort_by_key(|rule| std::cmp::Reverse(specific(rule)));
                }
                rules.extend(found);
            }
        }
    }
}

fn specific(rule: &RouteRule) -> (u8, usize) {
    let paths = rule.matches.iter().map(|one| match &one.path {
        PathMatch::Exact(path) => (2, path.len()),
        PathMatch::Regex(regex) => (1, regex.as_str().len()),
        PathMatch::StartsWith(path) | PathMatch::Prefix(path) => (0, path.len()),
    });
    paths.max().unwrap_or_default()
}

fn table<'a>(
    name: &'a Name,
    table: &'a RouteTable,
    (mark, from): (&Mark, Place<'a>),
    below: &Above<'a>,
    host: &Host<'a, '_>,
    context: &mut Context<'a, '_>,
    rules: &mut Vec<RouteRule>,
) {
    if below.tables.contains(&name) || below.tables.len() >= MAX_DEPTH {
        context.findings.at(&from.meta.origin).error(
            mark,
            format!("the RouteTable `{name}` leads back to itself, or too deep"),
            "take out one of the delegations",
        );
        return;
    }
    let mut below = below.clone();
    below.tables.push(name);
    below.path.push_str(&format!("{name}/"));
    let place = Place {
        kind: Kind::RouteTable,
        meta: &table.meta,
    };
    walk(&table.routes, place, &below, host, context, rules);
}

/// A rule in the place of routes that are not known.
fn lost(matcher: &Matcher, here: &Above<'_>, why: String) -> RouteRule {
    RouteRule {
        name: Some(here.path.clone()),
        matches: matcher.plan(),
        broken: Some(here.broken.clone().unwrap_or(why)),
        ..RouteRule::default()
    }
}

fn rule<'a>(
    route: &Route,
    action: &'a Action,
    place: Place<'a>,
    here: &Above<'a>,
    host: &Host<'a, '_>,
    context: &mut Context<'a, '_>,
) -> RouteRule {
    let mut matches: Vec<_> = route.matchers.iter().flat_map(Matcher::plan).collect();
    if let Some(above) = here.matcher {
        let own = std::mem::take(&mut matches);
        for one in own {
            for other in above.plan() {
                let mut one = one.clone();
                one.headers.extend(other.headers);
                one.query.extend(other.query);
                if one.method.is_none() {
                    one.method = other.method;
                } else if other.method.is_some() && one.method != other.method {
                    continue;
                }
                matches.push(one);
            }
        }
    }
    let options = &here.options;
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
                    backend: context.destinations.find(to, place.meta, context.findings),
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
    limits.local.extend(here.local.plan(host.at.headers));
    let mut broken = here.broken.clone();
    let levels = (
        host.service,
        &host.options.limits,
        place.meta,
        &here.options.limits,
    );
    limits
        .global
        .extend(context.asks.basic(levels, &here.path, host.at));
    let mut scope = context.findings.at(&place.meta.origin);
    let asks = context.asks.on(levels, host.at, &mut scope, &mut broken);
    RouteRule {
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
    }
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
