//! `cargo xtask vm-test --system`: the package is installed on a [Debian](super::debian), upgraded
//! under load, killed, rebooted, removed and purged ([`SCRIPT`] says what has to hold).

use std::path::Path;

use anyhow::Result;

use super::debian::{self, Story};
use crate::cmd::Workspace;

const SCRIPT: &str = include_str!("system/guest.sh");
const POLICY: &[(&str, &str)] = &[
    ("limiterd.yaml", include_str!("system/policy/limiterd.yaml")),
    ("gateway.yaml", include_str!("system/policy/gateway.yaml")),
    ("limits.yaml", include_str!("system/policy/limits.yaml")),
];

pub(super) fn test(workspace: &Workspace, limiterd: Option<&Path>) -> Result<()> {
    let files: Vec<_> = POLICY
        .iter()
        .map(|(name, text)| (format!("policy/{name}"), (*text).to_owned()))
        .collect();
    let story = Story {
        name: "system",
        script: SCRIPT,
        network: include_str!("system/net.sh"),
        files: &files,
        figures: "VMLOAD ",
    };
    debian::play(workspace, &story, limiterd)
}
