//! Which id each policy has.
//!
//! Policies keep their ids by name, over reloads and restarts, because packets are counted under the
//! id. The name of a policy that is gone keeps its id (and the policy's counters) until another
//! policy needs it.

use std::collections::{BTreeMap, BTreeSet};

use limiter_common::PolicyName;
use limiter_common::policy::{MAX_POLICIES, POLICY_NAME_LEN};

use super::error::L4Error;
use crate::policy::plan::NetworkPolicy;

/// Which id each policy gets.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Assignment<'a> {
    pub(super) ids: BTreeMap<&'a str, u32>,
    /// The ids that change hands, with the names that they get.
    pub(super) new: Vec<(u32, PolicyName)>,
}

/// A policy that had an id keeps it; another gets a free one, or one whose policy is gone: of those,
/// one that is not `in_force` if there is any.
pub(super) fn assign<'a>(
    names: &BTreeMap<u32, String>,
    in_force: impl Fn(u32) -> bool,
    policies: &'a [NetworkPolicy],
) -> Result<Assignment<'a>, L4Error> {
    let mut assignment = Assignment::default();
    let wanted: BTreeSet<&str> = policies.iter().map(|policy| policy.name.as_str()).collect();
    let free = (1..MAX_POLICIES).filter(|id| !names.contains_key(id));
    let gone = names
        .iter()
        .filter(|(_, name)| !wanted.contains(name.as_str()))
        .map(|(id, _)| *id);
    let (replaced, gone): (Vec<_>, Vec<_>) = gone.partition(|id| in_force(*id));
    let mut available = free.chain(gone).chain(replaced);
    let known: BTreeMap<&str, u32> = names
        .iter()
        .map(|(id, name)| (name.as_str(), *id))
        .collect();
    for name in &wanted {
        if let Some(id) = known.get(name) {
            assignment.ids.insert(name, *id);
            continue;
        }
        let max = MAX_POLICIES as usize - 1;
        let found = wanted.len();
        let id = available
            .next()
            .ok_or(L4Error::TooManyPolicies { found, max })?;
        assignment.ids.insert(name, id);
        assignment.new.push((id, stored(name)?));
    }
    Ok(assignment)
}

fn stored(name: &str) -> Result<PolicyName, L4Error> {
    let too_long = || L4Error::NameTooLong {
        name: name.to_owned(),
        max: POLICY_NAME_LEN,
    };
    let mut stored = PolicyName {
        len: 0,
        name: [0; POLICY_NAME_LEN],
    };
    stored.len = u32::try_from(name.len()).map_err(|_overflow| too_long())?;
    let place = stored.name.get_mut(..name.len()).ok_or_else(too_long)?;
    place.copy_from_slice(name.as_bytes());
    Ok(stored)
}

#[cfg(test)]
mod tests;
