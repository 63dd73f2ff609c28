//! The assignment of ids and ports; no kernel needed.

use super::*;
use limiter_common::Limit;

fn policy(name: &str, ports: &[u16]) -> NetworkPolicy {
    NetworkPolicy {
        name: name.to_owned(),
        ports: ports.to_vec(),
        connections: Some(Limit::new(100, 10, 1_000_000_000).unwrap()),
        packets: None,
    }
}

fn names(taken: &[(u32, &str)]) -> BTreeMap<u32, String> {
    taken
        .iter()
        .map(|(id, name)| (*id, (*name).to_owned()))
        .collect()
}

fn ids(taken: &[(u32, &str)], policies: &[&str]) -> Vec<u32> {
    let policies: Vec<_> = policies.iter().map(|name| policy(name, &[])).collect();
    let taken = names(taken);
    let assignment = assign(&taken, &policies).unwrap();
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
fn an_id_that_changes_hands_is_named_anew() {
    let taken: BTreeMap<u32, String> = (1..MAX_POLICIES).map(|id| (id, format!("p{id}"))).collect();
    let policies = [policy("new", &[])];
    let assignment = assign(&taken, &policies).unwrap();
    let (id, name) = assignment.new[0];
    assert_eq!((id, name.len, &name.name[..3]), (1, 3, b"new".as_slice()));
}

#[test]
fn more_policies_than_ids_are_refused() {
    let policies: Vec<_> = (0..MAX_POLICIES)
        .map(|n| policy(&format!("p{n}"), &[]))
        .collect();
    let error = assign(&BTreeMap::new(), &policies).unwrap_err();
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

#[test]
fn a_port_under_two_policies_is_refused() {
    let policies = [policy("a", &[80, 443]), policy("b", &[443])];
    let ids = BTreeMap::from([("a", 1), ("b", 2)]);
    let error = ports(&policies, &ids).unwrap_err();
    assert!(
        matches!(&error, L4Error::PortTaken { port: 443, .. }),
        "{error}"
    );
}

#[test]
fn too_many_ports_are_refused() {
    let many: Vec<u16> = (0..=1024).collect();
    let error = ports(&[policy("a", &many)], &BTreeMap::from([("a", 1)])).unwrap_err();
    assert!(
        matches!(
            error,
            L4Error::TooManyPorts {
                found: 1025,
                max: 1024
            }
        ),
        "{error}"
    );
}

#[test]
fn only_the_units_that_are_stated_are_in_force() {
    let policy = policy("a", &[80]);
    let entry = port_policy(&policy, 3);
    assert_eq!((entry.policy, entry.units), (3, UNIT_CONNECTIONS));
    assert_eq!(entry.connections, policy.connections.unwrap());
}
