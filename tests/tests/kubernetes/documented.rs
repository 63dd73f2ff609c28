//! The examples of `docs/kubernetes.md` do what they say.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use tempfile::TempDir;
use tests::daemon::limiterd;
use tests::envoy;
use tests::kubernetes::{Objects, deploy, helm_program, kustomize};
use tests::netns::Netns;
use tests::pod::{Node, Pod};
use tests::tls::Authority;
use tests::topology::Topology;
use tests::volume::Volume;

use crate::support::overlay;

/// The one block of the document in this language that has `mark` in it.
fn block(language: &str, mark: &str) -> Result<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/kubernetes.md");
    let text = fs::read_to_string(path)?;
    let fence = format!("```{language}");
    let blocks = text.split(&fence).skip(1);
    let mut blocks = blocks.filter_map(|rest| {
        let (_, rest) = rest.split_once('\n')?;
        Some(rest.split_once("```")?.0.to_owned())
    });
    blocks
        .find(|block| block.contains(mark))
        .with_context(|| format!("no block with {mark:?}"))
}

/// A checkout of `deploy/kubernetes` beside a directory of one's own, which has files of one's own.
fn checkout() -> Result<TempDir> {
    let dir = tempfile::tempdir()?;
    for made in ["limiterd/deploy", "mine"] {
        fs::create_dir_all(dir.path().join(made))?;
    }
    let to = dir.path().join("limiterd/deploy");
    let copied = Command::new("cp").arg("-r").args([deploy(), to]).status()?;
    assert!(copied.success());
    for (name, text) in overlay("edge")?.files("policy")? {
        if !name.starts_with("status") {
            let text = format!("# mine\n{text}");
            fs::write(dir.path().join("mine").join(name), text)?;
        }
    }
    Ok(dir)
}

/// The user's files are in place of the examples, and those that the pods need are there.
fn assert_mine(objects: &Objects) -> Result<()> {
    let image = &objects.container()?["image"];
    assert_eq!(image, "registry.example.com/limiterd:0.1.0");
    let files = objects.files("policy")?;
    for (name, text) in &files {
        assert_eq!(
            text.starts_with("# mine\n"),
            !name.starts_with("status"),
            "{name}"
        );
    }
    for name in [
        "limiterd.yaml",
        "gateway.yaml",
        "limits.yaml",
        "status.yaml",
    ] {
        assert!(files.contains_key(name), "{name}");
    }
    Ok(())
}

#[test]
fn an_overlay_of_ones_own() -> Result<()> {
    let dir = checkout()?;
    let mine = dir.path().join("mine");
    fs::write(
        mine.join("kustomization.yaml"),
        block("yaml", "kind: Kustomization")?,
    )?;
    assert_mine(&kustomize(&mine)?)
}

#[test]
fn a_release_of_ones_own() -> Result<()> {
    let dir = checkout()?;
    for file in fs::read_dir(dir.path().join("mine"))? {
        let file = file?;
        fs::copy(
            file.path(),
            dir.path().join("limiterd").join(file.file_name()),
        )?;
    }
    let script = block("sh", "helm install")?;
    // There is no cluster to install to.
    let script = script.replace("helm install limiterd", "\"$HELM\" template limiterd");
    let output = Command::new("sh")
        .args(["-e", "-c", &script])
        .env("HELM", helm_program()?)
        .current_dir(dir.path().join("limiterd"))
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert_mine(&Objects::parse(std::str::from_utf8(&output.stdout)?)?)
}

#[test]
fn a_certificate_comes_by_a_secret_and_is_renewed() -> Result<()> {
    let topology = Topology::new()?;
    let (gateway, client) = (&topology.gateway, &topology.first.netns);
    let objects = overlay("edge")?;
    let mut files = objects.files("policy")?;
    let gateway_file = files.get_mut("gateway.yaml").context("no gateway.yaml")?;
    let (_, rest) = gateway_file.split_once("---\n").context("one document")?;
    *gateway_file = format!("{}---\n{rest}", block("yaml", "certificate-file")?);
    let with = |files: &BTreeMap<String, String>, authority: &Authority| -> Result<_> {
        let [chain, key] = authority.pair("shop.example.com")?;
        let mut files = files.clone();
        files.extend([("tls.crt".to_owned(), chain), ("tls.key".to_owned(), key)]);
        Ok(files)
    };
    let [old, new] = [Authority::new()?, Authority::new()?];
    let mut volume = Volume::new(with(&files, &old)?)?;
    let interface = topology.first.gateway_interface.as_str();
    volume.edit("limiterd.yaml", "name: eth0", &format!("name: {interface}"))?;
    let files = volume.files().clone();

    let node = Node::new()?;
    let pod = Pod::start(&objects, gateway, &node, &volume, "")?;
    pod.await_probe("readinessProbe", true, [gateway, client], "10.77.1.1")?;
    let trusts = |netns: &Netns, authority: &Authority| {
        authority
            .connect(netns, "10.77.1.1:443", "shop.example.com")
            .map(drop)
    };
    trusts(client, &old)?;
    assert!(trusts(client, &new).is_err());
    volume.write(with(&files, &new)?)?;
    tests::daemon::eventually("the new certificate", || Ok(trusts(client, &new).ok()))?;
    assert!(trusts(client, &old).is_err());
    Ok(())
}

#[test]
fn the_url_of_a_store_is_in_a_secret() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut files = overlay("rls-only")?.files("policy")?;
    for (name, mark) in [
        ("store.yaml", "kind: Secret\n"),
        ("limiterd.yaml", "urlRef:"),
    ] {
        files.insert(name.to_owned(), block("yaml", mark)?);
    }
    for (name, text) in &files {
        fs::write(dir.path().join(name), text)?;
    }
    let path = dir.path().to_str().context("not UTF-8")?;
    let output = limiterd(&["check", "--deny-warnings", path])?;
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    // And it is what is in force: without it there is no store.
    fs::remove_file(dir.path().join("store.yaml"))?;
    let output = limiterd(&["check", path])?;
    assert!(!output.status.success());
    Ok(())
}

#[test]
fn envoy_takes_the_cluster() -> Result<()> {
    let cluster = block("yaml", "STRICT_DNS")?;
    let indented: String = cluster.lines().map(|line| format!("  {line}\n")).collect();
    envoy::validate(&format!("static_resources:\n{indented}"))
}
