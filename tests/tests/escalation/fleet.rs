//! Sentences of nodes that share a store, and without the store.

use anyhow::Result;
use tests::daemon::eventually;
use tests::netns::Netns;
use tests::redis::Redis;

use crate::growth::{guesses, until_let_in};
use crate::support::{CLEAR, Gateway, Setup, field};

const STATUSES: &str = "events: [{type: UpstreamStatus, statuses: [401]}], \
    threshold: {maxTokens: 2, tokensPerFill: 1, fillInterval: 1h}";

#[test]
fn a_sentence_on_one_node_counts_on_the_others() -> Result<()> {
    let netns = Netns::new("redis")?;
    let redis = Redis::start(&netns)?;
    let url = redis.url();
    let setup = Setup {
        escalation: &format!("{STATUSES}, blockFor: 2s, growth: 100, maxBlock: 1h"),
        store: Some(&url),
        ..Setup::default()
    };
    let (here, there) = (Gateway::start(&setup)?, Gateway::start(&setup)?);
    guesses(&here.first())?;
    there.until_logged(&["blocked", "3 UpstreamStatus in ", "default/edge"])?;
    until_let_in(&there.first())?;
    guesses(&there.first())?;
    let told = there.until_blocked(there.first().address)?;
    assert!(
        field(&told, "why").ends_with(", 1 sentence before"),
        "{told}"
    );
    let told_here = here.until_blocked(here.first().address)?;
    assert_eq!(field(&told_here, "why"), field(&told, "why"));
    assert!(here.first().is_dropped(CLEAR)?);
    Ok(())
}

#[test]
fn without_the_store_a_sentence_is_the_nodes_until_it_is_back() -> Result<()> {
    let redis_netns = Netns::new("redis")?;
    let mut redis = Redis::start(&redis_netns)?;
    let url = redis.url();
    let setup = Setup {
        escalation: &format!("{STATUSES}, blockFor: 10m"),
        store: Some(&url),
        ..Setup::default()
    };
    let (here, there) = (Gateway::start(&setup)?, Gateway::start(&setup)?);
    redis.kill()?;
    let peer = here.first();
    guesses(&peer)?;
    let told = here.until_blocked(peer.address)?;
    assert_eq!(
        (field(&told, "scope"), told["told"].as_bool()),
        ("fleet", Some(false))
    );
    assert!(peer.is_dropped(CLEAR)?);
    // The other has not heard of it.
    there.first().is_served()?;

    redis.begin(&redis_netns)?;
    there.until_blocked(there.first().address)?;
    assert!(there.first().is_dropped(CLEAR)?);
    eventually("the store to be told", || {
        let told = here.until_blocked(peer.address)?;
        Ok((told["told"] == true).then_some(()))
    })
}

#[test]
fn a_sentence_of_a_node_is_nobody_elses() -> Result<()> {
    let netns = Netns::new("redis")?;
    let redis = Redis::start(&netns)?;
    let url = redis.url();
    let setup = Setup {
        escalation: &format!("{STATUSES}, blockFor: 10m, scope: Node"),
        store: Some(&url),
        ..Setup::default()
    };
    let (here, there) = (Gateway::start(&setup)?, Gateway::start(&setup)?);
    guesses(&here.first())?;
    let told = here.until_blocked(here.first().address)?;
    assert_eq!(field(&told, "scope"), "node");
    // What came after it has arrived, and it has not.
    let (well, text) = here.limiterd(&["block", "198.51.100.1", "--for", "10m"])?;
    assert!(well, "{text}");
    eventually("the block", || {
        Ok((there.all_blocked()?.len() == 1).then_some(()))
    })?;
    there.first().is_served()
}
