//! The pod of the overlay `edge`: starts, is probed, reloads as its volume changes, drains, and leaves its
//! limits in force for the pod after it.

use anyhow::{Context as _, Result};
use rustix::process::Signal;
use tests::daemon::{Process, eventually, limiterd};
use tests::http_client::get;
use tests::kubernetes::Objects;
use tests::netns::Netns;
use tests::pod::{Node, Pod};
use tests::storm::Storm;
use tests::topology::Topology;
use tests::user::thread_status;
use tests::volume::Volume;

use crate::support::{Seen, connect, overlay, with_component};

/// `CAP_NET_BIND_SERVICE`, `CAP_NET_ADMIN`, `CAP_PERFMON`, `CAP_BPF`.
const CAPABILITIES: u64 = 1 << 10 | 1 << 12 | 1 << 38 | 1 << 39;
/// Clients that come before, between and after.
const CLIENTS: usize = 300;
/// Of the node, where the first client is.
const NODE: &str = "10.77.1.1";
/// Another address of the node, and that of a client that is in no private network.
const PUBLIC: &str = "203.0.113.1";
const STRANGER: &str = "203.0.113.7";

/// The volume of policies, for a node whose interface towards clients is called `interface`.
fn volume(objects: &Objects, interface: &str) -> Result<Volume> {
    let mut volume = Volume::new(objects.files("policy")?)?;
    volume.edit("limiterd.yaml", "name: eth0", &format!("name: {interface}"))?;
    Ok(volume)
}

/// The quota that answers at port 80 tell of.
fn quota(client: &Netns) -> Result<String> {
    let answer = client.enter(|| get(&format!("http://{NODE}/")))?;
    Ok(answer.header("x-ratelimit-limit").to_owned())
}

#[test]
fn a_pod_of_the_edge_lives_and_hands_its_node_over() -> Result<()> {
    let topology = Topology::new()?;
    let (gateway, client) = (&topology.gateway, &topology.first.netns);
    let nets = [gateway, client];
    let shop = topology.second.v4;
    let listen = format!("{shop}:80");
    let _shop = Process::start(
        &topology.second.netns,
        &["demo-backend", "--listen", &listen],
    )?;
    let hosts = format!("{shop} shop.default.svc.cluster.local\n");
    let objects = overlay("edge")?;
    let node = Node::new()?;
    let mut volume = volume(&objects, &topology.first.gateway_interface)?;
    for (netns, interface, address) in [
        (gateway, topology.first.gateway_interface.as_str(), PUBLIC),
        (client, topology.first.interface.as_str(), STRANGER),
    ] {
        netns.ip(&["addr", "add", &format!("{address}/24"), "dev", interface])?;
    }

    let mut first = Pod::start(&objects, gateway, &node, &volume, &hosts)?;
    for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
        first.await_probe(probe, true, nets, NODE)?;
    }
    for (thread, set) in thread_status(first.process.id(), "CapPrm")? {
        let set = u64::from_str_radix(&set, 16)?;
        let wanted = if thread == "limiterd" {
            CAPABILITIES
        } else {
            set & CAPABILITIES
        };
        assert_eq!(set, wanted, "{thread}");
    }
    eventually("the shop", || {
        let answer = client.enter(|| get(&format!("http://{NODE}/")))?;
        Ok((answer.status == 200).then_some(()))
    })?;
    assert!(quota(client)?.starts_with("600, "), "{}", quota(client)?);

    // What others may ask, and what not.
    let status = |path: &str| -> Result<u16> {
        let answer = client.enter(|| get(&format!("http://{NODE}:9902{path}")))?;
        Ok(answer.status.as_u16())
    };
    assert_eq!(
        [status("/live")?, status("/ready")?, status("/metrics")?],
        [200; 3]
    );
    for path in [
        "/config",
        "/blocks",
        "/l4/offenders",
        "/runtime",
        "/metrics/",
        "/",
    ] {
        assert_eq!(status(path)?, 404, "{path}");
    }
    assert_eq!(connect(client, NODE, 9901)?, Seen::Refused);
    assert_eq!(connect(client, PUBLIC, 9902)?, Seen::Silence);
    assert_eq!(connect(client, PUBLIC, 80)?, Seen::Accepted);

    // As `kubectl exec` asks.
    for asked in ["status", "l4 top --once", "block 192.0.2.0/24 --for 10m"] {
        let asked: Vec<_> = asked.split(' ').collect();
        let output = gateway.enter(|| limiterd(&asked))?;
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{asked:?}: {said}");
    }

    // The ConfigMap changes: limits on requests, then those in the kernel; a file comes and goes.
    volume.edit("limits.yaml", "requests: 600", "requests: 60")?;
    eventually("the change", || {
        Ok(quota(client)?.starts_with("60, ").then_some(()))
    })?;
    let mut files = volume.files().clone();
    let limits = files.remove("limits.yaml").context("no limits")?;
    volume.write(files.clone())?;
    eventually("the removal", || {
        Ok(quota(client)?.is_empty().then_some(()))
    })?;
    files.insert("other.yaml".to_owned(), limits);
    volume.write(files)?;
    eventually("the new file", || {
        Ok(quota(client)?.starts_with("60, ").then_some(()))
    })?;
    let once_a_day = "maxTokens: 2, tokensPerFill: 1, fillInterval: 24h";
    volume.edit(
        "network.yaml",
        "maxTokens: 200, tokensPerFill: 50",
        once_a_day,
    )?;
    // What was used up of the bucket before lacks the new one for a moment: its last token comes late.
    eventually("the limit in the kernel", || {
        for _ in 0..4 {
            if connect(client, NODE, 80)? != Seen::Silence {
                return Ok(None);
            }
        }
        Ok(Some(()))
    })?;

    // The kubelet ends it, and kills it when the grace period is over; here it is told twice.
    first.process.signal(Signal::TERM)?;
    first.await_probe("readinessProbe", false, nets, NODE)?;
    assert!(
        first.probe("livenessProbe", gateway, client, NODE)?,
        "it drains"
    );
    first.process.signal(Signal::TERM)?;
    assert!(first.process.wait()?.success());
    assert_eq!(
        connect(client, NODE, 9902)?,
        Seen::Refused,
        "nobody listens"
    );
    assert_eq!(
        connect(client, NODE, 80)?,
        Seen::Silence,
        "the kernel goes on"
    );
    assert_eq!(connect(client, PUBLIC, 9902)?, Seen::Silence);
    drop(first);

    let second = Pod::start(&objects, gateway, &node, &volume, &hosts)?;
    second.await_probe("readinessProbe", true, nets, NODE)?;
    let output = second.process.output();
    assert!(output.contains("\"adopted\":true"), "{output}");
    assert_eq!(connect(client, NODE, 80)?, Seen::Silence, "a full bucket");
    assert_eq!(status("/ready")?, 200);
    Ok(())
}

#[test]
fn a_new_pod_takes_over_from_the_old_one_and_no_client_is_refused() -> Result<()> {
    let topology = Topology::new()?;
    let (gateway, client) = (&topology.gateway, &topology.first.netns);
    let nets = [gateway, client];
    let shop = topology.second.v4;
    let listen = format!("{shop}:80");
    let _shop = Process::start(
        &topology.second.netns,
        &["demo-backend", "--listen", &listen],
    )?;
    let hosts = format!("{shop} shop.default.svc.cluster.local\n");
    let objects = with_component("edge", "surge")?;
    let node = Node::new()?;
    let mut volume = volume(&objects, &topology.first.gateway_interface)?;
    volume.edit("limits.yaml", "requests: 600", "requests: 1000000")?;
    volume.edit("network.yaml", "maxTokens: 200", "maxTokens: 1000000")?;
    let start = || -> Result<Pod> {
        let pod = Pod::start(&objects, gateway, &node, &volume, &hosts)?;
        pod.await_output("\"ready\"")?;
        pod.await_probe("readinessProbe", true, nets, NODE)?;
        Ok(pod)
    };
    let mut old = start()?;
    eventually("the shop", || {
        let answer = client.enter(|| get(&format!("http://{NODE}/")))?;
        Ok((answer.status == 200).then_some(()))
    })?;
    let storm = Storm::during(client, format!("{NODE}:80").parse()?, |storm| {
        for _ in 0..2 {
            storm.pass(CLIENTS)?;
            let new = start()?;
            // It drains and stays, and its probes are answered by the new one.
            old.await_output("waiting to be told to stop")?;
            assert!(old.probe("livenessProbe", gateway, client, NODE)?);
            old.process.signal(Signal::TERM)?;
            assert!(old.process.wait()?.success());
            old = new;
        }
        storm.pass(CLIENTS)
    })?;
    storm.all_answered()?;
    assert_eq!(storm.refused(), 0);

    // The new one crashes while the old one waits, which then ends, for the kubelet to start it again.
    let new = start()?;
    old.await_output("waiting to be told to stop")?;
    new.process.signal(Signal::KILL)?;
    assert!(old.process.wait()?.success());
    let again = start()?;
    assert_eq!(connect(client, NODE, 80)?, Seen::Accepted);
    drop(again);
    Ok(())
}
