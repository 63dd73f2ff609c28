//! Which Rust toolchain can compile for the BPF target here.

use std::path::Path;
use std::process::Command;

/// Where Debian's `rustc-web` is; `rustup` puts its own `rustc` elsewhere.
pub(crate) const SYSTEM_RUSTC: &str = "/usr/bin/rustc";
const TARGET: &str = "bpfel-unknown-none";

/// A way to compile for the BPF target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Toolchain {
    /// A nightly with `rust-src`: `core` is compiled on the way (`-Z build-std`).
    Nightly,
    /// The system's compiler, whose package brings `core` for the target.
    System,
}

/// The toolchain that is used here; a nightly comes first.
pub(crate) fn find() -> Option<Toolchain> {
    if nightly_has_source() {
        Some(Toolchain::Nightly)
    } else if system_has_core() {
        Some(Toolchain::System)
    } else {
        None
    }
}

fn nightly_has_source() -> bool {
    let mut rustc = Command::new("rustup");
    rustc.args(["run", "nightly", "rustc", "--print", "sysroot"]);
    output(&mut rustc).is_some_and(|sysroot| {
        Path::new(&sysroot)
            .join("lib/rustlib/src/rust/library/core/Cargo.toml")
            .exists()
    })
}

fn system_has_core() -> bool {
    let mut rustc = Command::new(SYSTEM_RUSTC);
    rustc.args(["--print", "target-libdir", "--target", TARGET]);
    output(&mut rustc).is_some_and(|libdir| holds_core(Path::new(&libdir)))
}

fn holds_core(libdir: &Path) -> bool {
    libdir.read_dir().is_ok_and(|entries| {
        entries
            .flatten()
            .any(|entry| entry.file_name().to_string_lossy().starts_with("libcore-"))
    })
}

/// What a command prints; `None` if it cannot be run or fails.
fn output(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    let text = output
        .status
        .success()
        .then(|| String::from_utf8(output.stdout).ok())??;
    Some(text.trim().to_owned())
}
