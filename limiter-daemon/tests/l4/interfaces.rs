//! Interfaces that go, come back, change their names and move elsewhere.

use limiter_common::Reason;
use limiter_daemon::l4::{Kernel, Mode};
use limiter_daemon::policy::plan::{AttachMode, NetworkPolicy, OnExit};

use crate::hooks::tcx;
use crate::life::{attempts, config, interface, on_veth, packets, start, stop};
use crate::netns::{INTERFACE, Net};
use crate::support::PORT;

fn look_after(net: &Net, kernel: &mut Kernel) {
    net.at_gateway(|| kernel.reattach()).unwrap();
}

fn mode(kernel: &Kernel) -> (Mode, bool) {
    let attachment = &kernel.attachments()[0];
    (attachment.mode, attachment.adopted)
}

fn attached(net: &Net, interface: &str) -> bool {
    net.has_xdp(interface) || net.has_tcx(interface) || net.has_filter(interface)
}

/// The ways to attach that this kernel has.
fn ways() -> impl Iterator<Item = AttachMode> {
    let all = [
        AttachMode::Auto,
        AttachMode::Generic,
        AttachMode::Tcx,
        AttachMode::Clsact,
    ];
    all.into_iter()
        .filter(|mode| *mode != AttachMode::Tcx || tcx())
}

#[test]
fn one_that_comes_back_is_attached_to_again() {
    for way in ways() {
        let net = Net::new();
        let config = config(&net, vec![interface(INTERFACE, way)]);
        let mut kernel = start(&net, &config, &attempts(2)).unwrap();
        let before = mode(&kernel);
        assert_eq!(net.attempts_seen(PORT, 3), 2);
        look_after(&net, &mut kernel);
        net.part();
        look_after(&net, &mut kernel);
        assert!(kernel.attachments().is_empty(), "{way:?}");
        net.join();
        look_after(&net, &mut kernel);
        assert_eq!(mode(&kernel), before);
        assert_eq!(net.attempts_seen(PORT, 1), 0, "{way:?}: with its buckets");
        assert_eq!(packets(&kernel, Reason::OverConnections), 2, "and counters");
        stop(&net, kernel, OnExit::Detach);
        assert!(!attached(&net, INTERFACE), "{way:?}");
    }
}

/// Between two looks of the daemon; nothing but the missing program tells.
#[test]
fn one_that_was_made_anew_under_its_old_index_is_noticed() {
    let net = Net::new();
    let mut kernel = start(&net, &on_veth(&net), &attempts(2)).unwrap();
    assert_eq!(net.attempts_seen(PORT, 3), 2);
    let index = kernel.attachments()[0].ifindex;
    net.part();
    net.join_as(index);
    assert!(!net.has_xdp(INTERFACE));
    look_after(&net, &mut kernel);
    assert_eq!(kernel.attachments()[0].ifindex, index);
    assert!(net.has_xdp(INTERFACE));
    assert_eq!(net.attempts_seen(PORT, 1), 0);
    stop(&net, kernel, OnExit::Detach);
}

#[test]
fn one_that_is_renamed_keeps_the_program_until_another_has_its_name() {
    for way in ways() {
        let net = Net::new();
        let config = config(&net, vec![interface(INTERFACE, way)]);
        let mut kernel = start(&net, &config, &attempts(3)).unwrap();
        assert_eq!(net.attempts_seen(PORT, 2), 2);
        let before = mode(&kernel);

        net.rename(INTERFACE, "wan0");
        look_after(&net, &mut kernel);
        assert_eq!(kernel.attachments()[0].renamed.as_deref(), Some("wan0"));
        assert!(attached(&net, "wan0"), "{way:?}");
        kernel.apply(&attempts(3)).unwrap();
        assert_eq!(
            net.attempts_seen(PORT, 2),
            1,
            "{way:?}: goes on, with its buckets"
        );

        net.rename("wan0", INTERFACE);
        look_after(&net, &mut kernel);
        assert_eq!(kernel.attachments()[0].renamed, None);
        assert_eq!(mode(&kernel), before);

        net.rename(INTERFACE, "wan0");
        net.add_interface(INTERFACE);
        look_after(&net, &mut kernel);
        let [attachment] = kernel.attachments() else {
            panic!("{:?}", kernel.attachments())
        };
        assert_eq!(attachment.renamed, None);
        assert!(
            attached(&net, INTERFACE),
            "{way:?}: the configured name counts"
        );
        assert!(!attached(&net, "wan0"), "{way:?}");
        stop(&net, kernel, OnExit::Detach);
        assert!(!attached(&net, INTERFACE) && !net.pins().exists());
    }
}

#[test]
fn one_that_is_renamed_is_released_with_the_others() {
    for way in ways() {
        let net = Net::new();
        let config = config(&net, vec![interface(INTERFACE, way)]);
        let mut kernel = start(&net, &config, &attempts(1)).unwrap();
        net.rename(INTERFACE, "wan0");
        look_after(&net, &mut kernel);
        stop(&net, kernel, OnExit::Detach);
        assert!(!attached(&net, "wan0") && !net.pins().exists(), "{way:?}");
    }
}

#[test]
fn two_that_exchange_their_names_exchange_their_programs() {
    let net = Net::new();
    net.add_interface("extra0");
    let two = [INTERFACE, "extra0"].map(|name| interface(name, AttachMode::Auto));
    let mut kernel = start(&net, &config(&net, two.to_vec()), &attempts(2)).unwrap();
    assert_eq!(net.attempts_seen(PORT, 3), 2);
    net.rename("extra0", "aside0");
    net.rename(INTERFACE, "extra0");
    net.rename("aside0", INTERFACE);
    look_after(&net, &mut kernel);
    let modes: Vec<_> = kernel.attachments().iter().map(|one| one.mode).collect();
    assert_eq!(modes, [Mode::Native; 2]);
    assert_eq!(net.attempts_seen(PORT, 1), 0, "the wire is on extra0 now");
    stop(&net, kernel, OnExit::Detach);
    assert!(!net.has_xdp(INTERFACE) && !net.has_xdp("extra0"));
}

#[test]
fn a_policy_on_an_interface_follows_it() {
    let net = Net::new();
    let on_interface = || -> Vec<NetworkPolicy> {
        let mut policies = attempts(4);
        policies[0].ports.clear();
        policies[0].interfaces = vec![INTERFACE.to_owned()];
        policies
    };
    let mut kernel = start(&net, &on_veth(&net), &on_interface()).unwrap();
    assert_eq!(net.attempts_seen(PORT, 2), 2);
    net.rename(INTERFACE, "wan0");
    look_after(&net, &mut kernel);
    assert_eq!(net.attempts_seen(PORT, 3), 2);
    net.at_gateway(|| kernel.apply(&on_interface())).unwrap();
    assert_eq!(net.attempts_seen(PORT, 1), 0, "after a reload");
    net.part_from("wan0");
    net.join();
    look_after(&net, &mut kernel);
    assert_eq!(net.attempts_seen(PORT, 1), 0, "on the next one of the name");
    stop(&net, kernel, OnExit::Detach);
}

#[test]
fn one_that_moves_to_another_namespace_is_released() {
    for way in [AttachMode::Auto, AttachMode::Clsact] {
        let (net, elsewhere) = (Net::new(), Net::new());
        net.add_interface("extra0");
        let two = vec![interface(INTERFACE, way), interface("extra0", way)];
        let mut kernel = start(&net, &config(&net, two), &attempts(2)).unwrap();
        assert_eq!(kernel.attachments().len(), 2);
        net.move_interface("extra0", &elsewhere);
        look_after(&net, &mut kernel);
        assert_eq!(kernel.attachments().len(), 1);
        assert!(!elsewhere.has_xdp("extra0"), "{way:?}");
        assert_eq!(net.attempts_seen(PORT, 3), 2, "the other goes on");
        stop(&net, kernel, OnExit::Detach);
        assert!(!net.pins().exists());
    }
}

#[test]
fn of_several_each_has_a_life_of_its_own() {
    let net = Net::new();
    let names = [INTERFACE, "extra0", "extra1"];
    net.add_interface("extra0");
    net.add_interface("extra1");
    let all = names.map(|name| interface(name, AttachMode::Auto)).to_vec();
    let mut kernel = start(&net, &config(&net, all), &attempts(2)).unwrap();
    assert!(names.iter().all(|name| net.has_xdp(name)));
    net.part_from("extra0");
    net.rename("extra1", "other1");
    look_after(&net, &mut kernel);
    assert_eq!(kernel.attachments().len(), 2);
    assert_eq!(net.attempts_seen(PORT, 3), 2);
    net.add_interface("extra0");
    look_after(&net, &mut kernel);
    assert_eq!(kernel.attachments().len(), 3);
    assert!(net.has_xdp("extra0") && net.has_xdp("other1"));
    stop(&net, kernel, OnExit::Detach);
    for name in [INTERFACE, "extra0", "other1"] {
        assert!(!net.has_xdp(name), "{name}");
    }
}

/// Somebody took the program off by hand (`bpftool link detach`).
#[test]
fn a_program_that_was_taken_off_is_put_back() {
    let net = Net::new();
    let mut kernel = start(&net, &on_veth(&net), &attempts(2)).unwrap();
    assert_eq!(net.attempts_seen(PORT, 3), 2);
    let link = net
        .pins()
        .join(format!("v{}", limiter_common::ABI_VERSION))
        .join("link-lim0");
    std::fs::remove_file(link).unwrap();
    while net.has_xdp(INTERFACE) {
        std::thread::yield_now();
    }
    look_after(&net, &mut kernel);
    assert!(net.has_xdp(INTERFACE));
    assert_eq!(net.attempts_seen(PORT, 1), 0);
    stop(&net, kernel, OnExit::Detach);
}
