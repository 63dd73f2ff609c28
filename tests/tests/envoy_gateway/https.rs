//! Listeners with TLS from Secrets: names, protocols, and certificates that change.

use anyhow::Result;
use tests::daemon::demo_backend;
use tests::grpc::H2Client;
use tests::netns::Netns;
use tests::policies::limits;
use tests::scene::Scene;
use tests::tls::{Authority, TlsClient};

const ADDRESS: &str = "127.0.0.1:8443";
const GATEWAY: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: eg}
spec:
  gatewayClassName: limiterd
  listeners:
  - {name: a, protocol: HTTPS, port: 8443, hostname: a.test, tls: {mode: Terminate, certificateRefs: [{name: a}]}}
  - {name: b, protocol: HTTPS, port: 8443, hostname: b.test, tls: {certificateRefs: [{kind: Secret, name: b}]}}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: {name: demo}
spec:
  endpoints:
  - ip: {address: 127.0.0.1, port: 3000}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: both}
spec:
  parentRefs: [{name: eg}]
  rules: [{backendRefs: [{group: gateway.envoyproxy.io, kind: Backend, name: demo}]}]
";

fn get(client: &mut TlsClient, host: &str) -> Result<(u16, String)> {
    client.send(format!("GET /x HTTP/1.1\r\nhost: {host}\r\n\r\n"))?;
    let (status, _, body) = client.answer()?;
    Ok((status, body))
}

#[test]
fn names_have_their_certificates_and_keep_connections_when_these_change() -> Result<()> {
    let netns = Netns::new("https")?;
    let _backend = demo_backend(&netns)?;
    let (before, after) = (Authority::new()?, Authority::new()?);
    let policy = limits(
        "p",
        "kind: Gateway, name: eg, sectionName: b",
        "local: {rules: [{limit: {requests: 3, unit: Hour}}]}",
    );
    let files = [
        ("gateway.yaml", GATEWAY),
        ("a.yaml", &before.secret("a", "a.test")?),
        ("b.yaml", &before.secret("b", "b.test")?),
        ("policy.yaml", &policy),
    ];
    let scene = Scene::start(netns, &files)?;

    // Each name has its certificate, and its listener.
    let mut open = before.connect(&scene.netns, ADDRESS, "a.test")?;
    let (status, seen) = get(&mut open, "a.test")?;
    assert_eq!(status, 200);
    assert!(seen.contains("\nx-forwarded-proto: https\n"), "{seen}");
    assert!(seen.contains("\nhost: a.test\n"), "{seen}");
    let (status, said) = get(&mut open, "b.test")?;
    assert_eq!(
        (status, said.as_str()),
        (421, "this host is not served on this connection")
    );
    let mut other = before.connect(&scene.netns, ADDRESS, "b.test")?;
    assert_eq!(get(&mut other, "b.test")?.0, 200);
    assert!(before.connect(&scene.netns, ADDRESS, "c.test").is_err());
    assert!(after.connect(&scene.netns, ADDRESS, "a.test").is_err());

    // HTTP/2 by ALPN, with the limits of the listener.
    let config = before.client(&["h2", "http/1.1"])?;
    let mut h2 = H2Client::over_tls(&scene.netns, ADDRESS, "b.test", config)?;
    for (status, left) in [(200, "1"), (200, "0"), (429, "0")] {
        let told = h2.send("GET", "https://b.test/", &[], "")?;
        let seen = (told.status, told.header("x-ratelimit-remaining"));
        assert_eq!(seen, (status, left));
        assert_eq!(told.header("x-ratelimit-limit"), "3, 3;w=3600");
        assert_eq!(told.header("retry-after").is_empty(), status == 200);
    }
    assert_eq!(get(&mut open, "a.test")?.0, 200);

    // Another certificate: the connection goes on, and new ones see it.
    scene
        .policies
        .write("a.yaml", &after.secret("a", "a.test")?)?;
    scene.daemon.file_change(&scene.netns, |_| true)?;
    assert_eq!(get(&mut open, "a.test")?.0, 200);
    assert!(before.connect(&scene.netns, ADDRESS, "a.test").is_err());
    let mut new = after.connect(&scene.netns, ADDRESS, "a.test")?;
    assert_eq!(get(&mut new, "a.test")?.0, 200);

    // What is no certificate is not taken, and said; the last one goes on.
    let broken = after
        .secret("a", "a.test")?
        .replace("tls.crt: LS0t", "tls.crt: AAAA");
    scene.policies.write("a.yaml", &broken)?;
    scene.daemon.file_change(&scene.netns, |config| {
        let findings = config["last_load"]["findings"].as_array();
        findings.is_some_and(|found| !found.is_empty())
    })?;
    assert_eq!(get(&mut open, "a.test")?.0, 200);
    let mut new = after.connect(&scene.netns, ADDRESS, "a.test")?;
    assert_eq!(get(&mut new, "a.test")?.0, 200);
    assert_eq!(get(&mut other, "b.test")?.0, 429);
    Ok(())
}
