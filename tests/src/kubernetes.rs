//! `deploy/kubernetes`, rendered by the real kubectl and helm, and held to the schemas of Kubernetes.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

/// `deploy/kubernetes`.
#[must_use]
pub fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/kubernetes")
}

/// `variable`, or what `cargo xtask setup` puts under the target directory.
fn installed(variable: &str, path: &str) -> Result<PathBuf> {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/kubernetes");
    let found = std::env::var_os(variable).map_or_else(|| default.join(path), PathBuf::from);
    ensure!(
        found.exists(),
        "there is no {}: `cargo xtask setup` gets it, or set {variable}",
        found.display()
    );
    Ok(found)
}

/// Objects in the order in which they were rendered.
#[derive(Clone, Debug)]
pub struct Objects(pub Vec<Value>);

impl Objects {
    /// # Errors
    /// When it is no YAML.
    pub fn parse(yaml: &str) -> Result<Self> {
        let mut objects: Vec<Value> = serde_saphyr::from_multiple(yaml)?;
        objects.retain(|object| !object.is_null());
        Ok(Self(objects))
    }

    /// The one object of this kind.
    ///
    /// # Errors
    /// When there is none, or several.
    pub fn one(&self, kind: &str) -> Result<&Value> {
        let mut all = self.0.iter().filter(|object| object["kind"] == kind);
        match (all.next(), all.next()) {
            (Some(one), None) => Ok(one),
            (None, _) => bail!("no {kind}"),
            (Some(_), Some(_)) => bail!("several objects are a {kind}"),
        }
    }

    /// The one workload: a DaemonSet or a Deployment.
    ///
    /// # Errors
    /// When there is none, or several.
    pub fn workload(&self) -> Result<&Value> {
        self.one("DaemonSet").or_else(|_| self.one("Deployment"))
    }

    /// The template of the workload's pods.
    ///
    /// # Errors
    /// When there is no workload.
    pub fn pod(&self) -> Result<&Value> {
        Ok(&self.workload()?["spec"]["template"]["spec"])
    }

    /// The workload's one container.
    ///
    /// # Errors
    /// When it has another number of them.
    pub fn container(&self) -> Result<&Value> {
        let pod = self.pod()?;
        let containers = pod["containers"].as_array().context("no containers")?;
        ensure!(pod["initContainers"].is_null(), "there are init containers");
        match containers.as_slice() {
            [one] => Ok(one),
            _ => bail!("{} containers", containers.len()),
        }
    }

    /// The files that the pod's volume of this name shows, as the kubelet makes them of ConfigMaps. An
    /// optional source that is not there shows none.
    ///
    /// # Errors
    /// When a source is missing, or two have a file of one name.
    pub fn files(&self, volume: &str) -> Result<BTreeMap<String, String>> {
        let volumes = self.pod()?["volumes"].as_array().context("no volumes")?;
        let found = volumes.iter().find(|one| one["name"] == volume);
        let sources =
            &found.with_context(|| format!("no volume {volume}"))?["projected"]["sources"];
        let mut files = BTreeMap::new();
        for source in sources.as_array().context("no sources")? {
            let name = &source["configMap"]["name"];
            if name.is_null() {
                ensure!(source["secret"]["optional"] == true, "what is {source}?");
                continue;
            }
            let map = self.0.iter().find(|object| {
                object["kind"] == "ConfigMap" && object["metadata"]["name"] == *name
            });
            let map = map.with_context(|| format!("no ConfigMap {name}"))?;
            for (key, text) in map["data"].as_object().context("no data")? {
                let text = text.as_str().context("no text")?.to_owned();
                let twice = files.insert(key.clone(), text);
                ensure!(twice.is_none(), "{key} is in two ConfigMaps");
            }
        }
        Ok(files)
    }

    /// As YAML, which JSON is: a document for each object.
    ///
    /// # Errors
    /// Never, for what was parsed.
    pub fn to_yaml(&self) -> Result<String> {
        let mut text = String::new();
        for object in &self.0 {
            text += "---\n";
            text += &serde_json::to_string_pretty(object)?;
            text.push('\n');
        }
        Ok(text)
    }
}

/// What `kubectl kustomize` makes of a directory. Warnings are errors.
///
/// # Errors
/// With kubectl's own words.
pub fn kustomize(dir: &Path) -> Result<Objects> {
    let mut kubectl = Command::new(installed("KUBECTL", "bin/kubectl/kubectl")?);
    let output = kubectl.arg("kustomize").arg(dir).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success() && said.is_empty(),
        "kubectl kustomize {}: {said}",
        dir.display()
    );
    Objects::parse(std::str::from_utf8(&output.stdout)?)
}

/// Where helm is.
///
/// # Errors
/// When there is none.
pub fn helm_program() -> Result<PathBuf> {
    installed("HELM", "bin/helm/helm")
}

/// Runs helm.
///
/// # Errors
/// With helm's own words.
pub fn helm<I: IntoIterator<Item: Into<OsString>>>(args: I) -> Result<String> {
    let mut helm = Command::new(helm_program()?);
    let output = helm.args(args.into_iter().map(Into::into)).output()?;
    ensure!(
        output.status.success(),
        "helm: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?)
}

/// What `helm template limiterd CHART` makes, with further arguments.
///
/// # Errors
/// With helm's own words.
pub fn template(chart: &Path, args: &[&str]) -> Result<Objects> {
    let base = ["template", "limiterd", "--namespace", "limiterd"];
    let base = base.iter().chain(args).map(OsString::from);
    Objects::parse(&helm(base.chain([chart.into()]))?)
}

/// The chart.
#[must_use]
pub fn chart() -> PathBuf {
    deploy().join("helm/limiterd")
}

/// Holds objects to the schemas of these versions of Kubernetes, strictly: a field that is not there is an
/// error. What it says of them.
///
/// # Errors
/// When they are not valid, with what is wrong.
pub fn validate(objects: &Objects, versions: &[&str]) -> Result<String> {
    let file = tempfile::Builder::new().suffix(".yaml").tempfile()?;
    std::fs::write(file.path(), objects.to_yaml()?)?;
    let mut command = Command::new("python3");
    command
        .env("PYTHONPATH", installed("KUBERNETES_VALIDATE", "validate")?)
        .args(["-m", "kubernetes_validate", "--strict"]);
    for version in versions {
        command.args(["--kubernetes-version", version]);
    }
    let output = command.arg(file.path()).output()?;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    ensure!(output.status.success(), "not valid: {said}");
    Ok(said)
}
