//! Connections that are passed on: which host takes one, and where it goes.

use super::routing::specificity;
use super::{Asked, BackendSaid, Explanation, Passed, backends, clean, hostname as pattern};
use crate::engine::route::hostname;
use crate::policy::plan::{Plan, TcpHost, TcpProxy, TcpTarget, WeightedBackend};

/// The listener that passes on what is sent to the port in question, where no listener of HTTP is.
pub(super) fn proxy<'a>(plan: &'a Plan, asked: &Asked<'_>) -> Option<&'a TcpProxy> {
    let implied = asked.tls.map(|tls| if tls { 443 } else { 80 });
    let port = asked.port.or(implied)?;
    let on_port = |binds: &[std::net::SocketAddr]| binds.iter().any(|bind| bind.port() == port);
    if plan.listeners.iter().any(|one| on_port(&one.binds)) {
        return None;
    }
    plan.tcp.iter().find(|proxy| on_port(&proxy.binds))
}

impl Explanation {
    /// By the host of the URL, if it is one with TLS: clients ask for it.
    pub(super) fn pass_on(&mut self, plan: &Plan, proxy: &TcpProxy, asked: &Asked<'_>) {
        self.listener = Some(proxy.name.clone());
        let name = match asked.tls {
            Some(false) => String::new(),
            Some(true) | None => hostname(asked.host).into_owned(),
        };
        let rank = |host: &TcpHost| {
            let names = host.names.iter();
            names.filter_map(|one| specificity(one, &name)).max()
        };
        let best = proxy.hosts.iter().max_by_key(|host| rank(host));
        let taken = best.filter(|host| rank(host).is_some());
        for host in &proxy.hosts {
            if taken.is_some_and(|taken| std::ptr::eq(taken, host)) {
                continue;
            }
            let names: Vec<_> = host.names.iter().map(pattern).collect();
            self.other_routes.push(Passed {
                name: clean(&host.name),
                why: format!("it is for {}", names.join(", ")),
            });
        }
        let Some(host) = taken else {
            self.answer =
                "the connection is closed: no host is for what the client asks for".into();
            return;
        };
        let label = clean(&host.name);
        if let Some(why) = &host.broken {
            self.answer = format!("the connection is closed by host `{label}`: {}", clean(why));
            return;
        }
        self.backends = match &host.to {
            TcpTarget::Weighted(weighted) => said(weighted, plan),
            TcpTarget::ByName(by_name) => {
                let found = by_name.get(&name).map(|index| WeightedBackend {
                    backend: Some(*index),
                    weight: 1,
                    filters: None,
                });
                said(found.as_slice(), plan)
            }
        };
        let tls = if host.tls.is_some() {
            "TLS ends here"
        } else {
            "as it is"
        };
        let names = self.backends.iter().filter(|backend| backend.weight > 0);
        let names: Vec<_> = names.filter_map(|one| one.name.as_deref()).collect();
        self.answer = if names.is_empty() {
            format!("the connection is closed: host `{label}` has no destination for it")
        } else {
            let to = names.join(" or ");
            format!("the connection is passed on by host `{label}`, {tls}, to {to}")
        };
    }
}

fn said(weighted: &[WeightedBackend], plan: &Plan) -> Vec<BackendSaid> {
    let mut said = backends(weighted, plan);
    for one in &mut said {
        one.protocol = Some("TCP".to_owned());
        one.name
            .get_or_insert_with(|| "nowhere (closed)".to_owned());
    }
    said
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use http::{HeaderMap, Method};

    use super::super::{NoBuckets, explain};
    use super::*;
    use crate::engine::request::RequestView;
    use crate::engine::time::Now;
    use crate::policy::plan::{Backend, Hostname, Listener};

    fn host(name: &str, names: Vec<Hostname>, to: TcpTarget) -> TcpHost {
        TcpHost {
            name: name.into(),
            names,
            to,
            ..TcpHost::default()
        }
    }

    fn plan() -> Plan {
        let weighted = |backend, weight| WeightedBackend {
            backend,
            weight,
            filters: None,
        };
        let half = vec![
            weighted(Some(0), 1),
            weighted(None, 1),
            weighted(Some(1), 0),
        ];
        let by_name = BTreeMap::from([("one_default".to_owned(), 0)]);
        let clusters = vec![
            Hostname::Exact("one_default".into()),
            Hostname::Exact("two_default".into()),
        ];
        let mut broken = host(
            "broken",
            vec![Hostname::Exact("b.a".into())],
            TcpTarget::default(),
        );
        broken.broken = Some("its certificate cannot be used".into());
        let backend = |name: &str| Backend {
            name: name.into(),
            ..Backend::default()
        };
        Plan {
            listeners: vec![Listener {
                name: "http".into(),
                binds: vec![([127, 0, 0, 1], 80).into()],
                ..Listener::default()
            }],
            tcp: vec![
                TcpProxy {
                    name: "named".into(),
                    binds: vec![([127, 0, 0, 1], 443).into()],
                    hosts: vec![
                        host(
                            "wild",
                            vec![Hostname::Wildcard(".a".into())],
                            TcpTarget::Weighted(half),
                        ),
                        broken,
                        host("clusters", clusters, TcpTarget::ByName(by_name)),
                    ],
                    ..TcpProxy::default()
                },
                TcpProxy {
                    name: "shadowed".into(),
                    binds: vec![([127, 0, 0, 2], 80).into()],
                    ..TcpProxy::default()
                },
            ],
            backends: vec![backend("one"), backend("two")],
            ..Plan::default()
        }
    }

    fn said(tls: bool, name: &str, port: Option<u16>) -> Explanation {
        let headers = HeaderMap::new();
        let asked = Asked {
            tls: Some(tls),
            host: name,
            port,
            request: RequestView {
                method: &Method::GET,
                path: "/",
                query: None,
                headers: &headers,
                client: [192, 0, 2, 7].into(),
                connection: None,
            },
        };
        explain(&plan(), &asked, &NoBuckets, Now::default())
    }

    #[test]
    fn connections_to_a_port_are_told_by_the_name_that_is_asked_for() {
        for (tls, name, wanted) in [
            (
                true,
                "X.A:443",
                "the connection is passed on by host `wild`, as it is, to one or nowhere (closed)",
            ),
            (
                true,
                "b.a",
                "the connection is closed by host `broken`: its certificate cannot be used",
            ),
            (
                true,
                "one_default",
                "the connection is passed on by host `clusters`, as it is, to one",
            ),
            (
                true,
                "two_default",
                "the connection is closed: host `clusters` has no destination for it",
            ),
            (
                true,
                "a",
                "the connection is closed: no host is for what the client asks for",
            ),
            (
                false,
                "x.a",
                "the connection is closed: no host is for what the client asks for",
            ),
        ] {
            let said = said(tls, name, Some(443));
            assert_eq!(said.answer, wanted, "{name}");
            assert_eq!(said.listener.as_deref(), Some("named"));
            let others = if wanted.contains("no host") { 3 } else { 2 };
            assert_eq!(said.other_routes.len(), others, "{name}");
        }
        let said = said(true, "x.a", None);
        assert_eq!(said.listener.as_deref(), Some("named"));
        assert_eq!(said.backends[0].percent, 50);
        assert_eq!(said.backends[0].protocol.as_deref(), Some("TCP"));
    }

    #[test]
    fn a_listener_of_http_on_the_port_reads_requests() {
        let said = said(false, "x.a", Some(80));
        assert_eq!(said.listener.as_deref(), Some("http"));
        let passed: Vec<_> = said
            .other_listeners
            .iter()
            .map(|one| one.name.as_str())
            .collect();
        assert_eq!(passed, ["named", "shadowed"]);
    }
}
