//! As many sentences as there may be.

use anyhow::Result;
use tests::daemon::eventually;
use tests::netns::Netns;
use tests::redis::Redis;

use crate::growth::guesses;
use crate::support::{CLEAR, Gateway, Setup};

const STATUSES: &str = "events: [{type: UpstreamStatus, statuses: [401]}], \
    threshold: {maxTokens: 2, tokensPerFill: 1, fillInterval: 1h}, growth: 1";

/// Fills the store's table with blocks of half an hour and more; the first of them ends first.
const FILL: &str = "
    local time = redis.call('TIME')
    local now = time[1] * 1000
    for number = 0, 65535 do
      local cidr = string.format('100.64.%d.%d/32', math.floor(number / 256), number % 256)
      local over = string.format('%.0f', now + 1800000 + number)
      local since = string.format('%.0f', now)
      redis.call('HSET', KEYS[1], cidr,
        '{\"since\":' .. since .. ',\"until\":' .. over .. ',\"by\":\"filler\"}')
      redis.call('ZADD', KEYS[2], over, cidr)
    end
    return redis.call('HLEN', KEYS[1])";

#[test]
fn the_shortest_sentence_gives_way_to_a_longer_one() -> Result<()> {
    let netns = Netns::new("redis")?;
    let redis = Redis::start(&netns)?;
    let blocks = "limiterd:{fleet}blocks";
    let filled = redis.ask(&["EVAL", FILL, "2", blocks, "limiterd:{fleet}ends"])?;
    assert_eq!(filled, "65536");
    let url = redis.url();
    let gateway = Gateway::start(&Setup {
        escalation: &format!("{STATUSES}, blockFor: 1m"),
        store: Some(&url),
        ..Setup::default()
    })?;
    let full =
        || Ok((gateway.metrics()?.sum("limiterd_xdp_sentences", &[]) == 65_536.0).then_some(()));
    eventually("the table to be taken over", full)?;
    let gave_way = || -> Result<f64> {
        Ok(gateway
            .metrics()?
            .sum("limiterd_fleet_events_total", &[("event", "gave_way")]))
    };

    // All others last longer: it is not sentenced, and comes up again with each offence.
    let (patient, peer) = (gateway.second(), gateway.first());
    guesses(&patient)?;
    gateway.until_logged(&["not sentenced", "65536 networks are blocked already"])?;
    patient.is_served()?;
    assert_eq!((gave_way()?, gateway.decided("failed")?), (1.0, 1.0));

    gateway.judge_by(&format!("{STATUSES}, blockFor: 1h"))?;
    guesses(&peer)?;
    gateway.until_logged(&["blocked", "net=10.77.1.2/32", "3 UpstreamStatus in "])?;
    eventually("it to be dropped", || {
        Ok(peer.is_dropped(CLEAR)?.then_some(()))
    })?;
    assert_eq!(gave_way()?, 2.0);
    assert_eq!(redis.ask(&["HEXISTS", blocks, "100.64.0.0/32"])?, "0");
    eventually("the store to be told", || {
        Ok((redis.ask(&["HEXISTS", blocks, "10.77.1.2/32"])? == "1").then_some(()))
    })?;
    assert_eq!(redis.ask(&["HLEN", blocks])?, "65536");
    patient.is_served()
}
