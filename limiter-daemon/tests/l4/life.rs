//! Attaching, adopting, reloading and stopping, on veth pairs.

use std::fs;
use std::time::Duration;

use limiter_common::{ABI_VERSION, Reason};
use limiter_daemon::engine::fleet::{Origin, Sentence};
use limiter_daemon::l4::{Kernel, L4Error, Mode, clock};
use limiter_daemon::policy::plan::{
    AttachMode, DaemonConfig, Interface, NetworkPolicy, OnDaemonLost, OnExit,
};

use crate::hooks::tcx;
use crate::netns::{INTERFACE, Net};
use crate::support::{HOUR, PORT, limit, policy};

pub(crate) fn interface(name: &str, mode: AttachMode) -> Interface {
    Interface {
        name: name.to_owned(),
        mode,
    }
}

pub(crate) fn config(net: &Net, interfaces: Vec<Interface>) -> DaemonConfig {
    DaemonConfig {
        interfaces,
        pin_path: net.pins().to_owned(),
        ..DaemonConfig::default()
    }
}

pub(crate) fn on_veth(net: &Net) -> DaemonConfig {
    config(net, vec![interface(INTERFACE, AttachMode::Auto)])
}

/// Room for so many connection attempts, and none to come back while a test runs.
pub(crate) fn attempts(tokens: u64) -> Vec<NetworkPolicy> {
    vec![policy(Some(limit(tokens, 1, HOUR)), None)]
}

pub(crate) fn start(
    net: &Net,
    config: &DaemonConfig,
    policies: &[NetworkPolicy],
) -> Result<Kernel, L4Error> {
    net.at_gateway(|| Kernel::start(config, policies))
}

pub(crate) fn stop(net: &Net, mut kernel: Kernel, on_exit: OnExit) {
    net.at_gateway(|| kernel.stop(on_exit)).unwrap();
}

pub(crate) fn packets(kernel: &Kernel, wanted: Reason) -> u64 {
    let counters = kernel.counters().unwrap();
    counters
        .iter()
        .filter(|counter| counter.reason == wanted)
        .map(|counter| counter.packets)
        .sum()
}

#[test]
fn enforces_while_it_runs_and_leaves_nothing_behind() {
    let net = Net::new();
    let kernel = start(&net, &on_veth(&net), &attempts(3)).unwrap();
    let [attachment] = kernel.attachments() else {
        panic!("{:?}", kernel.attachments())
    };
    assert_eq!(attachment.interface, INTERFACE);
    assert_eq!((attachment.mode, attachment.adopted), (Mode::Native, false));

    assert_eq!(
        net.attempts_seen(PORT, 5),
        3,
        "what is over the limit is met with silence"
    );
    assert_eq!(net.attempts_seen_v6(PORT, 5), 3);
    assert_eq!(net.attempts_seen(PORT + 1, 5), 5, "a port without a policy");
    assert_eq!(packets(&kernel, Reason::OverConnections), 4);

    stop(&net, kernel, OnExit::Detach);
    assert!(!net.has_xdp(INTERFACE));
    assert!(!net.pins().exists());
    assert_eq!(net.attempts_seen(PORT, 2), 2);
}

#[test]
fn a_restart_adopts_what_a_killed_daemon_left() {
    let net = Net::new();
    let first = start(&net, &on_veth(&net), &attempts(3)).unwrap();
    assert_eq!(net.attempts_seen(PORT, 4), 3);
    // What SIGKILL comes to: every descriptor is closed, nothing is cleaned up.
    drop(first);
    assert!(net.has_xdp(INTERFACE));
    assert_eq!(
        net.attempts_seen(PORT, 1),
        0,
        "the last policy stays enforced"
    );

    let second = start(&net, &on_veth(&net), &attempts(3)).unwrap();
    assert!(second.attachments()[0].adopted);
    assert_eq!(net.attempts_seen(PORT, 1), 0, "no fresh bucket");
    assert_eq!(
        packets(&second, Reason::OverConnections),
        3,
        "counters go on"
    );
    stop(&net, second, OnExit::Detach);
    assert!(!net.has_xdp(INTERFACE));
}

#[test]
fn keep_leaves_the_policy_enforced() {
    let net = Net::new();
    let kernel = start(&net, &on_veth(&net), &attempts(1)).unwrap();
    stop(&net, kernel, OnExit::Keep);
    assert_eq!(net.attempts_seen(PORT, 2), 1);
    let no_interfaces = start(&net, &config(&net, Vec::new()), &[]).unwrap();
    assert!(no_interfaces.attachments().is_empty());
    assert!(
        !net.has_xdp(INTERFACE),
        "a start without interfaces removes it"
    );
    assert!(!net.pins().exists());
}

#[test]
fn a_reload_changes_limits_and_keeps_buckets() {
    let net = Net::new();
    let mut kernel = start(&net, &on_veth(&net), &attempts(2)).unwrap();
    assert_eq!(net.attempts_seen(PORT, 3), 2);
    kernel.apply(&attempts(3)).unwrap();
    assert_eq!(net.attempts_seen(PORT, 3), 1, "one token more, not three");
    kernel.apply(&[]).unwrap();
    assert_eq!(net.attempts_seen(PORT, 3), 3);
    kernel.apply(&attempts(3)).unwrap();
    assert_eq!(net.attempts_seen(PORT, 1), 0);
    stop(&net, kernel, OnExit::Detach);
}

#[test]
fn the_mode_is_what_was_asked_for() {
    let net = Net::new();
    for (mode, expected) in [
        (AttachMode::Generic, Mode::Generic),
        (AttachMode::Native, Mode::Native),
    ] {
        let config = config(&net, vec![interface(INTERFACE, mode)]);
        let kernel = start(&net, &config, &attempts(1)).unwrap();
        let attachment = &kernel.attachments()[0];
        assert_eq!((attachment.mode, attachment.adopted), (expected, false));
        stop(&net, kernel, OnExit::Keep);
    }
}

#[test]
fn native_or_not_at_all() {
    let net = Net::new();
    let native = config(&net, vec![interface("lo", AttachMode::Native)]);
    let error = start(&net, &native, &attempts(1)).unwrap_err();
    assert!(matches!(error, L4Error::NativeRefused { .. }), "{error}");
    let auto = config(&net, vec![interface("lo", AttachMode::Auto)]);
    let kernel = start(&net, &auto, &attempts(1)).unwrap();
    assert_eq!(kernel.attachments()[0].mode, Mode::Generic);
    stop(&net, kernel, OnExit::Detach);
}

#[test]
fn a_second_daemon_on_the_same_pin_path_is_refused() {
    let net = Net::new();
    let first = start(&net, &on_veth(&net), &attempts(1)).unwrap();
    let error = start(&net, &on_veth(&net), &attempts(1)).unwrap_err();
    assert!(matches!(error, L4Error::InUse { .. }), "{error}");
    assert_eq!(net.attempts_seen(PORT, 2), 1);
    stop(&net, first, OnExit::Detach);
    let second = start(&net, &on_veth(&net), &attempts(1)).unwrap();
    stop(&net, second, OnExit::Detach);
}

#[test]
fn a_missing_interface_is_named_and_nothing_is_attached() {
    let net = Net::new();
    let two = ["absent0", INTERFACE].map(|name| interface(name, AttachMode::Auto));
    let error = start(&net, &config(&net, two.to_vec()), &attempts(1)).unwrap_err();
    assert!(error.to_string().contains("absent0"), "{error}");
    assert!(!net.has_xdp(INTERFACE));
    assert!(!net.pins().exists());
}

#[test]
fn one_interface_that_fails_takes_the_others_along() {
    let net = Net::new();
    let two = vec![
        interface(INTERFACE, AttachMode::Auto),
        interface("lo", AttachMode::Native),
    ];
    let error = start(&net, &config(&net, two), &attempts(1)).unwrap_err();
    assert!(matches!(error, L4Error::NativeRefused { .. }), "{error}");
    assert!(!net.has_xdp(INTERFACE));
    assert!(!net.pins().exists());
}

#[test]
fn a_link_to_an_interface_that_was_made_anew_is_replaced() {
    let net = Net::new();
    drop(start(&net, &on_veth(&net), &attempts(2)).unwrap());
    assert_eq!(net.attempts_seen(PORT, 3), 2);
    net.part();
    net.join();
    let kernel = start(&net, &on_veth(&net), &attempts(2)).unwrap();
    assert!(!kernel.attachments()[0].adopted);
    assert!(net.has_xdp(INTERFACE));
    assert_eq!(net.attempts_seen(PORT, 1), 0, "the maps were adopted");
    stop(&net, kernel, OnExit::Detach);
}

#[test]
fn an_interface_that_is_not_configured_any_more_is_released() {
    let net = Net::new();
    net.add_interface("extra0");
    let two = [INTERFACE, "extra0"].map(|name| interface(name, AttachMode::Auto));
    drop(start(&net, &config(&net, two.to_vec()), &attempts(1)).unwrap());
    assert!(net.has_xdp("extra0"));
    let kernel = start(&net, &on_veth(&net), &attempts(1)).unwrap();
    assert!(kernel.attachments()[0].adopted);
    assert!(!net.has_xdp("extra0"));
    stop(&net, kernel, OnExit::Detach);
}

#[test]
fn a_table_of_another_size_is_made_anew() {
    let net = Net::new();
    drop(start(&net, &on_veth(&net), &attempts(1)).unwrap());
    assert_eq!(net.attempts_seen(PORT, 2), 1);
    let larger = DaemonConfig {
        max_sources: 1 << 10,
        ..on_veth(&net)
    };
    let kernel = start(&net, &larger, &attempts(1)).unwrap();
    assert!(kernel.attachments()[0].adopted);
    assert_eq!(
        packets(&kernel, Reason::OverConnections),
        1,
        "other maps are kept"
    );
    assert_eq!(net.attempts_seen(PORT, 2), 1);
    stop(&net, kernel, OnExit::Detach);
}

/// Another version's program lives on its own maps. Its links take ours, so that no packet goes by
/// unjudged; buckets are full again.
#[test]
fn what_another_version_left_is_taken_over() {
    let net = Net::new();
    for asked in [AttachMode::Native, AttachMode::Generic, AttachMode::Tcx] {
        let config = config(&net, vec![interface(INTERFACE, asked)]);
        if asked == AttachMode::Tcx && !tcx() {
            continue;
        }
        drop(start(&net, &config, &attempts(1)).unwrap());
        assert_eq!(net.attempts_seen(PORT, 2), 1);
        fs::rename(net.pins().join(version()), net.pins().join("v999")).unwrap();
        let kernel = start(&net, &config, &attempts(1)).unwrap();
        assert!(kernel.attachments()[0].adopted, "{asked:?}");
        assert!(!net.pins().join("v999").exists());
        assert_eq!(net.attempts_seen(PORT, 2), 1, "{asked:?}");
        stop(&net, kernel, OnExit::Detach);
        assert!(!net.has_xdp(INTERFACE) && !net.has_tcx(INTERFACE));
    }
}

/// The older is of an interface that is no more.
#[test]
fn of_two_other_versions_the_link_that_is_attached_is_taken_over() {
    let net = Net::new();
    let left_as = |name: &str| {
        drop(start(&net, &on_veth(&net), &attempts(1)).unwrap());
        fs::rename(net.pins().join(version()), net.pins().join(name)).unwrap();
    };
    left_as("aside");
    net.part();
    net.join();
    left_as("v999");
    fs::rename(net.pins().join("aside"), net.pins().join("v998")).unwrap();
    let kernel = start(&net, &on_veth(&net), &attempts(1)).unwrap();
    assert!(kernel.attachments()[0].adopted);
    assert_eq!(fs::read_dir(net.pins()).unwrap().count(), 1);
    stop(&net, kernel, OnExit::Detach);
}

fn version() -> String {
    format!("v{ABI_VERSION}")
}

#[test]
fn a_restart_adopts_sentences() {
    let net = Net::new();
    let mut first = start(&net, &on_veth(&net), &attempts(100)).unwrap();
    let client = "192.0.2.2/32".parse().unwrap();
    let until = clock::now() + 3_600_000_000_000;
    let by = |origin| Sentence {
        net: client,
        until,
        origin,
    };
    first.block(&by(Origin::Unsent)).unwrap();
    // Whose it is changes, when it ends does not.
    first.block(&by(Origin::Fleet)).unwrap();
    assert_eq!(net.attempts_seen(PORT, 1), 0);
    drop(first);
    let mut second = start(&net, &on_veth(&net), &attempts(100)).unwrap();
    let adopted = second.sentences()[0];
    assert_eq!((adopted.net, adopted.origin), (client, Origin::Fleet));
    assert!(until - adopted.until < 4, "{} {until}", adopted.until);
    assert_eq!(net.attempts_seen(PORT, 1), 0);
    assert_eq!(packets(&second, Reason::Sentenced), 2);
    assert!(second.unblock(client).unwrap());
    assert_eq!(net.attempts_seen(PORT, 1), 1);
    stop(&net, second, OnExit::Detach);
}

/// The second daemon does not know what the first one wrote, and must find it out.
#[test]
fn a_restart_leaves_no_list_of_before_in_force() {
    let net = Net::new();
    let listed = |allow: &[&str], deny: &[&str]| {
        let nets = |nets: &[&str]| nets.iter().map(|net| net.parse().unwrap()).collect();
        let mut policies = attempts(1);
        policies[0].allow = nets(allow);
        policies[0].deny = nets(deny);
        policies
    };
    let mut first = start(&net, &on_veth(&net), &listed(&[], &["192.0.2.2/32"])).unwrap();
    assert_eq!(net.attempts_seen(PORT, 1), 0);
    first.apply(&listed(&["192.0.2.2/32"], &[])).unwrap();
    assert_eq!(net.attempts_seen(PORT, 3), 3);
    drop(first);
    let mut second = start(&net, &on_veth(&net), &attempts(1)).unwrap();
    assert_eq!(net.attempts_seen(PORT, 2), 1);
    second.apply(&attempts(2)).unwrap();
    assert_eq!(net.attempts_seen(PORT, 2), 1);
    stop(&net, second, OnExit::Detach);
}

#[test]
fn a_daemon_that_is_gone_lets_everything_pass_if_that_is_wanted() {
    // Emulated machines take seconds for what is between a heartbeat and the packets.
    let after = Duration::from_secs(8);
    let net = Net::new();
    let config = DaemonConfig {
        on_daemon_lost: OnDaemonLost::Pass { after },
        ..on_veth(&net)
    };
    let mut kernel = start(&net, &config, &attempts(1)).unwrap();
    kernel.beat().unwrap();
    assert_eq!(net.attempts_seen(PORT, 2), 1);
    drop(kernel);
    std::thread::sleep(after);
    assert_eq!(net.attempts_seen(PORT, 2), 2);
    let mut kernel = start(&net, &config, &attempts(1)).unwrap();
    kernel.beat().unwrap();
    assert_eq!(net.attempts_seen(PORT, 1), 0);
    assert_eq!(packets(&kernel, Reason::DaemonLost), 2);
    stop(&net, kernel, OnExit::Detach);
}
