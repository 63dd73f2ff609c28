//! A short run of `cargo xtask fuzz`, always the same.

/// Reasons that a run has to come by, or it does not show much.
const MET: &[&str] = &[
    "not_ip",
    "unparsable",
    "fragment",
    "untargeted",
    "vital",
    "conforming",
    "over_connections",
    "over_packets",
];

#[test]
fn the_kernel_reads_frames_as_the_oracle_does() {
    let counts = tests::fuzz::run(100_000, 1, |_| {})
        .expect("the kernel takes the programs")
        .unwrap_or_else(|difference| panic!("{difference:?}"));
    for reason in MET {
        assert!(
            counts.keys().any(|(_, met)| met == reason),
            "no frame was {reason}: {counts:?}"
        );
    }
    assert_eq!(counts.values().sum::<u64>(), 100_000);
}
