//! Which compiler builds `limiter-ebpf` for the BPF target, and how it is called.
//!
//! `core` has no precompiled form for `bpfel-unknown-none` in the toolchains of rust-lang.org. So:
//!
//! 1. a nightly that has the `rust-src` component builds `core` along (`-Z build-std=core`);
//! 2. else Debian's `rustc-web` with `libstd-rust-web-dev-bpf`, which has it precompiled. It is a
//!    stable compiler, and the crate needs two unstable features: `RUSTC_BOOTSTRAP=1`.
//!
//! Shared by the daemon's build script and by xtask (`#[path]`), so: the standard library only.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

const TARGET: &str = "bpfel-unknown-none";
const PACKAGE: &str = "limiter-ebpf";
const BINARY: &str = "limiter";
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_CLIPPY: &str = "/usr/bin/cargo-clippy";
const REMEDY: &str = "run `cargo xtask setup`";

/// Variables that cargo, clippy and coverage tools set for the build that this one is part of.
const INHERITED: [&str; 9] = [
    "CARGO_BUILD_",
    "CARGO_ENCODED_",
    "CARGO_PROFILE_",
    "CARGO_TARGET_",
    "CLIPPY_",
    "LLVM_PROFILE_",
    "RUSTC",
    "RUSTDOC",
    "RUSTFLAGS",
];

/// A compiler for the BPF target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Toolchain {
    /// rustup's nightly, with `rust-src`.
    Nightly,
    /// Debian's `rustc-web`.
    Debian,
}

/// The compiler to use here.
///
/// # Errors
/// What is missing, and the remedy.
pub(crate) fn find() -> Result<Toolchain, String> {
    if nightly_has_source() {
        Ok(Toolchain::Nightly)
    } else if debian_has_core() {
        Ok(Toolchain::Debian)
    } else {
        Err(format!(
            "no compiler for {TARGET}: neither a nightly with rust-src (rustup) nor \
             rustc-web with libstd-rust-web-dev-bpf (Debian); {REMEDY}"
        ))
    }
}

impl Toolchain {
    /// Builds the object (see [`object`]) from the workspace at `workspace` under `target`.
    ///
    /// # Errors
    /// If bpf-linker is not installed.
    pub(crate) fn build_command(self, workspace: &Path, target: &Path) -> Result<Command, String> {
        let mut command = match self {
            Self::Nightly => nightly_cargo(),
            Self::Debian => Command::new(cargo()),
        };
        command.arg("build");
        self.configure(&mut command, workspace, target)?;
        Ok(command)
    }

    /// Runs clippy on the crate as it is built for the BPF target; a warning is an error.
    ///
    /// # Errors
    /// If bpf-linker or Debian's `rust-web-clippy` is not installed.
    pub(crate) fn lint_command(self, workspace: &Path, target: &Path) -> Result<Command, String> {
        let mut command = match self {
            Self::Nightly => nightly_cargo(),
            Self::Debian if Path::new(DEBIAN_CLIPPY).exists() => {
                let mut clippy = Command::new(DEBIAN_CLIPPY);
                clippy.env("CARGO", cargo());
                clippy
            }
            Self::Debian => return Err(format!("{DEBIAN_CLIPPY} is missing; {REMEDY}")),
        };
        command.arg("clippy");
        self.configure(&mut command, workspace, target)?;
        command.args(["--", "-D", "warnings"]);
        Ok(command)
    }

    /// Environment and arguments that building and linting share.
    fn configure(
        self,
        command: &mut Command,
        workspace: &Path,
        target: &Path,
    ) -> Result<(), String> {
        for (name, _) in env::vars_os() {
            if INHERITED.iter().any(|prefix| starts_with(&name, prefix)) {
                command.env_remove(name);
            }
        }
        command
            .current_dir(workspace)
            .args(["--locked", "--release", "--package", PACKAGE, "--target", TARGET])
            .arg("--target-dir")
            .arg(target)
            .env("CARGO_ENCODED_RUSTFLAGS", flags(&linker()?))
            // bpf-linker optimises the whole program by itself, and it wants the debug information,
            // from which it makes the BTF.
            .env("CARGO_PROFILE_RELEASE_LTO", "off")
            .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1")
            .env("CARGO_PROFILE_RELEASE_DEBUG", "full");
        match self {
            Self::Nightly => command.args(["-Z", "build-std=core"]),
            Self::Debian => command
                .env("RUSTC", DEBIAN_RUSTC)
                .env("RUSTC_BOOTSTRAP", "1"),
        };
        Ok(())
    }
}

/// The object that a finished build left under `target`.
pub(crate) fn object(target: &Path) -> PathBuf {
    target.join(TARGET).join("release").join(BINARY)
}

/// bpf-linker, from `PATH` or from where `cargo install` puts it.
///
/// # Errors
/// If it is in neither place.
pub(crate) fn linker() -> Result<PathBuf, String> {
    let path = env::var_os("PATH").unwrap_or_default();
    let home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")));
    env::split_paths(&path)
        .chain(home.map(|home| home.join("bin")))
        .map(|directory| directory.join("bpf-linker"))
        .find(|linker| linker.is_file())
        .ok_or_else(|| format!("bpf-linker is missing; {REMEDY}"))
}

/// `v3` instructions have the 64-bit compare-and-swap, which kernels take from 5.12 on.
fn flags(linker: &Path) -> String {
    let linker = format!("-Clinker={}", linker.display());
    [
        linker.as_str(),
        "-Clink-arg=--btf",
        "-Cdebuginfo=2",
        "-Ctarget-cpu=v3",
    ]
    .join("\x1f")
}

fn nightly_has_source() -> bool {
    sysroot(Command::new("rustup").args(["run", "nightly", "rustc"]))
        .is_some_and(|root| root.join("lib/rustlib/src/rust/library/core").is_dir())
}

fn debian_has_core() -> bool {
    sysroot(&mut Command::new(DEBIAN_RUSTC))
        .is_some_and(|root| root.join("lib/rustlib").join(TARGET).join("lib").is_dir())
}

fn sysroot(rustc: &mut Command) -> Option<PathBuf> {
    let output = rustc.args(["--print", "sysroot"]).output().ok()?;
    let path = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| PathBuf::from(path.trim()))
}

fn nightly_cargo() -> Command {
    let mut command = Command::new("rustup");
    command.args(["run", "nightly", "cargo"]);
    command
}

/// The cargo that runs this build, if one does.
fn cargo() -> PathBuf {
    env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from)
}

fn starts_with(name: &OsStr, prefix: &str) -> bool {
    name.as_encoded_bytes().starts_with(prefix.as_bytes())
}
