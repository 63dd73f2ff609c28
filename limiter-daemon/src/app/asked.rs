//! Whom filters ask about requests: limiterd's own domains, and rate limit services elsewhere.

use std::sync::Arc;

use anyhow::Context as _;
use arc_swap::ArcSwap;

use crate::engine::ask::{Failing, OwnService, RateLimitService, Services};
use crate::engine::domain::Domains;
use crate::l7::tls;
use crate::policy::plan::{AskedService, RlsPeer};
use crate::rls::{Client, Clients};

/// Finds who answers.
#[derive(Debug)]
pub(super) struct Asked {
    own: Arc<OwnService>,
    clients: Arc<Clients>,
}

impl Asked {
    /// `domains`: those in force.
    pub(super) fn new(domains: Arc<ArcSwap<Domains>>, clients: Arc<Clients>) -> Self {
        Self {
            own: Arc::new(OwnService { domains }),
            clients,
        }
    }

    fn client(&self, peer: &Arc<RlsPeer>) -> anyhow::Result<Arc<Client>> {
        self.clients.find(peer, || {
            let tls = peer.tls.as_ref();
            let tls = tls.map(|tls| tls::peer(&tls.how)).transpose()?;
            Ok(Client::new(Arc::clone(peer), tls)?)
        })
    }
}

impl Services for Asked {
    fn find(&self, service: &AskedService) -> Arc<dyn RateLimitService> {
        match service {
            AskedService::Own => Arc::<OwnService>::clone(&self.own),
            AskedService::Broken(why) => Arc::new(Failing(why.clone())),
            AskedService::Peer(peer) => {
                let client = self.client(peer);
                match client.with_context(|| format!("the rate limit service {}", peer.host)) {
                    Ok(client) => client,
                    Err(error) => {
                        tracing::error!("{error:#}");
                        Arc::new(Failing(format!("{error:#}")))
                    }
                }
            }
        }
    }
}
