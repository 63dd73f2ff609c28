//! As many sentences as there may be.

use std::time::Duration;

use anyhow::Result;
use tests::daemon::eventually;
use tests::netns::Netns;
use tests::redis::Redis;

use crate::growth::guesses;
use crate::support::{CLEAR, Gateway, Setup};

const STATUSES: &str = "events: [{type: UpstreamStatus, statuses: [401]}], \
    threshold: {maxTokens: 2, tokensPerFill: 1, fillInterval: 1h}, growth: 1";

#[test]
fn the_shortest_sentence_gives_way_to_a_longer_one() -> Result<()> {
    let netns = Netns::new("redis")?;
    let redis = Redis::start(&netns)?;
    let blocks = "limiterd:{fleet}blocks";
    redis.fill_blocks(Duration::from_mins(30))?;
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
