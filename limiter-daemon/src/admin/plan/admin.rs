//! Who may ask the admin listener, as JSON: names, and nothing that they show.

use serde::Serialize;

use super::TlsView;
use crate::policy::plan::{Access, AdminAccess, ServerTls};

#[derive(Debug, Serialize)]
pub(super) struct AdminView {
    tokens: Vec<HolderView>,
    /// By names of their certificates.
    clients: Vec<HolderView>,
    /// That `Host` may have.
    hostnames: Vec<String>,
    /// `None`: none is spoken.
    #[serde(skip_serializing_if = "Option::is_none")]
    tls: Option<TlsView>,
}

#[derive(Debug, Serialize)]
struct HolderView {
    name: String,
    access: &'static str,
}

impl HolderView {
    fn new(name: &str, access: Access) -> Self {
        Self {
            name: name.to_owned(),
            access: match access {
                Access::Read => "read",
                Access::Write => "write",
            },
        }
    }
}

impl From<&AdminAccess> for AdminView {
    fn from(access: &AdminAccess) -> Self {
        let tokens = access.tokens.iter();
        let clients = access.clients.iter();
        Self {
            tokens: tokens
                .map(|token| HolderView::new(&token.name, token.access))
                .collect(),
            clients: clients
                .map(|client| HolderView::new(&client.subject_alt_name, client.access))
                .collect(),
            hostnames: access.hostnames.clone(),
            tls: match &access.tls {
                ServerTls::As(tls) => Some(TlsView::from(tls)),
                ServerTls::None | ServerTls::Broken(_) => None,
            },
        }
    }
}
