//! The assignment of ids; no kernel needed.

use super::*;
use crate::policy::plan::SourceLimits;

fn policy(name: &str) -> NetworkPolicy {
    NetworkPolicy {
        name: name.to_owned(),
        ports: Vec::new(),
        interfaces: Vec::new(),
        default: SourceLimits::Unlimited,
        rules: Vec::new(),
        allow: Vec::new(),
        deny: Vec::new(),
        shadow: false,
        written: None,
    }
}

fn names(taken: &[(u32, &str)]) -> BTreeMap<u32, String> {
    taken
        .iter()
        .map(|(id, name)| (*id, (*name).to_owned()))
        .collect()
}

fn ids(taken: &[(u32, &str)], policies: &[&str]) -> Vec<u32> {
    let policies: Vec<_> = policies.iter().map(|name| policy(name)).collect();
    let taken = names(taken);
    let assignment = assign(&taken, |_| false, &policies).unwrap();
    policies
        .iter()
        .map(|policy| assignment.ids[policy.name.as_str()])
        .collect()
}

#[test]
fn the_first_policies_get_the_first_ids() {
    assert_eq!(ids(&[], &["a", "b"]), [1, 2]);
}

#[test]
fn a_policy_keeps_its_id_whatever_comes_and_goes() {
    assert_eq!(ids(&[(1, "a"), (7, "b")], &["c", "b"]), [2, 7]);
}

#[test]
fn the_id_of_a_policy_that_is_gone_is_taken_last() {
    let mut taken: Vec<(u32, String)> =
        (1..MAX_POLICIES).map(|id| (id, format!("p{id}"))).collect();
    taken.remove(9);
    let taken: Vec<(u32, &str)> = taken
        .iter()
        .map(|(id, name)| (*id, name.as_str()))
        .collect();
    assert_eq!(ids(&taken, &["new"]), [10]);
    assert_eq!(ids(&taken, &["p1", "x", "y"]), [1, 10, 2]);
}

#[test]
fn the_id_of_a_policy_in_force_is_taken_after_all_others() {
    let taken: BTreeMap<u32, String> = (1..MAX_POLICIES).map(|id| (id, format!("p{id}"))).collect();
    let policies = [policy("new")];
    let assignment = assign(&taken, |id| id != 40, &policies).unwrap();
    assert_eq!(assignment.ids["new"], 40);
}

#[test]
fn an_id_that_changes_hands_is_named_anew() {
    let taken: BTreeMap<u32, String> = (1..MAX_POLICIES).map(|id| (id, format!("p{id}"))).collect();
    let policies = [policy("new")];
    let assignment = assign(&taken, |_| false, &policies).unwrap();
    let (id, name) = assignment.new[0];
    assert_eq!((id, name.len, &name.name[..3]), (1, 3, b"new".as_slice()));
}

#[test]
fn more_policies_than_ids_are_refused() {
    let policies: Vec<_> = (0..MAX_POLICIES)
        .map(|n| policy(&format!("p{n}")))
        .collect();
    let error = assign(&BTreeMap::new(), |_| false, &policies).unwrap_err();
    assert!(
        matches!(
            error,
            L4Error::TooManyPolicies {
                found: 256,
                max: 255
            }
        ),
        "{error}"
    );
}

#[test]
fn a_name_of_the_longest_length_fits_and_a_longer_one_does_not() {
    let longest = "n".repeat(POLICY_NAME_LEN);
    assert_eq!(
        stored(&longest).unwrap().name.as_slice(),
        longest.as_bytes()
    );
    assert!(matches!(
        stored(&format!("{longest}n")),
        Err(L4Error::NameTooLong { .. })
    ));
}
