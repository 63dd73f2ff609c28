//! As many blocks as there may be.

use std::time::Duration;

use anyhow::{Context as _, Result};
use tests::daemon::eventually;
use tests::netns::Netns;
use tests::redis::Redis;

use crate::support::{CLIENT, Gateway, limiterd, told, until_nodes};

#[test]
fn a_full_table_is_taken_over_and_the_shortest_gives_way() -> Result<()> {
    let netns = Netns::new("redis")?;
    let redis = Redis::start(&netns)?;
    let blocks = "limiterd:{fleet}blocks";
    redis.fill_blocks(Duration::from_mins(10))?;
    let gateway = Gateway::start(&redis.url())?;
    until_nodes(gateway.netns(), 1)?;
    let in_force = || -> Result<[f64; 3]> {
        let daemon = gateway.daemon.as_ref().context("it runs")?;
        let page = daemon.metrics(gateway.netns())?;
        let fleet = page.sum("limiterd_fleet_blocks", &[("scope", "fleet")]);
        let gave_way = page.sum("limiterd_fleet_events_total", &[("event", "gave_way")]);
        Ok([fleet, page.sum("limiterd_xdp_sentences", &[]), gave_way])
    };
    assert_eq!(in_force()?, [65_536.0, 65_536.0, 0.0]);

    let (well, text) = limiterd(gateway.netns(), &["block", CLIENT, "--for", "1m"])?;
    assert!(
        !well && text.contains("65536 networks are blocked already"),
        "{text}"
    );
    told(gateway.netns(), &["block", CLIENT, "--for", "1h"])?;
    gateway.until_dropped()?;
    eventually("the first to have given way", || {
        Ok((in_force()?[2] == 2.0).then_some(()))
    })?;
    let (well, text) = limiterd(gateway.netns(), &["unblock", "100.64.0.0"])?;
    assert!(!well && text.contains("is not blocked"), "{text}");
    assert_eq!(redis.ask(&["HEXISTS", blocks, "100.64.0.0/32"])?, "0");
    assert_eq!(redis.ask(&["HLEN", blocks])?, "65536");
    assert_eq!(in_force()?[..2], [65_536.0, 65_536.0]);
    told(gateway.netns(), &["unblock", "100.64.0.1"])?;
    assert_eq!(redis.ask(&["HLEN", blocks])?, "65535");
    Ok(())
}
