//! Whether the daemon serves, and with which policy.

use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What `/ready` reports.
#[derive(Debug, Default)]
pub struct Status(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    phase: Phase,
    reloads: u64,
    failed_reloads: u64,
    /// Findings of the last reload, if it failed: the policy before it goes on.
    rejected: Option<String>,
    notes: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Starting,
    Serving,
    Draining,
    Failed,
}

/// Numbers of reloads, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reloads {
    pub applied: u64,
    pub rejected: u64,
    pub last_succeeded: bool,
}

impl Status {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Requests are served; `notes` say how (interfaces and modes).
    pub fn serving(&self, notes: Vec<String>) {
        let mut state = self.state();
        state.phase = Phase::Serving;
        state.notes = notes;
    }

    /// How requests are served has changed.
    pub fn note(&self, notes: Vec<String>) {
        self.state().notes = notes;
    }

    /// No new work is wanted: a load balancer should look elsewhere.
    pub fn draining(&self) {
        self.state().phase = Phase::Draining;
    }

    /// A part of the daemon died.
    pub fn failed(&self) {
        self.state().phase = Phase::Failed;
    }

    /// A new policy is in force.
    pub fn reloaded(&self) {
        let mut state = self.state();
        state.reloads += 1;
        state.rejected = None;
    }

    /// A new policy was refused, for `reason`.
    pub fn rejected(&self, reason: String) {
        let mut state = self.state();
        state.failed_reloads += 1;
        state.rejected = Some(reason);
    }

    /// `starting`, `serving`, `draining` or `failed`.
    #[must_use]
    pub fn phase(&self) -> &'static str {
        match self.state().phase {
            Phase::Starting => "starting",
            Phase::Serving => "serving",
            Phase::Draining => "draining",
            Phase::Failed => "failed",
        }
    }

    /// Numbers of reloads.
    #[must_use]
    pub fn reloads(&self) -> Reloads {
        let state = self.state();
        Reloads {
            applied: state.reloads,
            rejected: state.failed_reloads,
            last_succeeded: state.rejected.is_none(),
        }
    }

    /// Whether the daemon is ready, and the report. A refused reload does not make it unready: the
    /// policy before it is in force, and taking every gateway out of service for a typo would be
    /// the greater harm.
    #[must_use]
    pub fn report(&self) -> (bool, String) {
        let state = self.state();
        let (ready, mut report) = match state.phase {
            Phase::Starting => (false, "starting\n".to_owned()),
            Phase::Serving => (true, "ready\n".to_owned()),
            Phase::Draining => (false, "draining\n".to_owned()),
            Phase::Failed => (false, "failed: a worker died; see the log\n".to_owned()),
        };
        // Writing to a String does not fail.
        for note in &state.notes {
            let _infallible = writeln!(report, "{note}");
        }
        if let Some(reason) = &state.rejected {
            let _infallible = writeln!(
                report,
                "last reload with errors, what is not valid stays as it was:\n{reason}"
            );
        }
        (ready, report)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rejected_reload_is_told_and_does_not_make_unready() {
        let status = Status::default();
        assert_eq!(status.report(), (false, "starting\n".into()));
        status.serving(vec!["xdp: lo generic".into()]);
        status.rejected("a.yaml:1:1: error".into());
        let (ready, report) = status.report();
        assert!(ready);
        assert_eq!(
            report,
            "ready\nxdp: lo generic\nlast reload with errors, what is not valid stays as it was:\na.yaml:1:1: error\n"
        );
        status.reloaded();
        assert_eq!(status.report(), (true, "ready\nxdp: lo generic\n".into()));
        status.draining();
        assert!(!status.report().0);
        assert_eq!(
            status.reloads(),
            Reloads {
                applied: 1,
                rejected: 1,
                last_succeeded: true
            }
        );
    }
}
