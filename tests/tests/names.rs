//! A backend by name: its addresses are endpoints, and requests follow them when they change.

use std::net::{Ipv4Addr, UdpSocket};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context as _, Result, ensure};
use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::rdata::A;
use hickory_resolver::proto::rr::{RData, Record, RecordType};
use tempfile::NamedTempFile;
use tests::daemon::{Daemon, Policies, binary, eventually};
use tests::http_client::get;
use tests::netns::Netns;
use tests::upstream::Upstream;

const POLICY: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: eg}
spec:
  gatewayClassName: limiterd
  addresses: [{type: IPAddress, value: 127.0.0.1}]
  listeners: [{name: http, protocol: HTTP, port: 8080}]
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: {name: named}
spec: {endpoints: [{fqdn: {hostname: app.example, port: 3000}}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: named}
spec:
  parentRefs: [{name: eg}]
  rules: [{backendRefs: [{group: gateway.envoyproxy.io, kind: Backend, name: named}]}]
";

/// A name server with addresses of one name, each good for a second.
#[derive(Clone, Default)]
struct Zone(Arc<Mutex<Vec<Ipv4Addr>>>);

impl Zone {
    /// Serves on port 53 of loopback in `netns`, until the process ends.
    fn serve(netns: &Netns) -> Result<Self> {
        let zone = Self::default();
        let socket = netns.enter(|| Ok(UdpSocket::bind("127.0.0.1:53")?))?;
        let known = zone.clone();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                if let Ok(answer) = known.answer(&buffer[..length]) {
                    let _lost = socket.send_to(&answer, from);
                }
            }
        });
        Ok(zone)
    }

    fn set(&self, addresses: &[[u8; 4]]) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *known = addresses.iter().copied().map(Ipv4Addr::from).collect();
    }

    fn answer(&self, request: &[u8]) -> Result<Vec<u8>> {
        let request = Message::from_vec(request)?;
        let query = request.queries.first().context("no question")?.clone();
        let mut response = Message::response(request.metadata.id, request.metadata.op_code);
        response.add_query(query.clone());
        response.metadata.recursion_available = true;
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_empty() || query.name().to_string() != "app.example." {
            response.metadata.response_code = ResponseCode::NXDomain;
        } else if query.query_type() == RecordType::A {
            for address in &*known {
                let data = RData::A(A(*address));
                response.add_answer(Record::from_rdata(query.name().clone(), 1, data));
            }
        }
        Ok(response.to_vec()?)
    }
}

#[test]
fn requests_follow_a_name() -> Result<()> {
    let netns = Netns::new("names")?;
    let zone = Zone::serve(&netns)?;
    zone.set(&[[127, 0, 0, 2]]);
    let first = Upstream::echo(&netns, "127.0.0.2:3000")?;
    let second = Upstream::echo(&netns, "127.0.0.3:3000")?;
    // The daemon has a resolv.conf of its own.
    let servers = NamedTempFile::new()?;
    std::fs::write(servers.path(), "nameserver 127.0.0.1\n")?;
    let mut limiterd = Command::new("unshare");
    limiterd
        .args(["--mount", "--", "sh", "-c"])
        .arg("mount --bind \"$0\" /etc/resolv.conf && exec \"$@\"")
        .arg(servers.path())
        .arg(binary());
    let policies = Policies::new(&[("policy.yaml", POLICY)])?;
    let daemon = Daemon::start_by(&netns, policies.path(), limiterd)?;
    let ask = || netns.enter(|| get("http://127.0.0.1:8080/"));
    let endpoints = |wanted: f64| {
        let count = || {
            let page = daemon.metrics(&netns)?;
            let seen = page.sum("envoy_cluster_membership_total", &[]);
            Ok((seen == wanted).then_some(()))
        };
        eventually("other endpoints", count)
    };

    assert_eq!(ask()?.status, 200);
    ensure!(!first.seen().is_empty(), "{}", daemon.process.output());

    zone.set(&[[127, 0, 0, 2], [127, 0, 0, 3]]);
    endpoints(2.0)?;
    eventually("both", || {
        assert_eq!(ask()?.status, 200);
        Ok((!second.seen().is_empty()).then_some(()))
    })?;

    zone.set(&[[127, 0, 0, 3]]);
    endpoints(1.0)?;
    let before = first.seen().len();
    for _ in 0..20 {
        assert_eq!(ask()?.status, 200);
    }
    assert_eq!(
        first.seen().len(),
        before,
        "it went to an address that is gone"
    );

    // What is not found any more leaves the last good addresses, also over a reload.
    zone.set(&[]);
    let failed = || {
        let page = daemon.metrics(&netns)?;
        let empty = page.sum("envoy_cluster_update_empty", &[]);
        Ok((empty + page.sum("envoy_cluster_update_failure", &[]) > 0.0).then_some(()))
    };
    eventually("a lookup in vain", failed)?;
    assert_eq!(ask()?.status, 200);
    daemon.reload(&netns)?;
    assert_eq!(ask()?.status, 200);
    assert_eq!(first.seen().len(), before);
    Ok(())
}
