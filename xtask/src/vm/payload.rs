//! What runs in the guests: the test binaries and the daemon, as they were built for this machine.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use xshell::cmd;

use super::suites::{SUITES, Suite};
use crate::cmd::Workspace;

/// Tells the features of a kernel, and ends the machine.
pub(super) const GUEST: &str = "guest";
pub(super) const LIMITERD: &str = "limiterd";
/// A policy directory with an interface.
pub(super) const POLICY: &str = "examples/quickstart";

/// What was built for the guests.
pub(super) struct Payload {
    /// Executables, by the name that they have in the guest.
    files: BTreeMap<&'static str, PathBuf>,
    /// How many tests each suite has, in the order of [`SUITES`].
    tests: Vec<u32>,
}

impl Payload {
    /// Builds with the packages and features of `cargo xtask test`, so that nothing is built twice.
    pub(super) fn build(workspace: &Workspace) -> Result<Self> {
        let messages = cmd!(
            workspace.sh,
            "cargo test --workspace --exclude limiter-ebpf --no-run --message-format=json-render-diagnostics"
        )
        .read()?;
        let built: Vec<_> = messages.lines().filter_map(executable).collect();
        let mut files = BTreeMap::new();
        let suites = SUITES.iter().map(|suite| ("test", suite.name));
        for (kind, name) in suites.chain([("bin", GUEST), ("bin", LIMITERD)]) {
            let found = built
                .iter()
                .find(|built| built.kind == kind && built.name == name)
                .with_context(|| format!("cargo built no {kind} `{name}`"))?;
            files.insert(name, found.file.clone());
        }
        let tests = SUITES
            .iter()
            .map(|suite| count(workspace, suite, files.get(suite.name)));
        let tests = tests.collect::<Result<_>>()?;
        Ok(Self { files, tests })
    }

    pub(super) fn files(&self) -> impl Iterator<Item = (&str, &Path)> {
        self.files
            .iter()
            .map(|(name, file)| (*name, file.as_path()))
    }

    /// How many tests each suite has, in the order of [`SUITES`].
    pub(super) fn tests(&self) -> &[u32] {
        &self.tests
    }
}

/// How many tests a suite has, by its own list.
fn count(workspace: &Workspace, suite: &Suite, file: Option<&PathBuf>) -> Result<u32> {
    let file = file.context("every suite is built")?;
    let arguments = suite.arguments;
    let list = cmd!(workspace.sh, "{file} --list --format terse {arguments...}")
        .quiet()
        .read()?;
    let tests = list.lines().filter(|line| line.ends_with(": test")).count();
    ensure!(tests > 0, "{} lists no test", suite.name);
    Ok(u32::try_from(tests)?)
}

#[derive(Debug, PartialEq, Eq)]
struct Executable {
    kind: String,
    name: String,
    file: PathBuf,
}

/// An executable that cargo reports; its unit tests' harness is not meant.
fn executable(message: &str) -> Option<Executable> {
    let message: serde_json::Value = serde_json::from_str(message).ok()?;
    let target = message.get("target")?;
    let kind = target.get("kind")?.get(0)?.as_str()?;
    let is_harness = message.get("profile")?.get("test")?.as_bool()?;
    (is_harness == (kind == "test")).then_some(Executable {
        kind: kind.to_owned(),
        name: target.get("name")?.as_str()?.to_owned(),
        file: message.get("executable")?.as_str()?.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::{Executable, executable};

    #[test]
    fn executables_are_told_from_their_unit_tests() {
        let message = |test: bool| {
            format!(
                r#"{{"reason":"compiler-artifact","target":{{"kind":["bin"],"name":"limiterd"}},"profile":{{"test":{test}}},"executable":"target/debug/limiterd"}}"#
            )
        };
        assert_eq!(
            executable(&message(false)),
            Some(Executable {
                kind: "bin".to_owned(),
                name: "limiterd".to_owned(),
                file: "target/debug/limiterd".into(),
            })
        );
        assert_eq!(executable(&message(true)), None);
        assert_eq!(executable(r#"{"reason":"build-finished"}"#), None);
    }
}
