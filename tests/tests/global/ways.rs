//! Ways to the store: TCP, users and passwords, TLS with certificates.

use anyhow::Result;
use tests::netns::Netns;
use tests::redis::{Redis, envoy_gateway};
use tests::tls::Authority;

use crate::support::{Node, ten, tls_arguments, tls_files};

#[test]
fn tcp_with_a_user_and_a_database() -> Result<()> {
    let netns = Netns::new("node")?;
    let acl = ["--user", "limiter", "on", ">s3cret", "~limiterd:*", "+@all"];
    let mut redis = Redis::absent(&acl)?.login(&["-n", "3"]);
    redis.begin(&netns)?;
    let secret = "\
apiVersion: v1
kind: Secret
metadata: {name: store}
stringData: {url: \"redis://limiter:s3cret@127.0.0.1:6379/3\"}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: EnvoyGateway
metadata: {name: eg}
rateLimit:
  backend: {type: Redis, redis: {urlRef: {secretKeyRef: {name: store, key: url}}}}
  timeout: 20s
";
    let node = Node::inside(netns, secret, &ten())?;
    assert_eq!(node.burst("ten", 15)?, [10, 5, 0]);
    assert_eq!(redis.keys()?.len(), 1);
    let output = node.scene.daemon.process.output();
    assert!(!output.contains("s3cret"), "{output}");
    let config = node.scene.daemon.config(&node.scene.netns)?.to_string();
    assert!(!config.contains("s3cret"), "{config}");
    Ok(())
}

#[test]
fn a_wrong_password_is_a_store_that_is_not_there() -> Result<()> {
    let netns = Netns::new("node")?;
    let mut redis =
        Redis::absent(&["--requirepass", "right"])?.login(&["-a", "right", "--no-auth-warning"]);
    redis.begin(&netns)?;
    let store = envoy_gateway("redis://:wrong@127.0.0.1:6379", "timeout: 20ms");
    let node = Node::inside(netns, &store, &ten())?;
    assert_eq!(node.burst("ten", 15)?, [10, 5, 0]);
    assert_eq!([node.asked("ok")?, node.unanswered()?], [0.0, 15.0]);
    let output = node.scene.daemon.process.output();
    assert!(output.contains("WRONGPASS"), "{output}");
    Ok(())
}

#[test]
fn tls_with_certificates_on_both_sides() -> Result<()> {
    let netns = Netns::new("node")?;
    let authority = Authority::new()?;
    let dir = tempfile::tempdir()?;
    let tls = tls_arguments(&tls_files(&authority, dir.path())?);
    let mut arguments = vec!["--port", "0", "--tls-port", "6379"];
    arguments.extend(["--tls-auth-clients", "yes"]);
    arguments.extend(tls.iter().map(String::as_str));
    let mut redis = Redis::absent(&arguments)?;
    redis.begin(&netns)?;
    let store = format!(
        "{}---\n\
apiVersion: limiterd.io/v1alpha1
kind: LimiterConfig
metadata: {{name: limiterd}}
spec:
  rateLimit:
    backend:
      type: Redis
      redis: {{url: \"localhost:6379\", tls: {{certificateRef: {{name: ours}}}}}}
    timeout: 20s
    keyPrefix: \"other:\"
",
        authority.secret_with_authority("ours", "client")?
    );
    let node = Node::inside(netns, &store, &ten())?;
    assert_eq!(node.burst("ten", 15)?, [10, 5, 0]);
    let keys = redis.keys()?;
    assert!(
        matches!(&*keys, [key] if key.starts_with("other:{")),
        "{keys:?}"
    );
    Ok(())
}
