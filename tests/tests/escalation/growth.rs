//! How long sentences last, who lifts them, and what outlives the daemon.

use anyhow::Result;
use tests::daemon::eventually;
use tests::netns::Netns;
use tests::redis::Redis;

use crate::support::{CLEAR, Gateway, Peer, Setup, field};

const STATUSES: &str = "events: [{type: UpstreamStatus, statuses: [401]}], \
    threshold: {maxTokens: 2, tokensPerFill: 1, fillInterval: 1h}";
const TOO_MANY: usize = 3;

/// Is refused by the upstream once too often; the last answer may be cut off.
pub(crate) fn guesses(peer: &Peer<'_>) -> Result<()> {
    let statuses = peer.statuses("open.test", "/status/401", TOO_MANY - 1)?;
    assert_eq!(statuses, [401; TOO_MANY - 1]);
    let _perhaps_cut_off = peer.get("open.test", "/status/401");
    Ok(())
}

pub(crate) fn until_let_in(peer: &Peer<'_>) -> Result<()> {
    eventually("the end of a sentence", || {
        Ok((!peer.is_dropped(CLEAR)?).then_some(()))
    })
}

#[test]
fn the_next_sentence_is_longer() -> Result<()> {
    let gateway = Gateway::start(&Setup {
        escalation: &format!("{STATUSES}, blockFor: 2s, growth: 100, maxBlock: 100s"),
        ..Setup::default()
    })?;
    let peer = gateway.first();
    guesses(&peer)?;
    gateway.until_logged(&["blocked", "3 UpstreamStatus in "])?;
    until_let_in(&peer)?;
    guesses(&peer)?;
    let told = gateway.until_blocked(peer.address)?;
    assert!(
        field(&told, "why").ends_with(", 1 sentence before"),
        "{told}"
    );
    // 200 s, were it not for `maxBlock`.
    let left = told["seconds_left"].as_u64().unwrap_or_default();
    assert!((3..=100).contains(&left), "{told}");
    assert!(peer.is_dropped(CLEAR)?);
    Ok(())
}

#[test]
fn who_is_unblocked_is_pardoned_on_all_nodes() -> Result<()> {
    let netns = Netns::new("redis")?;
    let redis = Redis::start(&netns)?;
    let url = redis.url();
    let setup = Setup {
        escalation: &format!("{STATUSES}, blockFor: 10m"),
        store: Some(&url),
        ..Setup::default()
    };
    let (here, there) = (Gateway::start(&setup)?, Gateway::start(&setup)?);
    for _ in 0..2 {
        guesses(&here.first())?;
        let told = here.until_blocked(here.first().address)?;
        there.until_blocked(there.first().address)?;
        // All that came before is forgotten.
        let why = field(&told, "why");
        assert!(
            why.starts_with("3 UpstreamStatus in ") && !why.contains("before"),
            "{told}"
        );
        let (well, text) = there.limiterd(&["unblock", "10.77.1.2"])?;
        assert!(well, "{text}");
        for gateway in [&here, &there] {
            let address = gateway.first().address;
            eventually("it to be unblocked", || {
                Ok(gateway.blocked(address)?.is_none().then_some(()))
            })?;
            gateway.first().is_served()?;
        }
    }
    guesses(&there.first())?;
    let told = there.until_blocked(there.first().address)?;
    assert!(!field(&told, "why").contains("before"), "{told}");
    Ok(())
}

#[test]
fn in_shadow_mode_nobody_is_sentenced() -> Result<()> {
    let gateway = Gateway::start(&Setup {
        escalation: &format!("{STATUSES}, blockFor: 10m, shadow: true"),
        ..Setup::default()
    })?;
    let peer = gateway.first();
    guesses(&peer)?;
    let net = format!("net={}/32", peer.address);
    gateway.until_logged(&["would be sentenced", &net, "3 UpstreamStatus in "])?;
    let statuses = peer.statuses("open.test", "/status/401", 10)?;
    assert_eq!(statuses, [401; 10]);
    peer.is_served()?;
    assert_eq!(gateway.all_blocked()?.len(), 0);
    assert_eq!(gateway.dropped()?, 0.0);
    // The ten came while its sentence would be served.
    assert_eq!((gateway.decided("shadow")?, gateway.counted()?), (1.0, 3.0));
    Ok(())
}

#[test]
fn sentences_outlive_the_daemon() -> Result<()> {
    let mut gateway = Gateway::start(&Setup {
        escalation: &format!("{STATUSES}, blockFor: 10m, scope: Node"),
        ..Setup::default()
    })?;
    guesses(&gateway.first())?;
    gateway.until_blocked(gateway.first().address)?;
    gateway.take()?.kill()?;
    // The kernel needs nobody for it.
    assert!(gateway.first().is_dropped(CLEAR)?);
    gateway.run()?;
    assert!(gateway.first().is_dropped(CLEAR)?);
    let told = gateway.until_blocked(gateway.first().address)?;
    assert_eq!(field(&told, "scope"), "node");
    let stopped = gateway.take()?.stop()?;
    assert!(stopped.success());
    gateway.run()?;
    assert!(gateway.first().is_dropped(CLEAR)?);
    let (well, text) = gateway.limiterd(&["unblock", "10.77.1.2"])?;
    assert!(well, "{text}");
    gateway.first().is_served()
}
