//! The guest's file system: busybox, `ip`, a kernel's modules, and what is to be run.
//!
//! Programs bring the libraries that the loader of this machine finds for them, so nothing has to
//! be linked in another way for the guest than for the host.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use xshell::cmd;

use super::kernels::Kernel;
use super::payload::{POLICY, Payload};
use super::suites;
use crate::cmd::{Workspace, search_path};

const INIT: &str = include_str!("init.sh");

/// Modules that the tests need, with what these need.
const MODULES: &[&str] = &["veth", "sch_ingress", "cls_bpf", "8021q", "bonding"];

/// What init and the tests call.
const PROGRAMS: &[&str] = &["busybox", "ip", "tc", "setpriv"];

/// Busybox under these names only: its shell would run an applet `ip` before iproute2's.
const APPLETS: &[&str] = &[
    "cat", "cp", "grep", "insmod", "ls", "mkdir", "mount", "sh", "sleep", "timeout", "uname",
];

/// Packs the file system; the image.
pub(super) fn build(
    workspace: &Workspace,
    kernel: &Kernel,
    payload: &Payload,
    directory: &Path,
) -> Result<PathBuf> {
    let root = directory.join("root").join(&kernel.name);
    if root.exists() {
        fs::remove_dir_all(&root)?;
    }
    for directory in [
        "bin", "dev", "modules", "payload", "proc", "run", "sys", "tmp",
    ] {
        fs::create_dir_all(root.join(directory))?;
    }
    fs::write(root.join("init"), INIT)?;
    fs::set_permissions(root.join("init"), fs::Permissions::from_mode(0o755))?;

    for program in PROGRAMS {
        let file = find(program)?;
        place(workspace, &root, &file, &root.join("bin").join(program))?;
    }
    for applet in APPLETS {
        symlink("busybox", root.join("bin").join(applet))?;
    }
    for (name, file) in payload.files() {
        let to = root.join("payload").join(name);
        place(workspace, &root, file, &to)?;
        cmd!(workspace.sh, "strip --strip-debug {to}")
            .quiet()
            .run()?;
    }
    fs::write(root.join("payload/suites"), suites::list())?;
    copy_policy(workspace, &root)?;
    for (number, module) in kernel.modules(workspace, MODULES)?.iter().enumerate() {
        unpack_module(module, number, &root.join("modules"))?;
    }
    let image = directory.join(format!("{}.cpio", kernel.name));
    pack(&root, &image)?;
    Ok(image)
}

/// A file system that only finds another one: busybox, `init` and modules; the image.
pub(super) fn minimal(
    workspace: &Workspace,
    kernel: &Kernel,
    init: &str,
    modules: &[&str],
    directory: &Path,
) -> Result<PathBuf> {
    let root = directory.join("initrd");
    if root.exists() {
        fs::remove_dir_all(&root)?;
    }
    for directory in ["bin", "dev", "disk", "modules", "proc", "sys"] {
        fs::create_dir_all(root.join(directory))?;
    }
    fs::write(root.join("init"), init)?;
    fs::set_permissions(root.join("init"), fs::Permissions::from_mode(0o755))?;
    let busybox = find("busybox")?;
    place(workspace, &root, &busybox, &root.join("bin/busybox"))?;
    for applet in ["insmod", "mount", "sh", "switch_root", "umount"] {
        symlink("busybox", root.join("bin").join(applet))?;
    }
    for (number, module) in kernel.modules(workspace, modules)?.iter().enumerate() {
        unpack_module(module, number, &root.join("modules"))?;
    }
    let image = directory.join("initrd.cpio");
    pack(&root, &image)?;
    Ok(image)
}

/// Copies a program and the libraries it is linked to.
fn place(workspace: &Workspace, root: &Path, file: &Path, to: &Path) -> Result<()> {
    fs::copy(file, to).with_context(|| format!("{}", file.display()))?;
    // It fails for what is linked statically.
    let libraries = cmd!(workspace.sh, "ldd {file}")
        .quiet()
        .env("LC_ALL", "C")
        .ignore_status()
        .ignore_stderr()
        .read()?;
    ensure!(
        !libraries.contains("not found"),
        "{}: {libraries}",
        file.display()
    );
    for library in libraries.lines().filter_map(library) {
        let to = root.join(library.strip_prefix("/").unwrap_or(library));
        if !to.exists() {
            fs::create_dir_all(to.parent().context("a library is in a directory")?)?;
            fs::copy(library, to)?;
        }
    }
    Ok(())
}

/// The file in a line of `ldd`.
fn library(line: &str) -> Option<&Path> {
    let line = line.split_once("=>").map_or(line, |(_, file)| file);
    let file = line.split_whitespace().next()?;
    file.starts_with('/').then(|| Path::new(file))
}

fn copy_policy(workspace: &Workspace, root: &Path) -> Result<()> {
    let to = root.join("payload/policy");
    fs::create_dir(&to)?;
    for entry in fs::read_dir(workspace.root.join(POLICY))? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

/// Busybox loads uncompressed modules; their names give the order.
fn unpack_module(module: &Path, number: usize, into: &Path) -> Result<()> {
    let name = module
        .file_name()
        .and_then(|name| name.to_str())
        .context("a module without a name")?;
    let (unpacker, name) = match name.rsplit_once(".ko") {
        Some((name, "")) => ("cat", name),
        Some((name, ".xz")) => ("xzcat", name),
        Some((name, ".zst")) => ("zstdcat", name),
        _ => bail!("{} is not a module", module.display()),
    };
    let to = fs::File::create(into.join(format!("{number:02}-{name}.ko")))?;
    let status = Command::new(unpacker).arg(module).stdout(to).status()?;
    ensure!(
        status.success(),
        "{unpacker} {}: {status}",
        module.display()
    );
    Ok(())
}

fn pack(root: &Path, image: &Path) -> Result<()> {
    let mut cpio = Command::new("cpio")
        .env("PATH", search_path())
        .args(["--create", "--format=newc", "--owner=+0:+0", "--quiet"])
        .current_dir(root)
        .stdin(Stdio::piped())
        .stdout(fs::File::create(image)?)
        .spawn()?;
    let mut names = cpio.stdin.take().context("cpio reads names")?;
    list(root, Path::new(""), &mut names)?;
    drop(names);
    let status = cpio.wait()?;
    ensure!(status.success(), "cpio: {status}");
    Ok(())
}

/// Names of everything below `root`, directories before what is in them.
fn list(root: &Path, directory: &Path, names: &mut impl io::Write) -> Result<()> {
    for entry in fs::read_dir(root.join(directory))? {
        let entry = entry?;
        let path = directory.join(entry.file_name());
        writeln!(names, "{}", path.display())?;
        if entry.file_type()?.is_dir() {
            list(root, &path, names)?;
        }
    }
    Ok(())
}

fn find(program: &str) -> Result<PathBuf> {
    std::env::split_paths(&search_path())
        .map(|directory| directory.join(program))
        .find(|file| file.is_file())
        .with_context(|| format!("there is no {program} here"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::library;

    #[test]
    fn libraries_are_read_from_ldd() {
        assert_eq!(library("\tlinux-vdso.so.1 (0x00007ffe)"), None);
        assert_eq!(
            library("\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)"),
            Some(Path::new("/lib/x86_64-linux-gnu/libc.so.6"))
        );
        assert_eq!(
            library("\t/lib64/ld-linux-x86-64.so.2 (0x00007f)"),
            Some(Path::new("/lib64/ld-linux-x86-64.so.2"))
        );
        assert_eq!(library("\tstatically linked"), None);
    }
}
