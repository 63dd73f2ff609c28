//! The pod of the overlay `rls-only`: an ordinary user without capabilities, asked by Envoys of other pods.

use anyhow::Result;
use limiter_daemon::rls::proto::Code;
use rustix::process::Signal;
use tests::http_client::gets;
use tests::pod::{Node, Pod};
use tests::redis::Redis;
use tests::rls::{ask, question};
use tests::topology::Topology;
use tests::user::thread_status;
use tests::volume::Volume;

use crate::support::{Seen, connect, overlay};

const POD: &str = "10.77.1.1";

#[test]
fn a_pod_of_the_rate_limit_service_answers_and_drains() -> Result<()> {
    let topology = Topology::new()?;
    // The pod, and the node that it is on.
    let (pod, node) = (&topology.gateway, &topology.first.netns);
    let nets = [pod, node];
    let redis = Redis::start(pod)?;
    let objects = overlay("rls-only")?;
    let mut volume = Volume::new(objects.files("policy")?)?;
    let hosts = "127.0.0.1 redis.redis.svc.cluster.local\n";
    let mut limiterd = Pod::start(&objects, pod, &Node::new()?, &volume, hosts)?;
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        limiterd.await_probe(probe, true, nets, POD)?;
    }
    for (thread, set) in thread_status(limiterd.process.id(), "CapPrm")? {
        assert_eq!(u64::from_str_radix(&set, 16)?, 0, "{thread}");
    }
    let (_, user) = thread_status(limiterd.process.id(), "Uid")?.remove(0);
    assert!(user.starts_with("65532\t"), "{user}");

    let asked = |user: &str, times: usize| -> Result<Vec<Code>> {
        let one = question("shop", &[&format!("user={user}")]);
        let answers = ask(node, &format!("{POD}:8081"), vec![one; times])?;
        answers
            .into_iter()
            .map(|answer| Ok(answer?.overall_code()))
            .collect()
    };
    assert_eq!(asked("mallory", 1)?, [Code::OverLimit]);
    assert!(asked("ann", 3)?.iter().all(|code| *code == Code::Ok));
    let keys = redis.ask(&["DBSIZE"])?;
    assert_ne!(keys.trim(), "0", "counted where all pods count");

    // By whatever name they ask.
    let named = [("host", "limiterd.limiterd.svc:9902")];
    let status = node.enter(|| gets(&format!("http://{POD}:9902/metrics"), &named, 1))?;
    assert_eq!(status[0].status, 200);
    assert_eq!(connect(node, POD, 9901)?, Seen::Refused);

    // mallory is let in again.
    volume.edit("shop.yaml", "requests_per_unit: 0", "requests_per_unit: 5")?;
    tests::daemon::eventually("the change", || {
        Ok((asked("mallory", 1)? == [Code::Ok]).then_some(()))
    })?;

    limiterd.process.signal(Signal::TERM)?;
    limiterd.await_probe("readinessProbe", false, nets, POD)?;
    limiterd.process.signal(Signal::TERM)?;
    assert!(limiterd.process.wait()?.success());
    Ok(())
}
