//! Interfaces on top of others: VLAN sub-interfaces and bonds. Not every kernel has them; the guests
//! of `cargo xtask vm-test` must.

use limiter_daemon::l4::Mode;
use limiter_daemon::policy::plan::{AttachMode, OnExit};

use crate::life::{attempts, config, interface, start, stop};
use crate::netns::{INTERFACE, Net};
use crate::support::PORT;

const VLAN: &str = "lim0.7";
const BOND: &str = "bond0";

/// Whether `made`; where there must be such interfaces, that they could not be made is a failure.
fn made(what: &str, made: Result<(), String>) -> bool {
    match made {
        Ok(()) => true,
        // Guests have this in their kernel's command line, which their init makes its environment of.
        Err(error) => {
            assert!(std::env::var_os("VM_EXPECT").is_none(), "{what}: {error}");
            println!("this kernel has no {what}: {error}");
            false
        }
    }
}

#[test]
fn below_a_vlan_interface_its_packets_are_judged_too() {
    let net = Net::new();
    if !made("VLAN interfaces", net.add_vlan()) {
        return;
    }
    let config = config(&net, vec![interface(INTERFACE, AttachMode::Auto)]);
    let kernel = start(&net, &config, &attempts(3)).unwrap();
    assert_eq!(kernel.attachments()[0].mode, Mode::Native);
    assert_eq!(net.attempts_seen(PORT, 1), 1);
    assert_eq!(net.attempts_seen_vlan(PORT, 4), 3, "another source");
    assert_eq!(net.attempts_seen(PORT, 3), 2);
    stop(&net, kernel, OnExit::Detach);
}

#[test]
fn a_vlan_interface_takes_generic_xdp_for_its_own_packets() {
    let net = Net::new();
    if !made("VLAN interfaces", net.add_vlan()) {
        return;
    }
    let config = config(&net, vec![interface(VLAN, AttachMode::Auto)]);
    let kernel = start(&net, &config, &attempts(2)).unwrap();
    assert_eq!(kernel.attachments()[0].mode, Mode::Generic);
    assert_eq!(net.attempts_seen_vlan(PORT, 3), 2);
    assert_eq!(net.attempts_seen(PORT, 4), 4, "untagged");
    stop(&net, kernel, OnExit::Detach);
    assert_eq!(net.attempts_seen_vlan(PORT, 2), 2);
}

#[test]
fn a_bond_takes_native_xdp_if_its_members_do() {
    let net = Net::new();
    if !made("bonds", net.add_bond(BOND)) {
        return;
    }
    let config = config(&net, vec![interface(BOND, AttachMode::Auto)]);
    for adopted in [false, true] {
        let kernel = start(&net, &config, &attempts(2)).unwrap();
        let attachment = &kernel.attachments()[0];
        assert_eq!(
            (attachment.mode, attachment.adopted),
            (Mode::Native, adopted)
        );
        let left = if adopted { 0 } else { 2 };
        assert_eq!(net.attempts_seen(PORT, 3), left);
        drop(kernel);
    }
    let kernel = start(&net, &config, &attempts(2)).unwrap();
    stop(&net, kernel, OnExit::Detach);
    assert!(!net.has_xdp(BOND) && !net.has_xdp(INTERFACE));
}

#[test]
fn a_member_of_a_bond_without_a_program_takes_one() {
    let net = Net::new();
    if !made("bonds", net.add_bond(BOND)) {
        return;
    }
    let config = config(&net, vec![interface(INTERFACE, AttachMode::Auto)]);
    let kernel = start(&net, &config, &attempts(2)).unwrap();
    assert_eq!(kernel.attachments()[0].mode, Mode::Native);
    assert_eq!(net.attempts_seen(PORT, 3), 2);
    stop(&net, kernel, OnExit::Detach);
}
