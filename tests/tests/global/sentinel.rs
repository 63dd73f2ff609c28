//! Sentinels, and how the store behind them is found.

use std::process::Command;

use anyhow::Result;
use tempfile::TempDir;
use tests::daemon::Process;
use tests::netns::Netns;
use tests::redis::{Redis, envoy_gateway};
use tests::tls::Authority;

use crate::support::{Node, PATIENT, ten, tls_arguments, tls_files};

/// A Sentinel.
pub(crate) struct Sentinel {
    _process: Process,
    _dir: TempDir,
}

impl Sentinel {
    /// With these lines of configuration, on 127.0.0.1.
    pub(crate) fn start(netns: &Netns, lines: &str) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let config = dir.path().join("sentinel.conf");
        let text = format!("bind 127.0.0.1\ndir {}\n{lines}", dir.path().display());
        std::fs::write(&config, text)?;
        let mut command = Command::new("redis-server");
        command.arg(config).arg("--sentinel");
        Ok(Self {
            _process: Process::spawn(netns, command)?,
            _dir: dir,
        })
    }
}

#[test]
fn by_name_and_with_tls_beside_one_that_is_gone() -> Result<()> {
    let netns = Netns::new("node")?;
    let authority = Authority::new()?;
    let dir = tempfile::tempdir()?;
    let tls = tls_files(&authority, dir.path())?;
    let more = tls_arguments(&tls);
    let mut arguments = vec!["--port", "0", "--tls-port", "7000"];
    arguments.extend(more.iter().map(String::as_str));
    let mut redis = Redis::absent(&arguments)?;
    redis.begin(&netns)?;
    let mut lines = "port 0\ntls-port 26379\ntls-replication yes\n".to_owned();
    for (name, value) in &tls {
        lines += &format!("{name} {value}\n");
    }
    // Certificates are about names.
    lines += "sentinel resolve-hostnames yes\nsentinel announce-hostnames yes\n\
              sentinel monitor shop localhost 7000 1\n";
    let _sentinel = Sentinel::start(&netns, &lines)?;
    let store = format!(
        "{}---\n\
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: EnvoyGateway
metadata: {{name: eg}}
rateLimit:
  backend:
    type: Redis
    redis:
      url: \"shop,localhost:26380,localhost:26379\"
      tls: {{certificateRef: {{name: ours}}}}
  {PATIENT}
",
        authority.secret_with_authority("ours", "client")?
    );
    let node = Node::inside(netns, &store, &ten())?;
    assert_eq!(node.burst("ten", 15)?, [10, 5, 0]);
    assert_eq!(redis.keys()?.len(), 1);
    Ok(())
}

#[test]
fn what_each_of_them_says_is_logged_when_none_leads_to_the_master() -> Result<()> {
    let netns = Netns::new("node")?;
    let mut master = Redis::absent(&["--port", "7000"])?;
    master.begin(&netns)?;
    let _other = Sentinel::start(
        &netns,
        "port 26379\nsentinel monitor other 127.0.0.1 7000 1\n",
    )?;
    let url = "shop,127.0.0.1:26379,nowhere.invalid:26379,127.0.0.1:7000";
    let store = envoy_gateway(url, "timeout: 20ms");
    let node = Node::inside(netns, &store, &ten())?;
    assert_eq!(node.burst("ten", 15)?, [10, 5, 0]);
    let output = node.scene.daemon.process.output();
    for said in [
        "no Sentinel leads to the master",
        "127.0.0.1:26379: it knows no master `shop`",
        "nowhere.invalid:26379: ",
        "127.0.0.1:7000: ",
    ] {
        assert!(output.contains(said), "{said}: {output}");
    }
    Ok(())
}
