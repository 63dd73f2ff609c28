//! What is asked about requests, in words.

use super::Seen;
use crate::engine::descriptors::{Descriptor, descriptor};
use crate::engine::domain::{Domains, NoDomain};
use crate::engine::explain::{clean, secret};
use crate::engine::state::State;
use crate::policy::plan::{
    self, Action, AskFilter, Asking, DescriptorRule, HeaderSource, RequestType, TimeUnit,
};

/// Who is asked, when, and what follows.
pub(crate) fn filter(asking: &Asking) -> String {
    let filter = &asking.filter;
    let of = match filter.requests {
        RequestType::Both => "",
        RequestType::Internal => " of internal requests",
        RequestType::External => " of external requests",
    };
    format!(
        "{} asks {} about the domain `{}`{of}, stage {}: {}",
        filter.name,
        filter.service,
        clean(&asking.domain),
        filter.stage,
        consequences(filter)
    )
}

fn consequences(filter: &AskFilter) -> String {
    let failure = match filter.error_status {
        Some(status) => status.as_u16().to_string(),
        None => "passes".to_owned(),
    };
    format!(
        "{} over a limit, {failure} without an answer in {:?}",
        filter.limited_status.as_u16(),
        filter.timeout
    )
}

/// The descriptor that a rule makes of a request; or that it makes none.
pub(crate) fn of_request(rule: &DescriptorRule, seen: &Seen<'_>) -> String {
    match descriptor(rule, seen) {
        Some(made) => {
            let when = if rule.at_the_end {
                ", when the response is over"
            } else {
                ""
            };
            let switch = switch(rule);
            format!("{}{when}{switch}", entries(rule, &made))
        }
        None => format!("no descriptor of {}", actions(rule)),
    }
}

/// Which limits of limiterd's own domain what is asked about a request meets.
pub(crate) fn meets(asking: &Asking, domain: &plan::Domain, seen: &Seen<'_>) -> Vec<String> {
    let rules = asking.descriptors.iter().filter(|rule| !rule.at_the_end);
    // What brings a limit along meets none of the domain's.
    let rules = rules.filter(|rule| rule.limit.is_none());
    let made: Vec<Descriptor<'_>> = rules.filter_map(|rule| descriptor(rule, seen)).collect();
    let descriptors: Vec<Vec<(&str, &str)>> = made
        .iter()
        .map(|one| {
            let entries = one.entries.iter();
            entries.map(|(key, value)| (&**key, &**value)).collect()
        })
        .collect();
    let domains = Domains::compile(std::slice::from_ref(domain), &State::new(1));
    match domains.get(&domain.name) {
        Ok(domain) => domain.meets(&descriptors),
        Err(NoDomain::Broken(why)) => vec![format!("nothing is known of it: {}", clean(&why))],
        Err(NoDomain::Unknown) => Vec::new(),
    }
}

/// What a descriptor is made of.
pub(crate) fn actions(rule: &DescriptorRule) -> String {
    let actions: Vec<String> = rule.actions.iter().map(action).collect();
    let mut said = format!("({})", actions.join(", "));
    if let Some(limit) = rule.limit {
        said.push_str(&format!(
            ", limit {} a {}",
            limit.requests,
            limit.unit.name()
        ));
    }
    if let Some(hits) = rule.hits {
        let sign = if hits.negative { "-" } else { "" };
        said.push_str(&format!(", {sign}{} hits", hits.number));
    }
    said.push_str(&switch(rule));
    said
}

fn switch(rule: &DescriptorRule) -> String {
    if rule.disable_key.is_empty() {
        return String::new();
    }
    format!(", unless `{}` is switched off", rule.disable_key)
}

fn entries(rule: &DescriptorRule, made: &Descriptor<'_>) -> String {
    let hidden = |key: &str| {
        rule.actions.iter().any(|action| {
            matches!(action, Action::RequestHeader { header: HeaderSource::Named(name), key: own, .. }
                if own == key && secret(name))
        })
    };
    let entries = made.entries.iter().map(|(key, value)| {
        let value = if hidden(key) {
            "(redacted)".to_owned()
        } else {
            clean(value)
        };
        format!("{}={value}", clean(key))
    });
    let mut said = format!("({})", entries.collect::<Vec<_>>().join(", "));
    if let Some(limit) = made.limit {
        let unit: TimeUnit = limit.unit;
        said.push_str(&format!(", limit {} a {}", limit.requests, unit.name()));
    }
    said
}

fn action(action: &Action) -> String {
    let source = |header: &HeaderSource| match header {
        HeaderSource::Named(name) => format!("header {name}"),
        HeaderSource::Method => "the method".to_owned(),
        HeaderSource::Path => "the path".to_owned(),
        HeaderSource::Authority => "the host".to_owned(),
        HeaderSource::Scheme => "the scheme".to_owned(),
    };
    let if_any = |skip: bool| if skip { ", if there" } else { "" };
    match action {
        Action::SourceCluster => "source_cluster".to_owned(),
        Action::DestinationCluster => "destination_cluster".to_owned(),
        Action::RemoteAddress => "remote_address".to_owned(),
        Action::MaskedRemoteAddress { v4, v6 } => format!("masked_remote_address /{v4} /{v6}"),
        Action::RequestHeader {
            header,
            key,
            skip_if_absent,
        } => format!(
            "{}: {}{}",
            clean(key),
            source(header),
            if_any(*skip_if_absent)
        ),
        Action::QueryParameter {
            name,
            key,
            skip_if_absent,
        } => format!(
            "{}: parameter {}{}",
            clean(key),
            clean(name),
            if_any(*skip_if_absent)
        ),
        Action::GenericKey { key, value } => format!("{}={}", clean(key), clean(value)),
        Action::HeaderMatch { key, value, .. } => {
            format!("{}={} by its headers", clean(key), clean(value))
        }
        Action::QueryMatch { key, value, .. } => {
            format!("{}={} by its parameters", clean(key), clean(value))
        }
        Action::AddressMatch { key, value, .. } => {
            format!("{}={} by its address", clean(key), clean(value))
        }
        Action::Skip => "nothing".to_owned(),
    }
}
