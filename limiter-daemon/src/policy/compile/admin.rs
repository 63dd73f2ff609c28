//! Who may ask the admin listener: settings of the LimiterConfig, with the certificates they name.

use super::certificates;
use crate::policy::findings::Findings;
use crate::policy::plan::{AdminAccess, ServerTls};
use crate::policy::resources::Resources;

/// What the first LimiterConfig says.
pub(super) fn compile(resources: &Resources, findings: &mut Findings) -> AdminAccess {
    let Some(config) = resources.configs.values().next() else {
        return AdminAccess::default();
    };
    let settings = &config.admin;
    let tls = match &settings.tls {
        None => ServerTls::None,
        Some(refs) => certificates::of_daemon("admin", refs, &config.meta, resources, findings),
    };
    AdminAccess {
        tokens: settings.tokens.clone(),
        tls,
        clients: settings.clients.clone(),
        hostnames: settings.hostnames.clone(),
    }
}
