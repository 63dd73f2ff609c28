//! What others wrote of what is in the executable, and the texts of their licences, as they lie in the
//! crates: of everything that `limiter-daemon` and the program for the kernel are linked of. Which
//! licences may be there is cargo-deny's to say (`deny.toml`).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use xshell::cmd;

use super::{Dist, triple};

/// Whose code is in the executable.
const ROOTS: &[&str] = &["limiter-daemon", "limiter-ebpf"];
/// How files with a licence, or with what it wants to be kept, begin, in capitals or not.
const NAMES: &[&str] = &[
    "LICENSE",
    "LICENCE",
    "COPYING",
    "COPYRIGHT",
    "NOTICE",
    "UNLICENSE",
];

/// A crate: `name version`, and the SPDX expression of its licence.
type Crate = (String, String);

/// The whole as a text.
pub(super) fn text(dist: &Dist<'_>) -> Result<String> {
    let triple = triple();
    let metadata = cmd!(
        dist.workspace.sh,
        "cargo metadata --locked --offline --format-version 1 --filter-platform {triple}"
    )
    .quiet()
    .read()?;
    let metadata = serde_json::from_str(&metadata)?;
    let mut texts: BTreeMap<String, BTreeSet<Crate>> = BTreeMap::new();
    let mut without = BTreeSet::new();
    for package in linked(&metadata)? {
        let found = word(package, "name").zip(word(package, "version"));
        let (name, version) = found.context("a package without a name")?;
        // Neither those of this workspace, which is not from a registry.
        if word(package, "source").is_none() {
            continue;
        }
        let licence = word(package, "license").unwrap_or("as its text says");
        let one = (format!("{name} {version}"), licence.to_owned());
        let manifest = word(package, "manifest_path").context("a package without a place")?;
        let found = files(Path::new(manifest))?;
        if found.is_empty() {
            without.insert(one.clone());
        }
        for text in found {
            texts.entry(text).or_default().insert(one.clone());
        }
    }
    ensure!(!texts.is_empty(), "there is no crate with a licence");
    Ok(written(&texts, &without))
}

fn word<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    value.get(key)?.as_str()
}

fn list<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value
        .get(key)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

/// The packages that [`ROOTS`] are linked of, themselves among them: neither what only builds or tests
/// them, nor what a compiler is extended by.
fn linked(metadata: &Value) -> Result<Vec<&Value>> {
    let packages: BTreeMap<_, _> = list(metadata, "packages")
        .filter_map(|package| Some((word(package, "id")?, package)))
        .collect();
    let resolve = metadata.get("resolve").context("cargo tells no graph")?;
    let nodes: BTreeMap<_, _> = list(resolve, "nodes")
        .filter_map(|node| Some((word(node, "id")?, node)))
        .collect();
    let is_root = |package: &Value| word(package, "name").is_some_and(|name| ROOTS.contains(&name));
    let mut todo: Vec<&str> = packages
        .iter()
        .filter(|(_, package)| is_root(package))
        .map(|(id, _)| *id)
        .collect();
    ensure!(todo.len() == ROOTS.len(), "cargo does not know {ROOTS:?}");
    let mut seen = BTreeSet::new();
    while let Some(id) = todo.pop() {
        let extends = packages
            .get(id)
            .is_some_and(|package| is_for_the_compiler(package));
        if extends || !seen.insert(id) {
            continue;
        }
        let node = nodes.get(id).context("a package outside the graph")?;
        let normal = list(node, "deps").filter(|dependency| {
            list(dependency, "dep_kinds").any(|kind| kind.get("kind").is_some_and(Value::is_null))
        });
        todo.extend(normal.filter_map(|dependency| word(dependency, "pkg")));
    }
    Ok(seen
        .iter()
        .filter_map(|id| packages.get(id).copied())
        .collect())
}

fn is_for_the_compiler(package: &Value) -> bool {
    list(package, "targets")
        .flat_map(|target| list(target, "kind"))
        .any(|kind| kind == "proc-macro")
}

/// The texts beside a manifest.
fn files(manifest: &Path) -> Result<Vec<String>> {
    let directory = manifest.parent().context("a manifest is in a directory")?;
    let mut texts = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().to_uppercase();
        let is_licence = NAMES.iter().any(|begin| name.starts_with(begin));
        // A link to nothing, or a folder of them, is none.
        if is_licence && entry.path().is_file() {
            texts.push(fs::read_to_string(entry.path())?.trim().replace('\r', ""));
        }
    }
    Ok(texts)
}

fn written(texts: &BTreeMap<String, BTreeSet<Crate>>, without: &BTreeSet<Crate>) -> String {
    let mut out = String::from(
        "limiterd is under MIT OR Apache-2.0, its program for the kernel under MIT OR GPL-2.0-only.\n\
         The executable has the work of others in it, under these licences.\n",
    );
    let mut tell = |crates: &BTreeSet<Crate>, text: &str| {
        out.push_str("\n----\n\n");
        for (name, licence) in crates {
            // A String takes everything.
            let _infallible = writeln!(out, "{name} ({licence})");
        }
        out.push('\n');
        out.push_str(text);
        out.push('\n');
    };
    let mut texts: Vec<_> = texts.iter().collect();
    texts.sort_by_key(|(text, crates)| (crates.first(), *text));
    for (text, crates) in texts {
        tell(crates, text);
    }
    if !without.is_empty() {
        tell(without, "These come without a text.");
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{linked, word};

    #[test]
    fn what_is_linked_is_told_from_what_builds_and_extends() {
        let package = |name: &str, kind: &str| json!({"id": name, "name": name, "targets": [{"kind": [kind]}]});
        let needs = |name: &str, kind: serde_json::Value| json!({"pkg": name, "dep_kinds": [{"kind": kind}]});
        let metadata = json!({
            "packages": [
                package("limiter-daemon", "lib"), package("limiter-ebpf", "lib"), package("in", "lib"),
                package("deep", "lib"), package("macro", "proc-macro"), package("builds", "lib"),
                package("elsewhere", "lib"),
            ],
            "resolve": {"nodes": [
                {"id": "limiter-daemon", "deps": [
                    needs("in", json!(null)), needs("macro", json!(null)), needs("builds", json!("build")),
                ]},
                {"id": "limiter-ebpf", "deps": []},
                {"id": "in", "deps": [needs("deep", json!(null))]},
                {"id": "deep", "deps": []},
            ]},
        });
        let found = linked(&metadata).unwrap();
        let names: Vec<_> = found.iter().filter_map(|one| word(one, "name")).collect();
        assert_eq!(names, ["deep", "in", "limiter-daemon", "limiter-ebpf"]);
        assert!(linked(&json!({"packages": [], "resolve": {}})).is_err());
    }
}
