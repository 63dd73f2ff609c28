//! What the tests of policy files share.

#![allow(
    dead_code,
    clippy::allow_attributes,
    reason = "each of the test binaries uses a part of it"
)]

use std::path::{Path, PathBuf};

use limiter_daemon::policy::{self, Plan};

pub(crate) mod render;

#[track_caller]
pub(crate) fn good(path: &str) -> Plan {
    let outcome = policy::load(Path::new(path));
    assert_eq!(outcome.diagnostics, []);
    outcome.plan.unwrap()
}

/// A directory of its own in the target directory, removed at the end.
#[derive(Debug)]
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    pub(crate) fn new(name: &str) -> Self {
        let path =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}
