//! What runs in the guests: the test binaries and the daemon, as they were built for this machine.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use xshell::cmd;

use crate::cmd::Workspace;

/// The kernel half's integration test.
pub(super) const TESTS: &str = "l4";
/// Tells the features of a kernel, and ends the machine.
pub(super) const GUEST: &str = "guest";
pub(super) const LIMITERD: &str = "limiterd";
/// A policy directory with an interface.
pub(super) const POLICY: &str = "examples/quickstart";

/// Executables, by the name that they have in the guest.
pub(super) struct Payload(BTreeMap<String, PathBuf>);

impl Payload {
    /// Builds with the packages and features of `cargo xtask test`, so that nothing is built twice.
    pub(super) fn build(workspace: &Workspace) -> Result<Self> {
        let messages = cmd!(
            workspace.sh,
            "cargo test --workspace --exclude limiter-ebpf --no-run --message-format=json-render-diagnostics"
        )
        .read()?;
        let built: Vec<_> = messages.lines().filter_map(executable).collect();
        let files = [("test", TESTS), ("bin", GUEST), ("bin", LIMITERD)].map(|(kind, name)| {
            built
                .iter()
                .find(|built| built.kind == kind && built.name == name)
                .map(|built| (name.to_owned(), built.file.clone()))
                .with_context(|| format!("cargo built no {kind} `{name}`"))
        });
        Ok(Self(files.into_iter().collect::<Result<_>>()?))
    }

    pub(super) fn files(&self) -> impl Iterator<Item = (&str, &PathBuf)> {
        self.0.iter().map(|(name, file)| (name.as_str(), file))
    }
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
