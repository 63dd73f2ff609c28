//! With the capabilities that are needed, and with one of them missing: whatever this kernel makes of
//! them. Capabilities belong to threads, and so do the namespaces that the tests work in.

use limiter_daemon::engine::fleet::{Origin, Sentence};
use limiter_daemon::l4::L4Error;
use limiter_daemon::l4::privilege::{Capability, NEEDED};
use limiter_daemon::l4::{Kernel, Mode};
use limiter_daemon::policy::plan::OnExit;
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};

use crate::life::{attempts, on_veth, start, stop};
use crate::netns::Net;
use crate::support::PORT;

/// Leaves this thread these capabilities only.
fn keep<'a>(capabilities: impl Iterator<Item = &'a Capability>) {
    let permitted = capabilities
        .map(|capability| capability.set)
        .fold(CapabilitySet::empty(), CapabilitySet::union);
    let sets = CapabilitySets {
        effective: permitted,
        permitted,
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, sets).unwrap();
}

/// A pin path on a mounted bpffs: mounting takes more.
fn mounted() -> Net {
    let net = Net::new();
    let kernel = start(&net, &on_veth(&net), &attempts(1)).unwrap();
    stop(&net, kernel, OnExit::Detach);
    net
}

#[test]
fn three_capabilities_are_enough_for_the_whole_life() {
    let net = mounted();
    let config = on_veth(&net);
    for adopted in [false, true] {
        let mut kernel = net.at_gateway(|| {
            keep(NEEDED.iter());
            Kernel::start(&config, &attempts(2)).unwrap()
        });
        let attachment = &kernel.attachments()[0];
        assert_eq!(
            (attachment.mode, attachment.adopted),
            (Mode::Native, adopted)
        );
        let left = if adopted { 0 } else { 2 };
        assert_eq!(net.attempts_seen(PORT, 3), left);
        net.at_gateway(|| {
            keep(NEEDED.iter());
            kernel.beat().unwrap();
            kernel.apply(&attempts(2)).unwrap();
            kernel
                .block(&Sentence {
                    net: "192.0.2.9/32".parse().unwrap(),
                    until: u64::MAX,
                    origin: Origin::Node,
                })
                .unwrap();
            kernel.reattach().unwrap();
            kernel.counters().unwrap();
            kernel.occupancy().unwrap();
            let on_exit = if adopted {
                OnExit::Detach
            } else {
                OnExit::Keep
            };
            kernel.stop(on_exit).unwrap();
        });
    }
    assert!(!net.pins().exists());
}

#[test]
fn without_one_of_them_nothing_is_attached() {
    let net = mounted();
    for missing in NEEDED {
        let started = net.at_gateway(|| {
            keep(NEEDED.iter().filter(|one| **one != missing));
            Kernel::start(&on_veth(&net), &attempts(1))
        });
        match started.unwrap_err() {
            L4Error::Unprivileged(found) => assert_eq!(found.0, [missing]),
            other => panic!("{other}"),
        }
        assert!(!net.pins().exists());
    }
}
