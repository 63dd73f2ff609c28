//! One client hammers a limited route over TLS; what becomes of it, and of others.

use anyhow::{Result, ensure};
use tests::capture::Capture;
use tests::daemon::eventually;
use tests::netns::Netns;
use tests::redis::Redis;

use crate::support::{CLEAR, Gateway, Peer, Setup, TLS, field, for_clients, request};

/// Requests that are let through, and offences that are tolerated.
const LIMIT: usize = 5;
const TOLERATED: usize = 20;
const ESCALATION: &str = "events: [{type: RateLimited}], \
    threshold: {maxTokens: 20, tokensPerFill: 1, fillInterval: 1h}, scope: Fleet";

/// Asks over and over on one connection until nothing comes back; the statuses of the answers.
fn hammer(peer: &Peer<'_>) -> Result<Vec<u16>> {
    let mut connection = peer.secure()?;
    let mut statuses = Vec::new();
    loop {
        let exchange = connection.send(request("limited.test", "/", ""));
        match exchange.and_then(|()| connection.answer()) {
            Ok((status, _, _)) => statuses.push(status),
            Err(_ended) => return Ok(statuses),
        }
        ensure!(statuses.len() < 100_000, "it is never sentenced");
    }
}

#[test]
fn who_hammers_is_dropped_on_every_node_and_nobody_else_is() -> Result<()> {
    let netns = Netns::new("redis")?;
    let redis = Redis::start(&netns)?;
    let url = redis.url();
    let proxied = "clientIPDetection: {xForwardedFor: {trustedCIDRs: [10.77.2.0/24]}}";
    let setup = Setup {
        escalation: &format!("{ESCALATION}, blockFor: 10m"),
        more: &["clear", "tls"]
            .map(|name| for_clients(name, &format!("  {proxied}")))
            .concat(),
        store: Some(&url),
        ..Setup::default()
    };
    let (here, there) = (Gateway::start(&setup)?, Gateway::start(&setup)?);
    let (abuser, neighbour) = (here.first(), here.neighbour(3)?);
    for peer in [abuser, neighbour, here.second(), there.first()] {
        peer.is_served()?;
    }
    let idle = abuser.tcp(CLEAR)?;
    let proxy_says = |client: &str| {
        let mut connection = here.second().secure()?;
        let headers = format!("x-forwarded-for: {client}\r\n");
        connection.send(request("limited.test", "/", &headers))?;
        Ok::<_, anyhow::Error>(connection.answer()?.0)
    };

    let statuses = hammer(&abuser)?;
    let denied = statuses.iter().filter(|status| **status == 429).count();
    assert_eq!(statuses[..LIMIT], [200; LIMIT]);
    assert_eq!(denied, statuses.len() - LIMIT, "{statuses:?}");
    let told = here.until_blocked(abuser.address)?;
    // The offence that is one too many may be answered or not, for the sentence may be quicker.
    assert!(denied >= TOLERATED, "{denied}: {told}");
    for (name, wanted) in [("scope", "fleet"), ("rule", "default/edge")] {
        assert_eq!(field(&told, name), wanted, "{told}");
    }
    let why = field(&told, "why");
    assert!(why.starts_with("21 RateLimited in "), "{told}");

    // Its connections are ended here, and nothing of it comes in: neither to old ones nor to new ones.
    eventually("its connections to be ended", || {
        let ended = here.metrics()?.sum(
            "limiterd_downstream_cx_closed_total",
            &[("reason", "blocked")],
        );
        Ok((ended >= 2.0).then_some(()))
    })?;
    drop(idle);
    let capture = Capture::start(&here.topology.first.netns, &here.topology.first.interface)?;
    let before = here.dropped()?;
    assert!(abuser.is_dropped(TLS)? && abuser.is_dropped(CLEAR)?);
    assert!(here.dropped()? > before);
    let seen = capture.stop()?;
    assert!(
        seen.accepted.is_empty() && seen.icmp_errors == 0,
        "{seen:?}"
    );

    // The other node has heard of it.
    let told_there = there.until_blocked(abuser.address)?;
    assert_eq!(field(&told_there, "why"), why);
    let before = there.dropped()?;
    assert!(there.first().is_dropped(TLS)?);
    assert!(there.dropped()? > before);

    // Those beside it are served, and those behind the proxy are told apart.
    neighbour.is_served()?;
    there.neighbour(3)?.is_served()?;
    for client in ["203.0.113.7", "203.0.113.8"] {
        let statuses: Vec<_> = (0..LIMIT + TOLERATED + 5)
            .map(|_| proxy_says(client))
            .collect::<Result<_>>()?;
        assert_eq!(statuses[..LIMIT], [200; LIMIT]);
        assert_eq!(statuses[LIMIT..], [429; TOLERATED + 5]);
    }
    assert_eq!(proxy_says("203.0.113.9")?, 200);
    assert_eq!(here.all_blocked()?.len(), 1);
    assert_eq!((here.decided("sentenced")?, here.counted()?), (1.0, 21.0));
    assert_eq!((there.decided("sentenced")?, there.counted()?), (0.0, 0.0));
    Ok(())
}

#[test]
fn its_time_ends_without_anybody() -> Result<()> {
    let netns = Netns::new("redis")?;
    let redis = Redis::start(&netns)?;
    let url = redis.url();
    let setup = Setup {
        escalation: &format!("{ESCALATION}, blockFor: 2s"),
        store: Some(&url),
        ..Setup::default()
    };
    let (here, there) = (Gateway::start(&setup)?, Gateway::start(&setup)?);
    let statuses = hammer(&here.first())?;
    assert!(statuses.len() >= LIMIT + TOLERATED, "{statuses:?}");
    for gateway in [&here, &there] {
        // It may be over before anybody looks.
        let event = |event| {
            let page = gateway.metrics()?;
            Ok(page.sum("limiterd_fleet_events_total", &[("event", event)]))
        };
        eventually("the sentence", || {
            Ok((event("blocked")? > 0.0).then_some(()))
        })?;
        let peer = gateway.first();
        eventually("its end", || Ok((!peer.is_dropped(CLEAR)?).then_some(())))?;
        peer.is_served()?;
        assert_eq!(gateway.blocked(peer.address)?, None);
        let lifted: Result<f64> = event("lifted");
        assert_eq!(lifted?, 0.0);
    }
    Ok(())
}
