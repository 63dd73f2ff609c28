//! What became of each resource, in the terms of the Gateway API and of Envoy Gateway: conditions of
//! resources, of listeners, and of routes and policies for each ancestor.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

/// The conditions of one resource.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ResourceStatus {
    pub kind: String,
    pub namespace: String,
    pub name: String,
    /// Of the resource as a whole.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Of a Gateway or a ListenerSet.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub listeners: Vec<ListenerStatus>,
    /// Of a route (its parents) or a policy.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ancestors: Vec<AncestorStatus>,
}

/// The conditions of one listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListenerStatus {
    pub name: String,
    pub attached_routes: usize,
    pub conditions: Vec<Condition>,
}

/// The conditions of a resource with respect to one that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AncestorStatus {
    pub ancestor: Ancestor,
    pub conditions: Vec<Condition>,
}

/// A Gateway or a ListenerSet, or the target of a policy where that is not there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Ancestor {
    pub kind: &'static str,
    pub namespace: String,
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub section_name: Option<String>,
}

/// One condition; `reason` is of Gateway API's or Envoy Gateway's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Condition {
    #[serde(rename = "type")]
    pub kind: &'static str,
    #[serde(serialize_with = "as_word")]
    pub status: bool,
    pub reason: &'static str,
    pub message: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn as_word<S: Serializer>(status: &bool, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(if *status { "True" } else { "False" })
}

impl Condition {
    pub(crate) fn new(
        kind: &'static str,
        status: bool,
        reason: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self {
            kind,
            status,
            reason,
            message: message.into(),
        }
    }

    pub(crate) fn accepted(message: impl Into<String>) -> Self {
        Self::new("Accepted", true, "Accepted", message)
    }

    pub(crate) fn not_accepted(reason: &'static str, message: impl Into<String>) -> Self {
        Self::new("Accepted", false, reason, message)
    }
}

/// The statuses while they are collected.
#[derive(Debug, Default)]
pub(crate) struct Statuses {
    all: BTreeMap<(String, String, String), ResourceStatus>,
}

impl Statuses {
    /// The status of a resource, which is made if it is not there.
    pub(crate) fn of(&mut self, kind: &str, namespace: &str, name: &str) -> &mut ResourceStatus {
        let key = (kind.to_owned(), namespace.to_owned(), name.to_owned());
        self.all.entry(key).or_insert_with(|| ResourceStatus {
            kind: kind.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            ..ResourceStatus::default()
        })
    }

    /// In order of kind, namespace and name.
    pub(crate) fn into_sorted(self) -> Vec<ResourceStatus> {
        self.all.into_values().collect()
    }
}

impl ResourceStatus {
    /// Adds a condition of the resource as a whole.
    pub(crate) fn add(&mut self, condition: Condition) {
        put(&mut self.conditions, condition);
    }

    /// Adds to every ancestor that there is.
    pub(crate) fn add_for_all(&mut self, condition: &Condition) {
        for status in &mut self.ancestors {
            put(&mut status.conditions, condition.clone());
        }
    }

    /// Adds a condition with respect to an ancestor.
    pub(crate) fn add_for(&mut self, ancestor: &Ancestor, condition: Condition) {
        let place = self
            .ancestors
            .iter()
            .position(|status| status.ancestor == *ancestor);
        match place.and_then(|place| self.ancestors.get_mut(place)) {
            Some(status) => put(&mut status.conditions, condition),
            None => self.ancestors.push(AncestorStatus {
                ancestor: ancestor.clone(),
                conditions: vec![condition],
            }),
        }
    }
}

/// A condition of a type stands once. What is not accepted stays so, and warnings are joined.
fn put(conditions: &mut Vec<Condition>, condition: Condition) {
    let there = conditions
        .iter_mut()
        .find(|other| other.kind == condition.kind);
    match there {
        None => conditions.push(condition),
        Some(there) if there.kind == "Warning" => {
            if there.reason != condition.reason {
                there.reason = "Warnings";
            }
            there.message.push_str("; ");
            there.message.push_str(&condition.message);
        }
        Some(there) if there.status && !condition.status => *there = condition,
        Some(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::{Ancestor, Condition, Statuses};

    #[test]
    fn as_json() {
        let mut statuses = Statuses::default();
        let ancestor = Ancestor {
            kind: "Gateway",
            namespace: "default".to_owned(),
            name: "eg".to_owned(),
            section_name: Some("http".to_owned()),
        };
        let status = statuses.of("BackendTrafficPolicy", "default", "p");
        status.add_for(&ancestor, Condition::accepted("yes"));
        status.add_for(&ancestor, Condition::not_accepted("Invalid", "no"));
        let expected = serde_json::json!([{
            "kind": "BackendTrafficPolicy",
            "namespace": "default",
            "name": "p",
            "ancestors": [{
                "ancestor": {
                    "kind": "Gateway", "namespace": "default", "name": "eg", "sectionName": "http",
                },
                "conditions": [{
                    "type": "Accepted", "status": "False", "reason": "Invalid", "message": "no",
                }],
            }],
        }]);
        let found = serde_json::to_value(statuses.into_sorted()).ok();
        assert_eq!(found, Some(expected));
    }

    #[test]
    fn warnings_are_joined_and_what_is_not_accepted_stays_so() {
        let mut statuses = Statuses::default();
        let status = statuses.of("Gateway", "default", "eg");
        status.add(Condition::not_accepted("Invalid", "no"));
        status.add(Condition::accepted("yes"));
        for (reason, message) in [("A", "one"), ("A", "two"), ("B", "three")] {
            status.add(Condition::new("Warning", true, reason, message));
        }
        let found: Vec<_> = status
            .conditions
            .iter()
            .map(|one| (one.kind, one.status, one.reason, one.message.as_str()))
            .collect();
        assert_eq!(
            found,
            [
                ("Accepted", false, "Invalid", "no"),
                ("Warning", true, "Warnings", "one; two; three"),
            ]
        );
    }
}
