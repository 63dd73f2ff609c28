//! `runtime` of the LimiterConfig: settings that may be changed while running.

use std::collections::BTreeMap;

use crate::policy::decode::At;
use crate::policy::findings::Scope;
use crate::policy::plan::runtime;

/// Checks the settings; those with errors are left out.
pub(super) fn lower(raw: BTreeMap<String, At<u64>>, scope: &mut Scope<'_>) -> BTreeMap<String, u8> {
    let mut settings = BTreeMap::new();
    for (name, percent) in raw {
        if let Err(problem) = runtime::check_name(&name) {
            scope.error(&percent.mark, problem, runtime::NAMES);
            continue;
        }
        match u8::try_from(percent.value) {
            Ok(value @ 0..=100) => {
                settings.insert(name, value);
            }
            _ => scope.error(
                &percent.mark,
                format!("{} is no percentage", percent.value),
                "it may be 0 to 100",
            ),
        }
    }
    settings
}
