//! Labels, and selectors of them.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::policy::decode::At;
use crate::policy::findings::Scope;

/// The labels of a resource.
pub(crate) type Labels = BTreeMap<String, String>;

/// Kubernetes' `LabelSelector`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RawLabelSelector {
    pub(crate) match_labels: Option<BTreeMap<String, String>>,
    pub(crate) match_expressions: Option<At<Vec<At<RawExpression>>>>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct RawExpression {
    key: At<String>,
    operator: Operator,
    values: Option<Vec<String>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(crate) enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

/// A selector, checked; empty: it selects everything.
#[derive(Clone, Debug, Default)]
pub(crate) struct LabelSelector {
    labels: Labels,
    expressions: Vec<(String, Operator, Vec<String>)>,
}

/// Checks a selector.
pub(crate) fn lower(raw: RawLabelSelector, scope: &mut Scope<'_>) -> LabelSelector {
    let mut expressions = Vec::new();
    for At { value: raw, mark } in raw
        .match_expressions
        .map(|list| list.value)
        .unwrap_or_default()
    {
        let values = raw.values.unwrap_or_default();
        let needs = matches!(raw.operator, Operator::In | Operator::NotIn);
        if needs == values.is_empty() {
            let (message, remedy) = if needs {
                ("the operator needs `values`", "give it one or more")
            } else {
                ("the operator takes no `values`", "remove them")
            };
            scope.error(&mark, message, remedy);
        }
        expressions.push((raw.key.value, raw.operator, values));
    }
    LabelSelector {
        labels: raw.match_labels.unwrap_or_default(),
        expressions,
    }
}

impl LabelSelector {
    /// A selector of one label's value.
    #[cfg(test)]
    pub(crate) fn of(key: &str, value: &str) -> Self {
        Self {
            labels: BTreeMap::from([(key.to_owned(), value.to_owned())]),
            expressions: Vec::new(),
        }
    }

    /// Whether it selects a resource with these labels.
    pub(crate) fn selects(&self, labels: &Labels) -> bool {
        let expression = |(key, operator, values): &(String, Operator, Vec<String>)| {
            let label = labels.get(key);
            match operator {
                Operator::In => label.is_some_and(|label| values.contains(label)),
                Operator::NotIn => label.is_none_or(|label| !values.contains(label)),
                Operator::Exists => label.is_some(),
                Operator::DoesNotExist => label.is_none(),
            }
        };
        self.labels
            .iter()
            .all(|(key, value)| labels.get(key) == Some(value))
            && self.expressions.iter().all(expression)
    }
}

#[cfg(test)]
mod tests {
    use super::{LabelSelector, Labels, Operator};

    #[test]
    fn selectors() {
        let labels = Labels::from([("app".to_owned(), "shop".to_owned())]);
        let by = |key: &str, operator, values: &[&str]| {
            LabelSelector {
                labels: Labels::new(),
                expressions: vec![(
                    key.to_owned(),
                    operator,
                    values.iter().map(|&value| value.to_owned()).collect(),
                )],
            }
            .selects(&labels)
        };
        assert!(LabelSelector::default().selects(&labels));
        assert!(LabelSelector::of("app", "shop").selects(&labels));
        assert!(!LabelSelector::of("app", "till").selects(&labels));
        assert!(!LabelSelector::of("tier", "shop").selects(&labels));
        let table = [
            ("app", Operator::In, &["shop", "x"][..], true),
            ("app", Operator::In, &["x"], false),
            ("tier", Operator::In, &["x"], false),
            ("app", Operator::NotIn, &["shop"], false),
            ("tier", Operator::NotIn, &["x"], true),
            ("app", Operator::Exists, &[], true),
            ("tier", Operator::Exists, &[], false),
            ("app", Operator::DoesNotExist, &[], false),
            ("tier", Operator::DoesNotExist, &[], true),
        ];
        for (key, operator, values, expected) in table {
            assert_eq!(
                by(key, operator, values),
                expected,
                "{key} {operator:?} {values:?}"
            );
        }
    }
}
