//! As many blocks as there may be.

use anyhow::{Context as _, Result};
use tests::daemon::eventually;
use tests::netns::Netns;
use tests::redis::Redis;

use crate::support::{CLIENT, Gateway, limiterd, told, until_nodes};

/// Fills the store's table with blocks of ten minutes and more; the first of them ends first.
const FILL: &str = "
    local time = redis.call('TIME')
    local now = time[1] * 1000
    for number = 0, 65535 do
      local cidr = string.format('100.64.%d.%d/32', math.floor(number / 256), number % 256)
      local over = string.format('%.0f', now + 600000 + number)
      local since = string.format('%.0f', now)
      redis.call('HSET', KEYS[1], cidr,
        '{\"since\":' .. since .. ',\"until\":' .. over .. ',\"by\":\"filler\"}')
      redis.call('ZADD', KEYS[2], over, cidr)
    end
    return redis.call('HLEN', KEYS[1])";

#[test]
fn a_full_table_is_taken_over_and_the_shortest_gives_way() -> Result<()> {
    let netns = Netns::new("redis")?;
    let redis = Redis::start(&netns)?;
    let blocks = "limiterd:{fleet}blocks";
    let filled = redis.ask(&["EVAL", FILL, "2", blocks, "limiterd:{fleet}ends"])?;
    assert_eq!(filled, "65536");
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
