//! What a packet costs. `cargo test --release --test l4 -- --ignored --nocapture speed`

use std::time::Duration;

use limiter_daemon::l4::trial::{Program, Settings, Trial};

use crate::packet::*;
use crate::support::{PORT, limit, policy};

#[test]
#[ignore = "prints figures, asserts nothing"]
fn nanoseconds_a_packet() {
    let second = Duration::from_secs(1);
    let never = limit(1 << 40, 1_000_000_000, second);
    let (syn, ack) = (
        tcp_v4([192, 0, 2, 1], PORT, SYN),
        tcp_v4([192, 0, 2, 1], PORT, ACK),
    );
    let chain = [(HOP_BY_HOP, vec![0; 6]), (DESTINATION, vec![0; 6])];
    let chain = ethernet(&[], IPV6, &v6(1, 1, &chain, TCP, &tcp(PORT, SYN)));
    let connections = policy(Some(never), None);
    let packets = policy(None, Some(never));
    let both = policy(Some(never), Some(never));
    let over = policy(Some(limit(1, 1, second)), None);
    let rows = [
        (
            "no bucket (ACK under connections)",
            0,
            &connections,
            ack.clone(),
        ),
        (
            "untargeted",
            0,
            &connections,
            tcp_v4([192, 0, 2, 1], 1, SYN),
        ),
        ("one hot source, connections", 0, &connections, syn.clone()),
        ("one hot source, packets", 0, &packets, ack),
        ("one hot source, both", 0, &both, syn.clone()),
        ("one hot source, over the limit", 0, &over, syn.clone()),
        ("IPv6", 0, &connections, tcp_v6(1, 1, PORT, SYN)),
        ("IPv6, two extensions", 0, &connections, chain),
        (
            "64 Ki sources, table of 128 Ki",
            1 << 16,
            &connections,
            syn.clone(),
        ),
        ("random sources, table of 64 Ki", 1 << 31, &connections, syn),
    ];
    for (description, vary_sources, policy, packet) in rows {
        let max_sources = if vary_sources == 1 << 16 {
            1 << 17
        } else {
            1 << 16
        };
        let mut trial = Trial::new(Settings {
            max_sources,
            real_clock: true,
            vary_sources,
        })
        .unwrap();
        trial.apply(std::slice::from_ref(policy)).unwrap();
        let mut times: Vec<_> = (0..9)
            .map(|_| {
                let one = |program| {
                    trial
                        .run(program, &packet, 1_000_000)
                        .unwrap()
                        .nanos_per_packet
                };
                (one(Program::Limiter), one(Program::BareDrop))
            })
            .collect();
        times.sort_unstable();
        println!(
            "{description:40} {:4} ns, bare drop {} ns",
            times[4].0, times[4].1
        );
    }
}
