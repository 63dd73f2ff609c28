//! As few privileges as can be: as another user than root, with the capabilities that are needed and
//! no more, and what is said where one is missing.

use std::fs;
use std::process::Command;

use anyhow::Result;
use rustix::process::Signal;
use tests::daemon::{Daemon, Policies, Process, binary, eventually};
use tests::http_client::get;
use tests::netns::Netns;
use tests::policies::{GATEWAY, config, network};
use tests::topology::{Pins, Topology};
use tests::user::{Bpffs, ID, User, open, thread_status};

const NEEDED: [&str; 3] = ["bpf", "net_admin", "perfmon"];
const TWO: &str = "  connections: {maxTokens: 2, tokensPerFill: 1, fillInterval: 1h}\n";
const THREE: &str = "  connections: {maxTokens: 3, tokensPerFill: 1, fillInterval: 1h}\n";

/// Bits of `CapEff` and its like (linux/capability.h).
const OF_KERNEL: u64 = 1 << 12 | 1 << 38 | 1 << 39;
const OF_RELOADS: u64 = 1 << 2 | 1 << 10;

fn policies(interfaces: &[&str], pins: &Pins, on_exit: &str) -> Result<Policies> {
    let policies = Policies::new(&[
        ("limiterd.yaml", &config(interfaces, pins, on_exit)),
        ("gateway.yaml", GATEWAY),
        ("network.yaml", &network("edge", TWO)),
    ])?;
    open(policies.path())?;
    Ok(policies)
}

/// Capabilities in a set of each thread, with the thread's name.
fn capabilities(daemon: &Daemon, set: &str) -> Result<Vec<(String, u64)>> {
    thread_status(daemon.process.id(), set)?
        .into_iter()
        .map(|(name, hex)| Ok((name, u64::from_str_radix(&hex, 16)?)))
        .collect()
}

/// The control thread has `control`, workers have nothing, and nobody has more than the control
/// thread or can get more.
fn assert_capabilities(daemon: &Daemon, control: u64) -> Result<()> {
    for set in ["CapEff", "CapPrm"] {
        let found = capabilities(daemon, set)?;
        let of = |wanted: &'static str| {
            found
                .iter()
                .filter(move |(name, _)| name.starts_with(wanted))
        };
        assert!(of("limiterd").next().is_some() && of("worker-").next().is_some());
        assert!(
            of("limiterd").all(|(_, set)| *set == control),
            "{set} {found:x?}"
        );
        assert!(of("worker-").all(|(_, set)| *set == 0), "{set} {found:x?}");
        assert!(
            found.iter().all(|(_, set)| set & !control == 0),
            "{set} {found:x?}"
        );
    }
    for set in ["CapInh", "CapAmb"] {
        let found = capabilities(daemon, set)?;
        assert!(found.iter().all(|(_, set)| *set == 0), "{set} {found:x?}");
    }
    let no_new = thread_status(daemon.process.id(), "NoNewPrivs")?;
    assert!(no_new.iter().all(|(_, value)| value == "1"), "{no_new:?}");
    Ok(())
}

#[test]
fn a_user_with_three_capabilities_lives_the_whole_life() -> Result<()> {
    let topology = Topology::new()?;
    let (gateway, client) = (&topology.gateway, &topology.first);
    let bpffs = Bpffs::mount()?;
    let pins = Pins::at(bpffs.path().join("limiterd"));
    let interface = client.gateway_interface.as_str();
    let policies = policies(&[interface], &pins, "Detach")?;
    let user = User::new(&NEEDED)?;

    let first = Daemon::start_by(gateway, policies.path(), user.limiterd())?;
    assert_capabilities(&first, OF_KERNEL)?;
    assert!(client.let_in(8080)? && client.let_in(8080)? && client.kept_out(8080)?);
    policies.write("network.yaml", &network("edge", THREE))?;
    assert!(
        first
            .reload(gateway)?
            .starts_with("ready\nxdp: gw1 native\n")
    );
    assert!(client.let_in(8080)? && client.kept_out(8080)?);
    first.kill()?;
    assert!(client.kept_out(8080)?, "the crash ended the limits");

    let second = Daemon::start_by(gateway, policies.path(), user.limiterd())?;
    assert!(second.process.output().contains("adopted=true"));
    assert!(
        client.kept_out(8080)?,
        "the restart handed out a full bucket"
    );

    // The interface comes back while it runs: what is left of the capabilities is enough.
    gateway.ip(&["link", "delete", interface])?;
    topology.first.join(gateway)?;
    eventually("the program to be on the new interface", || {
        let text = second.process.output();
        Ok((text.matches("program attached").count() == 2).then_some(()))
    })?;
    assert!(client.kept_out(8080)?, "a new interface gave a full bucket");
    let text = second.process.output();
    assert!(second.stop()?.success(), "{text}");
    assert!(!pins.exist(), "pins are left behind");
    Ok(())
}

#[test]
fn each_capability_that_is_missing_is_named() -> Result<()> {
    let netns = Netns::new("caps")?;
    let bpffs = Bpffs::mount()?;
    let pins = Pins::at(bpffs.path().join("limiterd"));
    let policies = policies(&["lo"], &pins, "Detach")?;
    for (missing, purpose) in [
        ("bpf", "(to make BPF maps and load programs)"),
        (
            "net_admin",
            "(to load programs for packets and attach them to interfaces)",
        ),
        (
            "perfmon",
            "(to have programs accepted that find their way through headers)",
        ),
    ] {
        let rest: Vec<_> = NEEDED.into_iter().filter(|one| *one != missing).collect();
        let user = User::new(&rest)?;
        let mut command = user.limiterd();
        command.args(["run", "--config"]).arg(policies.path());
        let mut process = Process::spawn(&netns, command)?;
        let code = process.wait()?.code();
        let text = process.output();
        assert_eq!(code, Some(1), "{text}");
        let name = format!("CAP_{}", missing.to_uppercase());
        for part in [
            &format!("limits in the kernel: no {name} {purpose}: run as root, or set"),
            "`AmbientCapabilities=CAP_BPF CAP_NET_ADMIN CAP_PERFMON`",
            "`setcap cap_bpf,cap_net_admin,cap_perfmon+ep`",
        ] {
            assert!(text.contains(part), "no {part:?} in\n{text}");
        }
        assert!(!pins.exist(), "something is pinned");

        let mut probe = user.limiterd();
        let output = netns.enter(|| Ok(probe.arg("probe").output()?))?;
        let text = String::from_utf8(output.stdout)?;
        assert_eq!(output.status.code(), Some(1), "{text}");
        let line = text
            .lines()
            .find(|line| line.starts_with("MISSING   capability"));
        assert!(line.is_some_and(|line| line.contains(&name)), "{text}");
    }
    Ok(())
}

#[test]
fn a_low_port_takes_a_capability_that_stays_for_reloads() -> Result<()> {
    let netns = Netns::new("port")?;
    let on = |port: u16| GATEWAY.replace("8080", &port.to_string());
    let policies = Policies::new(&[("gateway.yaml", &on(80))])?;
    open(policies.path())?;
    let none = User::new(&[])?;
    let mut command = none.limiterd();
    command.args(["run", "--config"]).arg(policies.path());
    let mut process = Process::spawn(&netns, command)?;
    let code = process.wait()?.code();
    let text = process.output();
    assert_eq!(code, Some(1), "{text}");
    assert!(
        text.contains("port 80 is privileged") && text.contains("no CAP_NET_BIND_SERVICE"),
        "{text}"
    );

    let user = User::new(&["net_bind_service"])?;
    let daemon = Daemon::start_by(&netns, policies.path(), user.limiterd())?;
    assert_capabilities(&daemon, 1 << 10)?;
    policies.write("gateway.yaml", &on(81))?;
    assert_eq!(daemon.reload(&netns)?, "ready\n");
    eventually("the listener to move", || {
        netns.enter(|| Ok(get("http://127.0.0.1:81/").ok().map(drop)))
    })?;
    assert!(daemon.stop()?.success());
    Ok(())
}

#[test]
fn of_root_little_is_left_and_without_interfaces_less() -> Result<()> {
    let topology = Topology::new()?;
    let gateway = &topology.gateway;
    let pins = topology.pins();
    let interface = topology.first.gateway_interface.as_str();
    for (interfaces, left) in [
        (&[interface][..], OF_KERNEL | OF_RELOADS),
        (&[], OF_RELOADS),
    ] {
        let policies = policies(interfaces, &pins, "Keep")?;
        let daemon = Daemon::start(gateway, policies.path())?;
        assert_capabilities(&daemon, left)?;
        let bounding = capabilities(&daemon, "CapBnd")?;
        assert!(bounding.iter().all(|(_, set)| *set == 0), "{bounding:x?}");
        assert!(daemon.stop()?.success());
    }
    assert!(
        !pins.exist(),
        "a start without interfaces removes what was kept"
    );
    Ok(())
}

#[test]
fn pins_of_another_user_are_taken_over_or_named() -> Result<()> {
    let topology = Topology::new()?;
    let (gateway, client) = (&topology.gateway, &topology.first);
    let bpffs = Bpffs::mount()?;
    let pins = Pins::at(bpffs.path().join("limiterd"));
    let policies = policies(&[&client.gateway_interface], &pins, "Keep")?;
    let user = User::new(&NEEDED)?;
    let by_user = Daemon::start_by(gateway, policies.path(), user.limiterd())?;
    assert!(client.let_in(8080)? && client.let_in(8080)? && client.kept_out(8080)?);
    assert!(by_user.stop()?.success());

    let by_root = Daemon::start(gateway, policies.path())?;
    assert!(by_root.process.output().contains("adopted=true"));
    assert!(client.kept_out(8080)?);
    assert!(by_root.stop()?.success());

    let mut command = user.limiterd();
    command.args(["run", "--config"]).arg(policies.path());
    let mut refused = Process::spawn(gateway, command)?;
    let code = refused.wait()?.code();
    let text = refused.output();
    assert_eq!(code, Some(1), "{text}");
    let root = pins.path();
    assert!(text.contains("belongs to user 0"), "{text}");
    assert!(text.contains(&format!("`chown -R {ID} {root}`")), "{text}");
    assert!(client.kept_out(8080)?, "the limits go on");

    // The remedy is one.
    let status = Command::new("chown")
        .args(["-R", &ID.to_string(), &root.to_string()])
        .status()?;
    assert!(status.success());
    let again = Daemon::start_by(gateway, policies.path(), user.limiterd())?;
    assert!(again.process.output().contains("adopted=true"));
    assert!(client.kept_out(8080)?);
    Ok(())
}

/// Runs `limiterd` where no bpffs is mounted: in a mount namespace of its own.
fn without_bpffs(limiterd: &Command) -> Command {
    let script = "while umount /sys/fs/bpf 2>/dev/null; do :; done; exec \"$@\"";
    let mut command = Command::new("unshare");
    command
        .args([
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            script,
            "sh",
        ])
        .arg(limiterd.get_program())
        .args(limiterd.get_args());
    command
}

#[test]
fn where_bpffs_is_not_mounted_root_mounts_it_and_others_are_told_how() -> Result<()> {
    let topology = Topology::new()?;
    let (gateway, client) = (&topology.gateway, &topology.first);
    let pins = topology.pins();
    let policies = policies(&[&client.gateway_interface], &pins, "Detach")?;
    let user = User::new(&NEEDED)?;
    let mut command = without_bpffs(&user.limiterd());
    command.args(["run", "--config"]).arg(policies.path());
    let mut refused = Process::spawn(gateway, command)?;
    let code = refused.wait()?.code();
    let text = refused.output();
    assert_eq!(code, Some(1), "{text}");
    for part in [
        "which is not mounted at /sys/fs/bpf",
        "needs CAP_SYS_ADMIN: as root, `mount -t bpf bpf /sys/fs/bpf`",
        &format!("`install -d -m 0700 -o {ID} {}`", pins.path()),
    ] {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }

    let root = without_bpffs(&Command::new(binary()));
    let daemon = Daemon::start_by(gateway, policies.path(), root)?;
    assert!(
        daemon
            .process
            .output()
            .contains("mounting the BPF file system")
    );
    assert!(client.let_in(8080)? && client.let_in(8080)? && client.kept_out(8080)?);
    daemon.process.signal(Signal::TERM)?;
    let mut process = daemon.process;
    assert!(process.wait()?.success(), "{}", process.output());
    Ok(())
}

#[test]
fn a_closed_directory_is_named_with_its_remedy() -> Result<()> {
    let netns = Netns::new("closed")?;
    let bpffs = Bpffs::mount()?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    fs::set_permissions(bpffs.path(), mode)?;
    let pins = Pins::at(bpffs.path().join("limiterd"));
    rustix::fs::chown(bpffs.path(), Some(rustix::fs::Uid::ROOT), None)?;
    let policies = policies(&["lo"], &pins, "Detach")?;
    let user = User::new(&NEEDED)?;
    let mut command = user.limiterd();
    command.args(["run", "--config"]).arg(policies.path());
    let mut process = Process::spawn(&netns, command)?;
    assert_eq!(process.wait()?.code(), Some(1));
    let text = process.output();
    let remedy = format!("`install -d -m 0700 -o {ID} {}`", pins.path());
    assert!(
        text.contains("permission denied") && text.contains(&remedy),
        "{text}"
    );
    Ok(())
}
