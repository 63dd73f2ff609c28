//! Counters of two looks at the daemon, and what they come to a second.

use std::collections::BTreeMap;

use super::page::{Page, Sample};

/// The values of some labels.
pub(in crate::cli) type Key<'a> = Vec<&'a str>;
/// Values by some labels, and by one more of them.
type Groups<'a> = BTreeMap<Key<'a>, BTreeMap<&'a str, f64>>;

/// Two pages of metrics, and the time between them.
#[derive(Clone, Copy, Debug)]
pub(in crate::cli) struct Between<'a> {
    /// The earlier one, and the seconds since.
    pub before: Option<(&'a Page, f64)>,
    pub after: &'a Page,
}

impl<'a> Between<'a> {
    /// The counters `name`, by the labels `by`, and told apart by `split`.
    pub(in crate::cli) fn counters(&self, name: &str, by: &[&str], split: &str) -> Counters<'a> {
        Counters {
            before: self
                .before
                .map(|(page, seconds)| (groups(page, name, by, split), seconds)),
            after: groups(self.after, name, by, split),
        }
    }

    /// What a counter comes to a second, over all labels.
    pub(in crate::cli) fn rate(&self, name: &str) -> Option<f64> {
        self.counters(name, &[], "").rate(&[], |_any| true)
    }
}

/// A counter's values.
#[derive(Debug)]
pub(in crate::cli) struct Counters<'a> {
    before: Option<(Groups<'a>, f64)>,
    after: Groups<'a>,
}

impl<'a> Counters<'a> {
    /// Whatever has a value.
    pub(in crate::cli) fn keys(&self) -> impl Iterator<Item = &Key<'a>> {
        self.after.keys()
    }

    /// The values of `key` now, by what tells them apart.
    pub(in crate::cli) fn of(&self, key: &[&'a str]) -> Vec<(&'a str, f64)> {
        let found = self.after.get(key).into_iter().flatten();
        found.map(|(split, value)| (*split, *value)).collect()
    }

    /// The sum of what `wanted` says.
    pub(in crate::cli) fn total(&self, key: &[&str], wanted: impl Fn(&str) -> bool) -> f64 {
        sum(&self.after, key, wanted)
    }

    /// The same, a second. `None`: there was no look before, or the daemon has begun anew since.
    pub(in crate::cli) fn rate(&self, key: &[&str], wanted: impl Fn(&str) -> bool) -> Option<f64> {
        let (before, seconds) = self.before.as_ref()?;
        let more = sum(&self.after, key, &wanted) - sum(before, key, &wanted);
        (more >= 0.0 && *seconds > 0.0).then(|| more / seconds)
    }
}

/// `part` of `part` and `rest`; `None`: of nothing, or of what is not known.
pub(in crate::cli) fn share(part: Option<f64>, rest: Option<f64>) -> Option<f64> {
    let (part, all) = (part?, part? + rest?);
    (all > 0.0).then(|| part / all)
}

/// The value of a gauge by its labels.
pub(in crate::cli) fn gauges<'a>(
    page: &'a Page,
    name: &str,
    by: &[&str],
) -> BTreeMap<Key<'a>, f64> {
    let samples = page.all(name).iter();
    samples
        .map(|sample| (key(sample, by), sample.value))
        .collect()
}

fn groups<'a>(page: &'a Page, name: &str, by: &[&str], split: &str) -> Groups<'a> {
    let mut groups = Groups::new();
    for sample in page.all(name) {
        let group = groups.entry(key(sample, by)).or_default();
        *group.entry(sample.label(split)).or_default() += sample.value;
    }
    groups
}

fn key<'a>(sample: &'a Sample, by: &[&str]) -> Key<'a> {
    by.iter().map(|label| sample.label(label)).collect()
}

fn sum(groups: &Groups<'_>, key: &[&str], wanted: impl Fn(&str) -> bool) -> f64 {
    let values = groups.get(key).into_iter().flatten();
    values
        .filter(|(split, _)| wanted(split))
        .map(|(_, value)| value)
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_differences_over_the_time_between() {
        let before = Page::read("c_total{a=\"x\",d=\"ok\"} 10\nc_total{a=\"x\",d=\"over\"} 1\n");
        let after = Page::read(
            "c_total{a=\"x\",d=\"ok\"} 30\nc_total{a=\"x\",d=\"over\"} 6\nc_total{a=\"new\",d=\"ok\"} 4\n",
        );
        let between = Between {
            before: Some((&before, 2.0)),
            after: &after,
        };
        let counters = between.counters("c_total", &["a"], "d");
        assert_eq!(counters.rate(&["x"], |d| d == "ok"), Some(10.0));
        assert_eq!(counters.rate(&["x"], |_| true), Some(12.5));
        assert_eq!(counters.rate(&["new"], |_| true), Some(2.0));
        assert_eq!(counters.total(&["x"], |d| d == "over"), 6.0);
        assert_eq!(between.rate("c_total"), Some(14.5));
        assert_eq!(counters.keys().count(), 2);
    }

    #[test]
    fn a_daemon_that_began_anew_has_no_rate_yet() {
        let before = Page::read("c_total 10\n");
        let after = Page::read("c_total 3\n");
        let between = Between {
            before: Some((&before, 1.0)),
            after: &after,
        };
        assert_eq!(between.rate("c_total"), None);
        let first = Between {
            before: None,
            after: &after,
        };
        assert_eq!(first.rate("c_total"), None);
        assert_eq!(first.counters("c_total", &[], "").total(&[], |_| true), 3.0);
    }

    #[test]
    fn a_share_of_nothing_is_none() {
        assert_eq!(share(Some(1.0), Some(3.0)), Some(0.25));
        assert_eq!(share(Some(0.0), Some(0.0)), None);
        assert_eq!(share(None, Some(1.0)), None);
    }
}
