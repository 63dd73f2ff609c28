//! Where on an interface the program is: beside XDP programs of others, and on traffic control.

use aya::util::KernelVersion;
use limiter_common::Reason;
use limiter_daemon::l4::{Kernel, L4Error, Mode};
use limiter_daemon::policy::plan::{AttachMode, OnExit};

use crate::life::{attempts, config, interface, on_veth, packets, start, stop};
use crate::netns::{INTERFACE, Net};
use crate::support::PORT;

/// Whether this kernel has tcx; one that should and has not is a failure.
pub(crate) fn tcx() -> bool {
    KernelVersion::current().unwrap() >= KernelVersion::new(6, 6, 0)
}

/// Where the program goes that finds somebody else's on XDP.
fn behind_xdp() -> Mode {
    if tcx() { Mode::Tcx } else { Mode::Clsact }
}

fn mode(kernel: &Kernel) -> (Mode, bool) {
    let attachment = &kernel.attachments()[0];
    (attachment.mode, attachment.adopted)
}

#[test]
fn another_xdp_program_stays_and_ours_is_behind_it() {
    let (net, elsewhere) = (Net::new(), Net::new());
    let foreign = start(&net, &on_veth(&net), &attempts(100)).unwrap();
    let mut behind = on_veth(&net);
    behind.pin_path = elsewhere.pins().to_owned();
    let kernel = start(&net, &behind, &attempts(2)).unwrap();
    assert_eq!(mode(&kernel), (behind_xdp(), false));
    let whose = kernel.attachments()[0].behind.clone().unwrap();
    let name = whose.name.unwrap_or_default();
    assert!(name.starts_with("limiter_xdp"), "{name}");
    assert_eq!(net.attempts_seen(PORT, 3), 2, "ours");
    assert_eq!(packets(&kernel, Reason::OverConnections), 1);
    assert_eq!(packets(&foreign, Reason::Conforming), 3, "theirs saw all");

    // A daemon that dies, and the next one: nothing changes.
    drop(kernel);
    assert_eq!(net.attempts_seen(PORT, 1), 0);
    let kernel = start(&net, &behind, &attempts(2)).unwrap();
    assert_eq!(mode(&kernel), (behind_xdp(), true));
    assert_eq!(net.attempts_seen(PORT, 1), 0);

    // The others go: back to XDP, and off traffic control.
    stop(&net, foreign, OnExit::Detach);
    drop(kernel);
    let kernel = start(&net, &behind, &attempts(2)).unwrap();
    assert_eq!(mode(&kernel), (Mode::Native, false));
    assert!(!net.has_tcx(INTERFACE) && !net.has_filter(INTERFACE));
    stop(&net, kernel, OnExit::Detach);
    assert_eq!(net.attempts_seen(PORT, 2), 2);
}

#[test]
fn who_asks_for_xdp_is_told_whose_program_is_in_the_way() {
    let (net, elsewhere) = (Net::new(), Net::new());
    let foreign = start(&net, &on_veth(&net), &attempts(1)).unwrap();
    for asked in [AttachMode::Native, AttachMode::Generic] {
        let mut config = config(&net, vec![interface(INTERFACE, asked)]);
        config.pin_path = elsewhere.pins().to_owned();
        let error = start(&net, &config, &attempts(100)).unwrap_err();
        assert!(matches!(error, L4Error::Foreign { .. }), "{error}");
        assert!(error.to_string().contains("limiter_xdp"), "{error}");
        assert!(!elsewhere.pins().exists());
    }
    assert_eq!(net.attempts_seen(PORT, 2), 1, "the other program goes on");
    stop(&net, foreign, OnExit::Detach);
}

#[test]
fn traffic_control_enforces_is_adopted_and_leaves_nothing_behind() {
    for (asked, expected) in [
        (AttachMode::Tcx, Mode::Tcx),
        (AttachMode::Clsact, Mode::Clsact),
    ] {
        let net = Net::new();
        let config = config(&net, vec![interface(INTERFACE, asked)]);
        let started = start(&net, &config, &attempts(3));
        if asked == AttachMode::Tcx && !tcx() {
            let error = started.unwrap_err();
            assert!(matches!(error, L4Error::TcxRefused { .. }), "{error}");
            assert!(!net.pins().exists());
            continue;
        }
        let kernel = started.unwrap();
        assert_eq!(mode(&kernel), (expected, false));
        assert_eq!(net.attempts_seen(PORT, 4), 3, "{asked:?}");
        assert_eq!(net.attempts_seen_v6(PORT, 4), 3);
        assert_eq!(net.attempts_seen(PORT + 1, 2), 2);
        drop(kernel);
        assert_eq!(net.attempts_seen(PORT, 1), 0, "{asked:?} after a crash");
        let kernel = start(&net, &config, &attempts(3)).unwrap();
        assert_eq!(mode(&kernel), (expected, true));
        assert_eq!(net.attempts_seen(PORT, 1), 0);
        assert_eq!(packets(&kernel, Reason::OverConnections), 4);
        stop(&net, kernel, OnExit::Detach);
        assert_eq!(net.attempts_seen(PORT, 2), 2, "{asked:?} detached");
        assert!(!net.has_tcx(INTERFACE) && !net.has_filter(INTERFACE));
        assert!(!net.pins().exists());
    }
}

#[test]
fn a_change_of_mode_moves_the_program() {
    let net = Net::new();
    for (asked, expected) in [
        (AttachMode::Clsact, Mode::Clsact),
        (AttachMode::Native, Mode::Native),
        (AttachMode::Tcx, Mode::Tcx),
        (AttachMode::Auto, Mode::Native),
    ] {
        let (asked, expected) = match asked {
            AttachMode::Tcx if !tcx() => (AttachMode::Clsact, Mode::Clsact),
            _ => (asked, expected),
        };
        let config = config(&net, vec![interface(INTERFACE, asked)]);
        let kernel = start(&net, &config, &attempts(1)).unwrap();
        assert_eq!(mode(&kernel), (expected, false));
        assert_eq!(net.has_xdp(INTERFACE), expected == Mode::Native);
        assert_eq!(net.has_tcx(INTERFACE), expected == Mode::Tcx);
        assert_eq!(net.has_filter(INTERFACE), expected == Mode::Clsact);
        stop(&net, kernel, OnExit::Keep);
    }
    let none = start(&net, &config(&net, Vec::new()), &[]).unwrap();
    assert!(none.attachments().is_empty() && !net.has_xdp(INTERFACE));
}

#[test]
fn a_vlan_interface_has_a_dot_in_its_name() {
    let net = Net::new();
    net.add_interface("lim0.100");
    let config = config(&net, vec![interface("lim0.100", AttachMode::Auto)]);
    drop(start(&net, &config, &attempts(1)).unwrap());
    let kernel = start(&net, &config, &attempts(1)).unwrap();
    assert!(kernel.attachments()[0].adopted);
    stop(&net, kernel, OnExit::Detach);
    assert!(!net.has_xdp("lim0.100"));
}
