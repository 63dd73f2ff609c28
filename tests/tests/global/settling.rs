//! Refunds and costs of responses, in the store.

use anyhow::Result;
use tests::daemon::eventually;
use tests::netns::Netns;
use tests::policies::treated_host;
use tests::redis::Redis;

use crate::support::{Node, PATIENT};

#[test]
fn tokens_of_requests_that_fail_come_back() -> Result<()> {
    let netns = Netns::new("redis")?;
    let redis = Redis::start(&netns)?;
    // Nothing listens on that port.
    let policies = treated_host(
        "dead",
        &[9],
        "  rateLimit: {global: {rules: [{limit: {requests: 5, unit: Day}, \
         limiterd: {refundOn: [UpstreamFailure]}}]}}\n",
    );
    let node = Node::start(&redis.url(), PATIENT, &policies)?;
    for _ in 0..12 {
        assert_eq!(node.scene.get("dead", "/", &[])?.status, 503);
        // The refund is not waited for; a full bucket has no key.
        eventually("the refund", || Ok(redis.keys()?.is_empty().then_some(())))?;
    }
    let page = node.scene.metrics()?;
    assert_eq!(
        page.sum("limiterd_rate_limit_refunded_tokens_total", &[]),
        12.0
    );
    assert_eq!(page.sum("limiterd_store_adjustments_lost_total", &[]), 0.0);
    Ok(())
}

#[test]
fn responses_are_paid_for_by_later_requests() -> Result<()> {
    let netns = Netns::new("redis")?;
    let redis = Redis::start(&netns)?;
    let policies = treated_host(
        "paid",
        &[3000],
        "  rateLimit: {global: {rules: [{limit: {requests: 10, unit: Day}, \
         cost: {request: {from: Number, number: 0}, response: {from: Number, number: 4}}}]}}\n",
    );
    let node = Node::start(&redis.url(), PATIENT, &policies)?;
    let mut before = String::new();
    for _ in 0..3 {
        assert_eq!(node.scene.get("paid", "/", &[])?.status, 200);
        eventually("the payment", || {
            let Some(key) = redis.keys()?.pop() else {
                return Ok(None);
            };
            let state = redis.ask(&["GET", &key])?;
            Ok((state != before).then(|| before = state))
        })?;
    }
    // Ten tokens, three times four: in debt.
    assert_eq!(node.scene.get("paid", "/", &[])?.status, 429);
    Ok(())
}
