//! Policy files, as users see them: for each directory or file under `policy/`, what
//! `limiterd check` prints is in the `.txt` beside it, to the byte; and for those under
//! `policy/conformance/`, also the statuses and the plan.
//!
//! `BLESS=1 cargo test -p limiter-daemon --test policy` writes those texts anew; read the difference.

#![expect(clippy::unwrap_used, reason = "a helper that fails, fails the test")]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use limiter_daemon::cli::check;
use limiter_daemon::policy::{self, Severity};

mod policy_support;

use policy_support::{Scratch, render};

const CONFORMANCE: &str = "tests/policy/conformance";

fn cases(dir: &str) -> Vec<PathBuf> {
    let mut cases: Vec<PathBuf> = Path::new(dir)
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_none_or(|extension| extension != "txt"))
        .filter(|path| !path.ends_with("conformance") && !path.ends_with("base"))
        .collect();
    cases.sort();
    cases
}

fn checked(dir: &Path) -> (u8, String) {
    let mut out = Vec::new();
    let code = check::run(dir, &mut out).unwrap();
    (code, String::from_utf8(out).unwrap())
}

/// Compares each text with the one recorded for its case, or records it.
fn compare(found: impl IntoIterator<Item = (PathBuf, String)>) {
    let bless = std::env::var_os("BLESS").is_some();
    let mut failures = Vec::new();
    for (case, text) in found {
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
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn findings_read_as_recorded() {
    compare(cases("tests/policy").into_iter().map(|case| {
        let (code, text) = checked(&case);
        let good = text
            .lines()
            .last()
            .is_some_and(|line| line.starts_with("ok: "));
        let errors = policy::load(&case).count(Severity::Error);
        assert_eq!(code, u8::from(!good), "{}", case.display());
        assert_eq!(errors == 0, good, "{}", case.display());
        (case, text)
    }));
}

/// A certificate and its key, in PEM.
fn pair() -> (String, String) {
    let pair = rcgen::generate_simple_self_signed(vec!["shop.example".to_owned()]).unwrap();
    (pair.cert.pem(), pair.signing_key.serialize_pem())
}

/// Each case is loaded beside the file of `base/` that its first line names (`# base: NAME`), with
/// certificates and keys where it says `@CERTIFICATE@`, `@KEY@` and `@OTHER-KEY@`.
#[test]
fn files_come_to_the_statuses_and_plans_recorded() {
    let cases = cases(CONFORMANCE);
    assert!(cases.len() >= 60, "{} cases", cases.len());
    let pairs = [pair(), pair()];
    compare(cases.into_iter().map(|case| {
        let name = case.file_stem().unwrap().to_str().unwrap();
        let dir = Scratch::new(&format!("conformance-{name}"));
        let source = std::fs::read_to_string(&case).unwrap();
        let base = source
            .lines()
            .next()
            .and_then(|line| line.strip_prefix("# base: "))
            .map(|base| Path::new(CONFORMANCE).join("base").join(base));
        if let Some(base) = base {
            std::fs::copy(base.with_extension("yaml"), dir.0.join("base.yaml")).unwrap();
        }
        let [server, other] = &pairs;
        let source = source
            .replace("@CERTIFICATE@", &BASE64_STANDARD.encode(&server.0))
            .replace("@KEY@", &BASE64_STANDARD.encode(&server.1))
            .replace("@OTHER-KEY@", &BASE64_STANDARD.encode(&other.1));
        std::fs::write(dir.0.join("case.yaml"), source).unwrap();
        std::fs::write(dir.0.join("server.pem"), &server.0).unwrap();
        std::fs::write(dir.0.join("server.key"), &server.1).unwrap();
        let mut text = String::new();
        let outcome = policy::load(&dir.0);
        for found in &outcome.diagnostics {
            writeln!(text, "{found}").unwrap();
        }
        render::statuses(&outcome.statuses, &mut text);
        match &outcome.plan {
            Some(plan) => render::plan(plan, &mut text),
            None => text.push_str("no plan\n"),
        }
        let text = text.replace(&format!("{}/", dir.0.display()), "");
        (case, text)
    }));
}
