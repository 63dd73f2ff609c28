//! A Debian with systemd and nginx in QEMU, on which a story is played: a script that tells the console
//! line by line what it saw (`VMCHECK ok ...`), and at its end `VMRESULT 0`.
//!
//! The disk is made by mmdebstrap, once a day, and copied for each run, with two versions of the
//! package on it. QEMU ends where the guest reboots (`VMREBOOT`); the second boot goes on. What the
//! guest writes to its console is the result.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use xshell::cmd;

use super::apt::{self, Apt};
use super::kernels::{Kernel, Kernels};
use super::{Line, Wanted, initramfs, qemu};
use crate::cmd::{Stopwatch, Workspace, search_path};
use crate::{dist, setup};

const LIBRARY: &str = include_str!("debian/lib.sh");
const INITRD: &str = include_str!("debian/initrd.sh");

/// What is played.
pub(super) struct Story<'a> {
    /// A word for files and messages.
    pub(super) name: &'a str,
    /// Run by systemd at each boot.
    pub(super) script: &'a str,
    /// Makes the guest's network, before services that need one.
    pub(super) network: &'a str,
    /// Files beside them, by their paths.
    pub(super) files: &'a [(String, String)],
    /// What the report says of the guest's words, besides checks.
    pub(super) figures: &'a str,
}

/// The oldest Debian that the package is for, and its kernel.
const SUITE: &str = "bookworm";
const KERNEL: Wanted = Wanted::Line(Line(6, 1));
const PACKAGES: &str =
    "systemd-sysv,dbus,udev,kmod,iproute2,netbase,curl,nginx-light,procps,libelf1,jq,wrk";
/// For the disk, and for what the guest works with.
const BOOT_MODULES: &[&str] = &["virtio_pci", "virtio_blk", "crc32c_generic", "ext4"];
/// On a busy host an emulated timer may miss what a kernel tries at its start, which then panics.
const COMMAND_LINE: &str = "console=ttyS0 panic=-1 quiet no_timer_check";
const DISK_SIZE: &str = "2G";
const MEMORY_MIB: &str = "1024";

/// Where the guest finds what is its own.
const PAYLOAD: &str = "opt/vm";

/// The unit that plays the story.
const STORY_UNIT: &str = "\
[Unit]
Description=What happens to this machine
After=multi-user.target nginx.service
[Service]
Type=oneshot
ExecStart=/opt/vm/story.sh
StandardOutput=file:/dev/ttyS0
StandardError=file:/dev/ttyS0
TimeoutStartSec=infinity
[Install]
WantedBy=graphical.target
";
const NET_UNIT: &str = "\
[Unit]
Description=A client beyond a veth
DefaultDependencies=no
After=systemd-modules-load.service systemd-udevd.service
Before=network-pre.target limiterd.service
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/opt/vm/net.sh
[Install]
WantedBy=multi-user.target
";

/// Plays `story` with packages of `limiterd`, or of one that is built for it.
pub(super) fn play(
    workspace: &Workspace,
    story: &Story<'_>,
    limiterd: Option<&Path>,
) -> Result<()> {
    setup::setup(workspace)?;
    setup::setup_vm(workspace)?;
    setup::setup_vm_system(workspace)?;
    let directory = super::directory(workspace);
    let own = directory.join("system");
    fs::create_dir_all(&own)?;
    let kernels = Kernels::open(workspace, Apt::open(workspace, &directory)?, &directory)?;
    let kernel = kernels.fetch(workspace, KERNEL)?;
    let packages = dist::packages_to_upgrade(workspace, limiterd)?;
    let base = base(workspace, &own)?;
    let disk = disk(workspace, story, &own, &base, &kernel, &packages)?;
    let initramfs = initramfs::minimal(workspace, &kernel, INITRD, BOOT_MODULES, &own)?;

    let clock = Stopwatch::start();
    let log = |boot: &str| own.join(format!("{}-{boot}.log", story.name));
    let mut said = boot(story, &kernel, &initramfs, &disk, &log("first"))?;
    if said.contains("VMREBOOT") {
        said += &boot(story, &kernel, &initramfs, &disk, &log("second"))?;
    }
    report(story, &said)?;
    println!("{}: {:.0?} in the guest", story.name, clock.elapsed());
    Ok(())
}

/// A Debian with systemd and nginx, packed; made anew after a day.
fn base(workspace: &Workspace, own: &Path) -> Result<PathBuf> {
    let base = own.join("base.tar");
    // Of other packages it is another one.
    let list = own.join("base.packages");
    let is_same = fs::read_to_string(&list).is_ok_and(|packages| packages == PACKAGES);
    if is_same && apt::is_fresh(&base) {
        return Ok(base);
    }
    println!("vm-test: making a {SUITE}");
    let mirrors = apt::mirrors(workspace)?;
    let partial = own.join("partial.tar");
    let main = format!("deb {} {SUITE} main", mirrors.main);
    let security = format!("deb {} {SUITE}-security main", mirrors.security);
    cmd!(
        workspace.sh,
        "mmdebstrap --mode=root --variant=minbase --include={PACKAGES} {SUITE} {partial} {main} {security}"
    )
    .run()?;
    fs::rename(partial, &base)?;
    fs::write(list, PACKAGES)?;
    Ok(base)
}

/// The disk, with everything on it that the story needs.
fn disk(
    workspace: &Workspace,
    story: &Story<'_>,
    own: &Path,
    base: &Path,
    kernel: &Kernel,
    packages: &[(String, PathBuf); 2],
) -> Result<PathBuf> {
    let sh = &workspace.sh;
    let root = own.join("root");
    if root.exists() {
        fs::remove_dir_all(&root)?;
    }
    fs::create_dir_all(&root)?;
    cmd!(
        sh,
        "tar --extract --file {base} --directory {root} --exclude ./dev/*"
    )
    .run()?;
    let payload = root.join(PAYLOAD);
    fs::create_dir_all(&payload)?;
    for (path, text) in story.files {
        let file = payload.join(path);
        fs::create_dir_all(file.parent().unwrap_or(&payload))?;
        fs::write(file, text)?;
    }
    for (name, text) in [
        ("lib.sh", LIBRARY),
        ("story.sh", story.script),
        ("net.sh", story.network),
    ] {
        fs::write(payload.join(name), text)?;
        fs::set_permissions(payload.join(name), fs::Permissions::from_mode(0o755))?;
    }
    for (role, (version, file)) in ["old", "new"].iter().zip(packages) {
        fs::copy(file, payload.join(format!("{role}.deb")))?;
        fs::write(payload.join(format!("{role}.version")), version)?;
    }
    let units = root.join("etc/systemd/system");
    for (name, text, target) in [
        ("vm-story.service", STORY_UNIT, "graphical.target.wants"),
        ("vm-net.service", NET_UNIT, "multi-user.target.wants"),
    ] {
        fs::write(units.join(name), text)?;
        fs::create_dir_all(units.join(target))?;
        std::os::unix::fs::symlink(format!("../{name}"), units.join(target).join(name))?;
    }
    // It would hang up the console.
    std::os::unix::fs::symlink("/dev/null", units.join("serial-getty@ttyS0.service"))?;
    let modules = root.join("usr/lib/modules");
    fs::create_dir_all(&modules)?;
    let from = kernel.modules_directory()?;
    cmd!(sh, "cp --archive {from} {modules}").run()?;

    let disk = own.join("disk.ext4");
    if disk.exists() {
        fs::remove_file(&disk)?;
    }
    cmd!(sh, "mkfs.ext4 -q -F -d {root} {disk} {DISK_SIZE}").run()?;
    fs::remove_dir_all(&root)?;
    Ok(disk)
}

/// Boots the disk until the machine ends; what it wrote.
fn boot(
    story: &Story<'_>,
    kernel: &Kernel,
    initramfs: &Path,
    disk: &Path,
    log: &Path,
) -> Result<String> {
    let clock = Stopwatch::start();
    println!("{}: booting {}", story.name, kernel.name);
    let drive = format!("file={},format=raw,if=virtio", disk.display());
    let mut machine = Command::new("qemu-system-x86_64")
        .env("PATH", search_path())
        .args(["-M", "q35", "-accel", qemu::ACCELERATOR, "-cpu", "max"])
        .args(["-smp", "2", "-m", MEMORY_MIB])
        .args(["-nodefaults", "-no-user-config"])
        .args(["-display", "none", "-no-reboot", "-monitor", "none"])
        .args(["-serial", "stdio", "-drive", &drive])
        .arg("-kernel")
        .arg(kernel.image()?)
        .arg("-initrd")
        .arg(initramfs)
        .args(["-append", COMMAND_LINE])
        .stdin(Stdio::null())
        .stdout(fs::File::create(log)?)
        .spawn()
        .context("qemu-system-x86_64")?;
    let end = qemu::wait(&mut machine, log, clock)?;
    let text = String::from_utf8_lossy(&fs::read(log)?).replace('\r', "");
    println!("{}: ended after {:.0?}", story.name, clock.elapsed());
    match end {
        Ok(status) if status.success() => Ok(text),
        Ok(status) => bail!("QEMU: {status}; {}", qemu::last_words(&text)),
        Err(end) => bail!("{end:?}; {}", qemu::last_words(&text)),
    }
}

/// Passed only if the guest came to its end, and said nothing of a failure.
fn report(story: &Story<'_>, log: &str) -> Result<()> {
    let begins = |line: &&str| line.starts_with("VMCHECK ") || line.starts_with(story.figures);
    for line in log.lines().filter(begins) {
        println!("{line}");
    }
    let count = |start: &str| log.lines().filter(|line| line.starts_with(start)).count();
    let (passed, failed) = (count("VMCHECK ok"), count("VMCHECK FAILED"));
    let came_to_its_end = log.lines().any(|line| line == "VMRESULT 0");
    if failed > 0 || !came_to_its_end {
        println!("{log}");
    }
    ensure!(failed == 0, "{failed} checks failed, {passed} passed");
    ensure!(
        came_to_its_end,
        "the machine did not come to its end; {passed} checks passed"
    );
    println!("{}: {passed} checks passed", story.name);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Story, report};

    #[test]
    fn only_a_story_that_came_to_its_end_well_passes() {
        let story = Story {
            name: "tale",
            script: "",
            network: "",
            files: &[],
            figures: "VMLOAD ",
        };
        let report = |log| report(&story, log);
        let well = "VMCHECK ok install\nVMREBOOT\nVMCHECK ok purge\nVMRESULT 0\n";
        assert!(report(well).is_ok());
        assert!(report("VMCHECK ok install\nVMREBOOT\n").is_err());
        assert!(report("VMCHECK FAILED install\nVMRESULT 0\n").is_err());
        assert!(report("VMCHECK ok install\nVMRESULT 1\n").is_err());
    }
}
