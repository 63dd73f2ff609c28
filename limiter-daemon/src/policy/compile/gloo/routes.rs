//! The routes of virtual services, with those of the tables that they delegate to.

use super::gateways::At;
use super::levels::Local;
use super::rules::{Above, Host, Place, lost, rule};
use super::{Context, label, unusable};
use crate::policy::findings::Mark;
use crate::policy::gloo::action::Delegate;
use crate::policy::gloo::matcher::Matcher;
use crate::policy::gloo::route::{Does, Route};
use crate::policy::gloo::route_options::RouteOptions;
use crate::policy::gloo::route_table::RouteTable;
use crate::policy::gloo::virtual_service::VirtualService;
use crate::policy::kinds::Kind;
use crate::policy::plan::{PathMatch, RouteRule};
use crate::policy::resource::Name;

/// Tables that delegate to one another.
const MAX_DEPTH: usize = 32;

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
        options.limits = options.limits.or(&other.limits);
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
        matchers: Vec::new(),
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
            // Requests that it would take are none of this table's.
            continue;
        }
        match &route.does {
            Does::Act(action) => {
                rules.extend(rule(route, action, place, &here, host, context));
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
    let prefix = above.prefix;
    // What a regular expression matches is not known before: as in Gloo, the text of it must begin
    // with the prefix. Here it may be escaped.
    let within = |one: &&Matcher| {
        let escaped = matches!(one.path, PathMatch::Regex(_)) && !one.any_case;
        one.written.starts_with(prefix)
            || (escaped && one.written.starts_with(&regex::escape(prefix)))
    };
    let mut scope = context.findings.at(&place.meta.origin);
    if let Some(matcher) = route.matchers.iter().find(|one| !within(one)) {
        scope.error(
            &matcher.mark,
            format!("the path does not begin with `{prefix}`, for which routes are delegated here"),
            format!("write one that does, as `prefix: {prefix}`"),
        );
        return false;
    }
    let has_case = prefix.bytes().any(|byte| byte.is_ascii_alphabetic());
    let any_case = route.matchers.iter().find(|one| one.any_case);
    if let Some(matcher) = any_case.filter(|_| has_case) {
        scope.error(
            &matcher.mark,
            format!(
                "without regard to case, it takes paths that do not begin with `{prefix}`, for \
                 which routes are delegated here"
            ),
            "remove `caseSensitive: false`",
        );
        return false;
    }
    true
}

/// The matcher of a route that may be delegated, and its prefix.
///
/// # Errors
/// Where the fault is, what it is, and the remedy.
fn delegable<'a>(
    route: &'a Route,
    here: &Above<'a>,
) -> Result<(&'a Matcher, &'a str), (&'a Mark, &'static str, &'static str)> {
    let [matcher] = route.matchers.as_slice() else {
        return Err((
            &route.mark,
            "a route with several matchers is not delegated",
            "make a route of each",
        ));
    };
    let mark = &matcher.mark;
    let Some(prefix) = matcher.prefix() else {
        if matcher.is_prefix {
            let message = "a `prefix` without regard to case is not delegated";
            return Err((mark, message, "remove `caseSensitive: false`"));
        }
        let message = "only routes with a `prefix` are delegated";
        return Err((mark, message, "write `prefix`"));
    };
    let wide = matcher.headers.is_empty() && matcher.query.is_empty() && matcher.methods.is_empty();
    if !wide && !here.inheritable {
        return Err((
            mark,
            "headers, parameters and methods of a delegated route are not taken over",
            "write `inheritableMatchers: true`, or put them into the routes of the table",
        ));
    }
    Ok((matcher, prefix))
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
    let (matcher, prefix) = match delegable(route, here) {
        Ok(found) => found,
        Err((mark, message, remedy)) => {
            context
                .findings
                .at(&place.meta.origin)
                .error(mark, message, remedy);
            rules.extend(lost(&route.matchers, here, message.to_owned()));
            return;
        }
    };
    let mut below = Above {
        prefix,
        path: format!("{}/", here.path),
        ..here.clone()
    };
    if here.inheritable {
        below.matchers.push(matcher);
    }
    match to {
        Delegate::To(reference) => {
            let tables = &context.resources.route_tables;
            let Some((name, table)) = tables.get_key_value(&reference.name) else {
                let mut scope = context.findings.at(&place.meta.origin);
                let kind = Kind::RouteTable;
                let why = unusable(context.resources, kind, reference, &mut scope);
                rules.extend(lost(&route.matchers, here, why));
                return;
            };
            let from = (&reference.mark, place, route);
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
                    let from = (mark, place, route);
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
    (mark, from, route): (&Mark, Place<'a>, &Route),
    below: &Above<'a>,
    host: &Host<'a, '_>,
    context: &mut Context<'a, '_>,
    rules: &mut Vec<RouteRule>,
) {
    if below.tables.contains(&name) || below.tables.len() >= MAX_DEPTH {
        let message = format!("the RouteTable `{name}` leads back to itself, or too deep");
        context.findings.at(&from.meta.origin).error(
            mark,
            message.clone(),
            "take out one of the delegations",
        );
        rules.extend(lost(&route.matchers, below, message));
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
