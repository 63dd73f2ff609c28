//! Counters of the rate limit service's domains, by descriptors.

use http::StatusCode;

use super::{Admin, CounterView, CountersView, Query, Refused, Wanted, bad};
use crate::admin::{DomainQuestion, DomainQuestionError};
use crate::engine::counters::Found;

impl Admin {
    pub(super) fn list_domains(&self, wanted: &Wanted<'_>, view: &mut CountersView) {
        let names = self.loads.with_plan(|plan| {
            let names = plan.domains.iter().map(|domain| domain.name.clone());
            names.collect::<Vec<_>>()
        });
        let names = names.into_iter().map(|name| format!("domain:{name}"));
        let named = names.filter(|name| name.starts_with(wanted.prefix));
        view.counters.extend(named.map(|name| {
            CounterView {
                name,
                place: if self.counted.is_some() {
                    "store"
                } else {
                    "memory"
                }
                .to_owned(),
                buckets: "per value".to_owned(),
                ..CounterView::default()
            }
        }));
    }

    /// The counts that descriptors lead to in a domain.
    pub(super) async fn one_of_domain(
        &self,
        domain: &str,
        query: &Query,
        reset: bool,
    ) -> Result<CountersView, Refused> {
        let question = DomainQuestion {
            domain: domain.to_owned(),
            descriptors: query.all("descriptor"),
        };
        let domains = self.domains.load_full();
        let now = self.clock.both();
        let counts = question.with(&domains, |domain, descriptors| {
            domain.counts(descriptors, reset, now)
        });
        let counts = counts.map_err(|error| match error {
            DomainQuestionError::Unknown(_) => (StatusCode::NOT_FOUND, error.to_string()),
            _ => bad(error.to_string()),
        })?;
        if counts.is_empty() {
            let why = "nothing limits these descriptors; `limiterd explain --domain` tells why";
            return Err((StatusCode::NOT_FOUND, why.to_owned()));
        }
        let mut view = CountersView::default();
        for count in counts {
            if reset && count.shared {
                let rule = &count.rule;
                view.notes.push(format!(
                    "{rule}: the bucket table is full, and this value shares a bucket with others: it is left as it is"
                ));
            }
            let mut counter = match count.found {
                Some(Found::Stored(bucket)) => {
                    let stored = self.one_of_store("", &bucket, reset).await?;
                    view.notes.extend(stored.notes);
                    stored.counters.into_iter().next().unwrap_or_default()
                }
                Some(Found::Here(capacity, state)) => CounterView {
                    place: "memory".to_owned(),
                    buckets: "one".to_owned(),
                    capacity: Some(capacity),
                    state: Some(state),
                    ..CounterView::default()
                },
                None => CounterView {
                    place: "memory".to_owned(),
                    buckets: "none".to_owned(),
                    ..CounterView::default()
                },
            };
            counter.name = format!("domain:{domain}");
            counter.quota = format!("{}: {}", count.rule, count.quota);
            view.counters.push(counter);
        }
        view.notes.dedup();
        Ok(view)
    }
}
