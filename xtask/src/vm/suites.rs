//! What runs inside a guest: test binaries, as `cargo test` built them, and which of their tests.
//!
//! A guest has to run as many tests as the binary lists here: one that is left out there, for
//! whatever reason, is a failure.

/// A test binary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Suite {
    /// Its target's name, which is also its file's name in the guest.
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// For the test harness; they go over a line of a file, so no spaces inside.
    pub(super) arguments: &'static [&'static str],
}

/// What a suite's tests are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The programs: packet fixtures, attaching, pinning, reloading.
    Programs,
    /// The real daemon and real traffic over veth, in network namespaces.
    Scenarios,
}

/// In the order in which they run.
pub(super) const SUITES: &[Suite] = &[
    suite("l4", Kind::Programs, &[]),
    // Ten million packets take an emulated machine a quarter of an hour.
    suite(
        "attack",
        Kind::Programs,
        &["--skip", "regular_clients_do_not_notice_ten_million"],
    ),
    suite("probe", Kind::Scenarios, &[]),
    suite("kernel_limits", Kind::Scenarios, &[]),
    suite("tcp_gateway", Kind::Scenarios, &["over_the_bucket"]),
    suite("sentences", Kind::Scenarios, &[]),
    suite("lifecycle", Kind::Scenarios, &[]),
];

const fn suite(name: &'static str, kind: Kind, arguments: &'static [&'static str]) -> Suite {
    Suite {
        name,
        kind,
        arguments,
    }
}

/// The file that the guest's init reads: a line a suite.
pub(super) fn list() -> String {
    SUITES
        .iter()
        .map(|suite| [&[suite.name], suite.arguments].concat().join(" ") + "\n")
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{SUITES, list};

    #[test]
    fn init_can_tell_the_words_of_a_line() {
        assert_eq!(list().lines().count(), SUITES.len());
        for suite in SUITES {
            let words = suite.arguments.iter().chain([&suite.name]);
            assert!(words.into_iter().all(|word| {
                word.chars()
                    .all(|c| c.is_ascii_alphanumeric() || "-_=:".contains(c))
            }));
        }
    }
}
