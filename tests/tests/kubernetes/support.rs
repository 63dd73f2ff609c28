//! What the scenarios share.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::Value;
use tests::kubernetes::{Objects, chart, deploy, kustomize, template};
use tests::netns::Netns;

pub(crate) const PROFILES: [&str; 2] = ["edge", "rls-only"];

/// For a connection that comes at once, or not at all.
const PATIENCE: Duration = Duration::from_millis(500);

/// An overlay.
pub(crate) fn overlay(profile: &str) -> Result<Objects> {
    kustomize(&deploy().join("overlays").join(profile))
}

/// An overlay with a component.
pub(crate) fn with_component(profile: &str, component: &str) -> Result<Objects> {
    // Kustomize takes no absolute paths, so it is built in a copy.
    let copy = tempfile::tempdir()?;
    let from = deploy();
    let copied = Command::new("cp")
        .arg("-r")
        .args([&from, copy.path()])
        .status()?;
    ensure!(copied.success(), "{} cannot be copied", from.display());
    let dir = copy.path().join("kubernetes/overlays/mine");
    fs::create_dir(&dir)?;
    let text = format!(
        "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n\
         namespace: limiterd\nresources: [../{profile}]\n\
         components: [../../components/{component}]\n"
    );
    fs::write(dir.join("kustomization.yaml"), text)?;
    kustomize(&dir)
}

/// The chart's counterpart of an overlay, with further arguments.
pub(crate) fn released(profile: &str, args: &[&str]) -> Result<Objects> {
    let profile = format!("profile={profile}");
    let base = ["--set", &profile, "--set", "namespace.create=true"];
    template(&chart(), &[&base[..], args].concat())
}

/// What a client sees that connects.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Accepted,
    Refused,
    /// Nothing at all.
    Silence,
}

pub(crate) fn connect(netns: &Netns, address: &str, port: u16) -> Result<Seen> {
    let target: SocketAddr = format!("{address}:{port}").parse()?;
    netns.enter(|| {
        Ok(match TcpStream::connect_timeout(&target, PATIENCE) {
            Ok(_) => Seen::Accepted,
            Err(error) if error.kind() == std::io::ErrorKind::TimedOut => Seen::Silence,
            Err(_) => Seen::Refused,
        })
    })
}

/// `spec.http.FIELD` of the pod's LimiterConfig, in seconds.
pub(crate) fn drain(objects: &Objects, field: &str) -> Result<u64> {
    let files = objects.files("policy")?;
    let config: Value = serde_saphyr::from_str(&files["limiterd.yaml"])?;
    let text = config["spec"]["http"][field].as_str().unwrap_or_default();
    Ok(text.trim_end_matches('s').parse()?)
}
