//! What is known of backends outlives a plan: found again by name when the plan changes.

use std::sync::Arc;
use std::time::Duration;

use super::admission::Admission;
use super::breaker::Breaker;
use super::health::CheckStats;
use super::host::Host;
use super::outlier::Outliers;
use crate::engine::named::Named;

/// Hosts, and what is counted of backends and routes, of the process.
#[derive(Debug, Default)]
pub struct Registry {
    hosts: Named<Host>,
    breakers: Named<Breaker>,
    outliers: Named<Outliers>,
    checks: Named<CheckStats>,
    admissions: Named<Admission>,
}

impl Registry {
    /// The host of this name of a backend under a policy: the one in use, or one that became known
    /// at `now`.
    pub fn host(&self, backend: &str, policy: &str, name: &str, now: u64) -> Arc<Host> {
        let id = format!("{backend}@{policy}#{name}");
        self.hosts.get(id, || Host::new(name.to_owned(), now))
    }

    /// The circuit breaker of a backend under a policy.
    pub fn breaker(&self, backend: &str, policy: &str) -> Arc<Breaker> {
        self.breakers.get(format!("{backend}@{policy}"), || {
            Breaker::new(backend.to_owned(), policy.to_owned())
        })
    }

    /// Outlier detection of a backend under a policy.
    pub fn outliers(&self, backend: &str, policy: &str) -> Arc<Outliers> {
        self.outliers.get(format!("{backend}@{policy}"), || {
            Outliers::new(backend.to_owned(), policy.to_owned())
        })
    }

    /// What is counted of the checks of a backend under a policy.
    pub fn checks(&self, backend: &str, policy: &str) -> Arc<CheckStats> {
        self.checks
            .get(format!("{backend}@{policy}"), || CheckStats {
                backend: backend.to_owned(),
                policy: policy.to_owned(),
                ..CheckStats::default()
            })
    }

    /// Admission control of a route under a policy; another window counts anew.
    pub fn admission(&self, policy: &str, route: &str, window: Duration) -> Arc<Admission> {
        let id = format!("{route}@{policy}#{}", window.as_nanos());
        self.admissions.get(id, || {
            Admission::new(policy.to_owned(), route.to_owned(), window)
        })
    }

    /// The circuit breaker of every backend of the plan in force, by name.
    #[must_use]
    pub fn breakers(&self) -> Vec<Arc<Breaker>> {
        self.breakers.living()
    }

    /// Outlier detection of every backend of the plan in force, by name.
    #[must_use]
    pub fn all_outliers(&self) -> Vec<Arc<Outliers>> {
        self.outliers.living()
    }

    /// Checks of every backend of the plan in force that has them, by name.
    #[must_use]
    pub fn all_checks(&self) -> Vec<Arc<CheckStats>> {
        self.checks.living()
    }

    /// Admission control of every route of the plan in force that has it, by name.
    #[must_use]
    pub fn admissions(&self) -> Vec<Arc<Admission>> {
        self.admissions.living()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stays_is_found_again() {
        let registry = Registry::default();
        let host = registry.host("d/b", "d/p", "192.0.2.1:80", 1);
        let outliers = registry.outliers("d/b", "d/p");
        let admission = registry.admission("d/p", "d/r", Duration::from_secs(30));
        assert!(Arc::ptr_eq(
            &host,
            &registry.host("d/b", "d/p", "192.0.2.1:80", 2)
        ));
        assert!(!Arc::ptr_eq(
            &host,
            &registry.host("d/b", "", "192.0.2.1:80", 2)
        ));
        assert!(Arc::ptr_eq(&outliers, &registry.outliers("d/b", "d/p")));
        assert_eq!(registry.all_outliers().len(), 1);
        let longer = registry.admission("d/p", "d/r", Duration::from_secs(60));
        assert!(!Arc::ptr_eq(&admission, &longer));
        assert_eq!(registry.admissions().len(), 2);
    }
}
