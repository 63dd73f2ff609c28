//! Descriptors: the tree of a domain.

use serde::Deserialize;

use crate::policy::decode::{At, NumberOrText};
use crate::policy::findings::{Mark, Scope};
use crate::policy::plan::{Amount, Descriptor, DomainLimit, EntryValue, Metadata, TimeUnit};
use crate::policy::suggest;
use crate::policy::units::{self, BucketMarks};

/// Levels of nesting.
const MAX_DEPTH: usize = 16;

#[derive(Debug, Deserialize)]
pub(super) struct RawDescriptor {
    key: At<String>,
    value: Option<At<NumberOrText>>,
    rate_limit: Option<At<RawRateLimit>>,
    descriptors: Option<At<Vec<At<Self>>>>,
    shadow_mode: Option<At<bool>>,
    quota_mode: Option<At<bool>>,
    share_threshold: Option<At<bool>>,
    detailed_metric: Option<At<bool>>,
    value_to_metric: Option<At<bool>>,
    metadata: Option<At<Metadata>>,
}

/// What a descriptor says of the limit that is given in it.
struct Marked {
    shadow: bool,
    quota: bool,
    detailed: bool,
    metadata: Option<Metadata>,
}

#[derive(Debug, Deserialize)]
struct RawRateLimit {
    unit: Option<At<String>>,
    requests_per_unit: Option<At<u32>>,
    unlimited: Option<bool>,
    name: Option<At<String>>,
    replaces: Option<Vec<At<RawReplaces>>>,
}

#[derive(Debug, Deserialize)]
struct RawReplaces {
    name: At<String>,
}

/// Checks the descriptors of a domain.
pub(super) fn lower(raw: Vec<At<RawDescriptor>>, scope: &mut Scope<'_>) -> Vec<Descriptor> {
    level(raw, 1, scope)
}

fn level(raw: Vec<At<RawDescriptor>>, depth: usize, scope: &mut Scope<'_>) -> Vec<Descriptor> {
    let mut lowered: Vec<Descriptor> = Vec::with_capacity(raw.len());
    let mut known = std::collections::HashSet::new();
    for At { value: raw, mark } in raw {
        let descriptor = one(raw, &mark, depth, scope);
        if !known.insert((descriptor.key.clone(), descriptor.value.clone())) {
            twice(&descriptor, &mark, scope);
        }
        lowered.push(descriptor);
    }
    lowered
}

/// Says that a descriptor is there already.
pub(crate) fn twice(descriptor: &Descriptor, mark: &Mark, scope: &mut Scope<'_>) {
    scope.error(
        mark,
        format!("the descriptor `{}` is given twice", descriptor.label()),
        "keep one of them, with what both have below them",
    );
}

fn one(raw: RawDescriptor, mark: &Mark, depth: usize, scope: &mut Scope<'_>) -> Descriptor {
    let key = raw.key;
    if key.is_empty() {
        scope.error(
            &key.mark,
            "a descriptor has a key",
            "write the key of an entry that Envoy sends, as `remote_address`",
        );
    }
    if key.contains('*') {
        scope.warning(
            &key.mark,
            "in a key `*` stands for itself",
            "patterns are for values: write it there",
        );
    }
    let value = value(raw.value.as_ref());
    let is_pattern = matches!(value, EntryValue::Like(_));
    let share_threshold = raw
        .share_threshold
        .as_ref()
        .is_some_and(|share| share.value);
    if let Some(share) = raw
        .share_threshold
        .filter(|share| share.value && !is_pattern)
    {
        scope.error(
            &share.mark,
            "there is nothing to share: the value is no pattern",
            "write a `*` in the value, or remove this",
        );
    }
    let is = |mode: &Option<At<bool>>| mode.as_ref().is_some_and(|mode| mode.value);
    if raw.rate_limit.is_none() {
        let modes = [&raw.shadow_mode, &raw.quota_mode, &raw.detailed_metric];
        let modes = modes.into_iter().flatten().filter(|mode| mode.value);
        let marks = modes.map(|mode| &mode.mark);
        for mark in marks.chain(raw.metadata.iter().map(|metadata| &metadata.mark)) {
            scope.warning(
                mark,
                "it has no effect without `rate_limit` beside it",
                "descriptors below have their own",
            );
        }
    }
    let marked = Marked {
        shadow: is(&raw.shadow_mode),
        quota: is(&raw.quota_mode),
        detailed: is(&raw.detailed_metric),
        metadata: raw.metadata.map(|metadata| metadata.value),
    };
    let value_to_metric = is(&raw.value_to_metric);
    let empty = raw.rate_limit.is_none()
        && raw
            .descriptors
            .as_ref()
            .is_none_or(|below| below.is_empty());
    let limit = raw.rate_limit.and_then(|raw| limit(raw, marked, scope));
    let descriptors = match raw.descriptors {
        Some(below) if depth == MAX_DEPTH && !below.is_empty() => {
            let remedy = format!("at most {MAX_DEPTH} levels are allowed");
            scope.error(&below.mark, "descriptors are nested too deeply", remedy);
            Vec::new()
        }
        Some(below) => level(below.value, depth + 1, scope),
        None => Vec::new(),
    };
    if empty && matches!(value, EntryValue::Any) {
        scope.warning(
            mark,
            format!(
                "`{}` limits nothing and takes nothing out of a limit",
                key.value
            ),
            "give it a `rate_limit` or `descriptors`, or remove it",
        );
    }
    Descriptor {
        key: key.value,
        value,
        share_threshold,
        value_to_metric,
        limit,
        descriptors,
    }
}

fn value(raw: Option<&At<NumberOrText>>) -> EntryValue {
    match raw.map(|at| &at.value) {
        None => EntryValue::Any,
        Some(NumberOrText::Number(number)) => EntryValue::Is(number.to_string()),
        Some(NumberOrText::Text(text)) if text.is_empty() => EntryValue::Any,
        Some(NumberOrText::Text(text)) if text.contains('*') => EntryValue::Like(text.clone()),
        Some(NumberOrText::Text(text)) => EntryValue::Is(text.clone()),
    }
}

fn limit(
    At { value: raw, mark }: At<RawRateLimit>,
    marked: Marked,
    scope: &mut Scope<'_>,
) -> Option<DomainLimit> {
    let unit = raw.unit.as_ref().map(|unit| self::unit(unit, scope));
    let name = raw.name.filter(|name| !name.is_empty());
    let mut replaces = Vec::new();
    for At { value: other, .. } in raw.replaces.unwrap_or_default() {
        if other.name.is_empty() {
            scope.error(
                &other.name.mark,
                "which limit is replaced?",
                "write its `name`",
            );
        } else if name
            .as_ref()
            .is_some_and(|name| name.value == other.name.value)
        {
            scope.error(
                &other.name.mark,
                format!("the limit `{}` replaces itself", other.name.value),
                "name another limit, or remove this",
            );
        }
        replaces.push(other.name.value);
    }
    let amount = if raw.unlimited == Some(true) {
        if let Some(unit) = &raw.unit {
            scope.error(
                &unit.mark,
                "what is unlimited has no unit",
                "remove `unit`, or `unlimited`",
            );
        }
        if let Some(requests) = &raw.requests_per_unit {
            scope.warning(
                &requests.mark,
                "it has no effect beside `unlimited`",
                "remove one of them",
            );
        }
        Some(Amount::Unlimited)
    } else {
        amount(unit, raw.unit.as_ref(), raw.requests_per_unit, &mark, scope)
    };
    Some(DomainLimit {
        amount: amount?,
        name: name.map(|name| name.value),
        replaces,
        shadow: marked.shadow,
        quota: marked.quota,
        detailed: marked.detailed,
        metadata: marked.metadata,
        weight: 0,
        always: false,
        written: scope.written(&mark),
    })
}

fn amount(
    unit: Option<Option<TimeUnit>>,
    at: Option<&At<String>>,
    requests: Option<At<u32>>,
    mark: &Mark,
    scope: &mut Scope<'_>,
) -> Option<Amount> {
    if unit.is_none() {
        scope.error(
            mark,
            "the limit has no `unit`",
            "write `second`, `minute`, `hour`, `day`, `week`, `month` or `year`; or `unlimited: true`",
        );
    }
    let Some(requests) = requests else {
        scope.error(
            mark,
            "the limit has no `requests_per_unit`",
            "write how many it admits; 0 denies all",
        );
        return None;
    };
    let unit = unit??;
    if requests.value == 0 {
        return Some(Amount::Nothing(unit));
    }
    let tokens = u64::from(requests.value);
    let interval = unit.seconds().saturating_mul(1_000_000_000);
    let marks = BucketMarks {
        tokens: &requests.mark,
        fill: &requests.mark,
        interval: at.map_or(mark, |at| &at.mark),
    };
    let limit = units::limit(tokens, tokens, interval, marks, scope)?;
    Some(Amount::PerUnit {
        requests: requests.value,
        unit,
        limit,
    })
}

/// Upper and lower case are the same; `None` after an error.
fn unit(text: &At<String>, scope: &mut Scope<'_>) -> Option<TimeUnit> {
    let same = |unit: &TimeUnit| unit.name().eq_ignore_ascii_case(text);
    let found = TimeUnit::ALL.into_iter().find(same);
    if found.is_none() {
        let names = TimeUnit::ALL.map(TimeUnit::name);
        let remedy = suggest::remedy(text, names, "the units are");
        scope.error(
            &text.mark,
            format!("`{}` is not a unit", text.value),
            remedy,
        );
    }
    found
}
