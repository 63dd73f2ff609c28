//! The table at the end.

use std::time::Duration;

use super::Expected;
use super::qemu::{End, Run};
use super::suites::{Kind, SUITES};

/// A kernel and how it did.
pub(super) struct Row {
    kernel: String,
    expected: Expected,
    end: End,
    again: bool,
    passed: bool,
    counts: Counts,
    time: Duration,
}

/// How many of how many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Share {
    passed: u32,
    all: u32,
}

/// What the guest's tests and checks said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Counts {
    features: Share,
    /// In the order of [`SUITES`]; those that never began are left out.
    suites: Vec<(String, Share)>,
}

impl Row {
    /// `tests`: how many tests each suite has, in the order of [`SUITES`].
    pub(super) fn new(kernel: &str, expected: Expected, run: &Run, tests: &[u32]) -> Self {
        let counts = counts(&run.log);
        Self {
            kernel: kernel.to_owned(),
            expected,
            end: run.end,
            again: run.again,
            passed: run.end == End::Passed
                && (expected == Expected::Refusal || counts.are_complete(tests)),
            counts,
            time: run.time,
        }
    }

    pub(super) fn passed(&self) -> bool {
        self.passed
    }

    fn result(&self) -> &'static str {
        match (self.end, self.expected) {
            (End::Passed, _) if !self.passed => "INCOMPLETE",
            (End::Passed, Expected::Works) if self.again => "ok, 2nd boot",
            (End::Passed, Expected::Works) => "ok",
            (End::Passed, Expected::Refusal) => "ok, refused",
            (End::Failed, Expected::Works) => "FAILED",
            (End::Failed, Expected::Refusal) => "NOT REFUSED",
            (End::Panicked, _) => "PANICKED",
            (End::Died, _) => "DIED TWICE",
            (End::Silent, _) => "SILENT",
            (End::TimedOut, _) => "TIMED OUT",
            (End::Emulator, _) => "QEMU FAILED",
        }
    }
}

impl Counts {
    /// Every test that a suite has was run and passed, and features were looked at: what ran
    /// nothing has shown nothing.
    fn are_complete(&self, tests: &[u32]) -> bool {
        let run: Vec<_> = self.suites.iter().map(|(_, share)| *share).collect();
        let wanted: Vec<_> = tests
            .iter()
            .map(|all| Share {
                passed: *all,
                all: *all,
            })
            .collect();
        self.features.passed > 0 && run == wanted
    }

    fn of(&self, kind: Kind) -> Share {
        let mut sum = Share::default();
        for suite in SUITES.iter().filter(|suite| suite.kind == kind) {
            let runs = self.suites.iter().filter(|(name, _)| name == suite.name);
            for (_, share) in runs {
                sum.passed += share.passed;
                sum.all += share.all;
            }
        }
        sum
    }
}

impl Share {
    fn shown(self) -> String {
        match self.all {
            0 => "-".to_owned(),
            all => format!("{}/{all}", self.passed),
        }
    }
}

pub(super) fn table(rows: &[Row]) -> String {
    let mut text = format!(
        "\n{:<32} {:<12} {:>8} {:>9} {:>10} {:>8}\n",
        "kernel", "result", "features", "programs", "scenarios", "seconds"
    );
    for row in rows {
        let counts = &row.counts;
        text += &format!(
            "{:<32} {:<12} {:>8} {:>9} {:>10} {:>8.1}\n",
            row.kernel,
            row.result(),
            counts.features.shown(),
            counts.of(Kind::Programs).shown(),
            counts.of(Kind::Scenarios).shown(),
            row.time.as_secs_f64()
        );
    }
    text
}

fn counts(log: &str) -> Counts {
    let mut counts = Counts::default();
    for line in log.lines() {
        if let Some(name) = line.strip_prefix("VMSUITE ") {
            counts.suites.push((name.to_owned(), Share::default()));
        } else if let Some(line) = line.strip_prefix("running ") {
            if let Some((_, share)) = counts.suites.last_mut() {
                share.all += number_before(line, " test");
            }
        } else if let Some(line) = line.strip_prefix("test result: ") {
            if let Some((_, share)) = counts.suites.last_mut() {
                share.passed += number_before(line, " passed");
            }
        } else if line.starts_with("feature ok ") {
            counts.features.passed += 1;
            counts.features.all += 1;
        } else if line.starts_with("feature MISSING ") {
            counts.features.all += 1;
        }
    }
    counts
}

fn number_before(line: &str, word: &str) -> u32 {
    let number = line
        .split_once(word)
        .and_then(|(before, _)| before.rsplit(' ').next());
    number.and_then(|text| text.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::{Counts, Share, counts};

    const LOG: &str = "\
feature ok tcx
feature MISSING live frames
not expected: x
VMSUITE l4
running 28 tests
test result: FAILED. 26 passed; 2 failed; 0 ignored
VMSUITE probe
running 1 test
test result: ok. 1 passed; 0 failed; 0 ignored
";

    fn share(passed: u32, all: u32) -> Share {
        Share { passed, all }
    }

    #[test]
    fn results_are_counted_by_suite() {
        assert_eq!(
            counts(LOG),
            Counts {
                features: share(1, 2),
                suites: vec![
                    ("l4".to_owned(), share(26, 28)),
                    ("probe".to_owned(), share(1, 1)),
                ],
            }
        );
    }

    #[test]
    fn a_suite_that_ran_in_part_or_not_at_all_is_told() {
        let counts = counts(&LOG.replace("FAILED. 26", "ok. 28"));
        assert!(counts.are_complete(&[28, 1]));
        assert!(!counts.are_complete(&[29, 1]));
        assert!(!counts.are_complete(&[28, 1, 3]));
        assert!(!super::counts(LOG).are_complete(&[28, 1]));
        assert!(!Counts::default().are_complete(&[]));
    }
}
