//! Where somebody can connect: the addresses of a plan, for `GET /node`.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::policy::plan::{DaemonConfig, Listener, TcpProxy};

/// An address, and what is there.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct ListenerView {
    pub address: String,
    /// `http`, `https`, `tcp`, `rls` (Envoy's rate limit service) or `admin`.
    pub serves: String,
    /// Listeners of the policy that share the address.
    pub listeners: usize,
}

impl ListenerView {
    /// By address; those of `config` behind the policy's.
    pub(super) fn all(
        listeners: &[Listener],
        proxies: &[TcpProxy],
        config: &DaemonConfig,
    ) -> Vec<Self> {
        let http = listeners.iter().flat_map(|listener| {
            let serves = listener.tls.as_ref().map_or("http", |_tls| "https");
            listener.binds.iter().map(move |bind| (*bind, serves))
        });
        let tcp = proxies
            .iter()
            .flat_map(|proxy| proxy.binds.iter().map(|bind| (*bind, "tcp")));
        let mut found: BTreeMap<SocketAddr, (&str, usize)> = BTreeMap::new();
        for (bind, serves) in http.chain(tcp) {
            found.entry(bind).or_insert((serves, 0)).1 += 1;
        }
        let rls = config.rls.as_ref().map(|rls| (rls.listen, ("rls", 1)));
        let own = rls.into_iter().chain([(config.admin, ("admin", 1))]);
        let view = |(address, (serves, listeners)): (SocketAddr, (&str, usize))| Self {
            address: address.to_string(),
            serves: serves.to_owned(),
            listeners,
        };
        found.into_iter().chain(own).map(view).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_told_once_and_the_daemons_own_come_last() {
        let http = |bind: &str| Listener {
            binds: vec![bind.parse().unwrap()],
            ..Listener::default()
        };
        let listeners = [http("0.0.0.0:80"), http("0.0.0.0:80"), http("[::1]:8080")];
        let views = ListenerView::all(&listeners, &[], &DaemonConfig::default());
        let told = views
            .iter()
            .map(|one| (&*one.address, &*one.serves, one.listeners));
        let told: Vec<_> = told.collect();
        let wanted = [
            ("0.0.0.0:80", "http", 2),
            ("[::1]:8080", "http", 1),
            ("127.0.0.1:9901", "admin", 1),
        ];
        assert_eq!(told, wanted);
    }
}
