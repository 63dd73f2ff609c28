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
