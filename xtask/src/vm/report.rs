//! The table at the end.

use std::time::Duration;

use super::Expected;
use super::kernels::Kernel;
use super::qemu::{End, Run};

/// A kernel and how it did.
pub(super) struct Row {
    kernel: String,
    expected: Expected,
    end: End,
    pub(super) passed: bool,
    counts: Counts,
    time: Duration,
}

/// What the guest's tests and checks said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    passed: u32,
    failed: u32,
    features: u32,
    features_missing: u32,
}

impl Row {
    pub(super) fn new(kernel: &Kernel, expected: Expected, run: &Run) -> Self {
        let counts = counts(&run.log);
        // A guest that ran no test has shown nothing.
        let shown = expected == Expected::Refusal || counts.passed > 0 && counts.features > 0;
        Self {
            kernel: kernel.name.clone(),
            expected,
            end: run.end,
            passed: run.passed() && shown,
            counts,
            time: run.time,
        }
    }

    fn result(&self) -> &'static str {
        match (self.end, self.expected) {
            (End::Passed, _) if !self.passed => "RAN NOTHING",
            (End::Passed, Expected::Works) => "ok",
            (End::Passed, Expected::Refusal) => "ok, refused",
            (End::Failed, Expected::Works) => "FAILED",
            (End::Failed, Expected::Refusal) => "NOT REFUSED",
            (End::Died, _) => "DIED",
            (End::TimedOut, _) => "TIMED OUT",
        }
    }
}

pub(super) fn table(rows: &[Row]) -> String {
    let mut text = format!(
        "\n{:<32} {:<12} {:>10} {:>8} {:>8}\n",
        "kernel", "result", "features", "tests", "seconds"
    );
    for row in rows {
        let counts = row.counts;
        text += &format!(
            "{:<32} {:<12} {:>10} {:>8} {:>8.1}\n",
            row.kernel,
            row.result(),
            share(counts.features, counts.features_missing),
            share(counts.passed, counts.failed),
            row.time.as_secs_f64()
        );
    }
    text
}

/// So many of all.
fn share(good: u32, bad: u32) -> String {
    match good + bad {
        0 => "-".to_owned(),
        all => format!("{good}/{all}"),
    }
}

fn counts(log: &str) -> Counts {
    let mut counts = Counts::default();
    for line in log.lines() {
        if let Some(line) = line.strip_prefix("test result: ") {
            counts.passed += number_before(line, " passed");
            counts.failed += number_before(line, " failed");
        } else if line.starts_with("feature ok ") {
            counts.features += 1;
        } else if line.starts_with("feature MISSING ") {
            counts.features_missing += 1;
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
    use super::{Counts, counts};

    #[test]
    fn results_are_counted() {
        let log = "feature ok tcx\nfeature MISSING live frames\nnot expected: x\n\
                   test result: FAILED. 26 passed; 2 failed; 0 ignored\n";
        assert_eq!(
            counts(log),
            Counts {
                passed: 26,
                failed: 2,
                features: 1,
                features_missing: 1,
            }
        );
    }
}
