//! Policy files, as users see them: for each directory or file under `policy/`, what
//! `limiterd check` prints is in the `.txt` beside it, to the byte.
//!
//! `BLESS=1 cargo test -p limiter-daemon --test policy` writes those texts anew; read the difference.

#![expect(clippy::unwrap_used, reason = "a helper that fails, fails the test")]

use std::path::{Path, PathBuf};

use limiter_daemon::cli::check;
use limiter_daemon::policy;

fn cases() -> Vec<PathBuf> {
    let mut cases: Vec<PathBuf> = Path::new("tests/policy")
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_none_or(|extension| extension != "txt"))
        .collect();
    cases.sort();
    cases
}

fn checked(dir: &Path) -> (u8, String) {
    let mut out = Vec::new();
    let code = check::run(dir, &mut out).unwrap();
    (code, String::from_utf8(out).unwrap())
}

#[test]
fn findings_read_as_recorded() {
    let bless = std::env::var_os("BLESS").is_some();
    let mut failures = Vec::new();
    for case in cases() {
        let (code, text) = checked(&case);
        let golden = case.with_extension("txt");
        if bless {
            std::fs::write(&golden, &text).unwrap();
        }
        let expected = std::fs::read_to_string(&golden).unwrap_or_default();
        if text != expected {
            failures.push(format!(
                "--- {}: expected\n{expected}--- found\n{text}",
                case.display()
            ));
        }
        let good = text
            .lines()
            .last()
            .is_some_and(|line| line.starts_with("ok: "));
        assert_eq!(code, u8::from(!good), "{}", case.display());
        assert_eq!(
            policy::load(&case).plan.is_some(),
            good,
            "{}",
            case.display()
        );
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
