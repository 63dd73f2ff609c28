//! Builds the kernel half (`limiter-ebpf`) and leaves it at `$OUT_DIR/limiter.o`, from where
//! `l4::load` takes it into the binary.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::{env, fs};

#[path = "build/toolchain.rs"]
#[expect(dead_code, reason = "linting is for xtask, which shares the file")]
mod toolchain;

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("cannot build limiter-ebpf: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), String> {
    let workspace = parent(&directory("CARGO_MANIFEST_DIR")?)?;
    let out = directory("OUT_DIR")?;
    watch(&workspace);

    // A target directory of its own: the one in use is locked by the cargo that runs this script.
    let target = out.join("ebpf");
    let mut command = toolchain::find()?.build_command(&workspace, &target)?;
    run(&mut command)?;
    let object = toolchain::object(&target);
    fs::copy(&object, out.join("limiter.o"))
        .map_err(|error| format!("{}: {error}", object.display()))?;
    Ok(())
}

/// Everything that the object is made of.
fn watch(workspace: &Path) {
    for path in [
        "Cargo.lock",
        "Cargo.toml",
        "limiter-common/Cargo.toml",
        "limiter-common/src",
        "limiter-daemon/build",
        "limiter-daemon/build.rs",
        "limiter-ebpf/Cargo.toml",
        "limiter-ebpf/src",
    ] {
        println!("cargo::rerun-if-changed={}", workspace.join(path).display());
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command
        .output()
        .map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    Err(format!("{command:?}: {}\n{errors}", output.status))
}

fn directory(variable: &str) -> Result<PathBuf, String> {
    env::var_os(variable)
        .map(PathBuf::from)
        .ok_or_else(|| format!("{variable} is not set"))
}

fn parent(path: &Path) -> Result<PathBuf, String> {
    path.parent()
        .map(Path::to_owned)
        .ok_or_else(|| format!("{} has no parent", path.display()))
}
