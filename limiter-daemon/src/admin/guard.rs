//! Who asks the admin listener, and whether he may: a pure function of what is known of the
//! connection, of the request's head, and of the policy.
//!
//! By a Unix socket everybody may everything: who may open it, the file system says. By TCP, once
//! somebody has a token or a certificate in the policy, everybody needs one. While nobody has, it
//! depends on where a connection comes from: between loopback addresses everything is allowed, from
//! elsewhere looking. Such a right belongs to a place and not to a person, so a web page in
//! somebody's browser there could use it; `Host` has to be a name that no page can have made resolve
//! to here (DNS rebinding). And no page at all may change anything.

use std::net::{IpAddr, SocketAddr};

use http::header::{AUTHORIZATION, HOST, HeaderMap, HeaderName, ORIGIN};
use http::{Method, StatusCode, Uri};
use subtle::ConstantTimeEq as _;

use crate::policy::plan::{Access, AdminAccess, TokenDigest};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// What is known of a connection.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    pub(super) peer: Peer,
    /// DNS names and URIs of the client's certificate, which was verified; `None`: it showed none.
    pub(super) certificate: Option<Vec<String>>,
}

/// The other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    /// A process of this user, by the Unix socket.
    User(u32),
    Address {
        of: SocketAddr,
        /// The end here.
        here: SocketAddr,
    },
}

impl Peer {
    /// Whether both ends are loopback addresses: a stranger on the wire can have one of them at most,
    /// even where the kernel routes such addresses.
    fn is_local(&self) -> bool {
        match self {
            Self::User(_) => true,
            Self::Address { of, here } => [of, here]
                .iter()
                .all(|end| end.ip().to_canonical().is_loopback()),
        }
    }
}

/// Whoever asks, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Who {
    Token(String),
    /// The name by which the certificate has access; or the first that it has.
    Certificate(String),
    User(u32),
    Address(IpAddr),
}

impl Who {
    /// What it is that he is known by.
    pub(super) const fn by(&self) -> &'static str {
        match self {
            Self::Token(_) => "token",
            Self::Certificate(_) => "certificate",
            Self::User(_) => "uid",
            Self::Address(_) => "address",
        }
    }

    pub(super) fn name(&self) -> String {
        match self {
            Self::Token(name) | Self::Certificate(name) => name.clone(),
            Self::User(uid) => uid.to_string(),
            Self::Address(address) => address.to_string(),
        }
    }
}

/// What a request takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// For probes, and for the page that asks for a token.
    Nothing,
    Read,
    Write,
}

impl Need {
    /// What is not known to be harmless takes the most.
    pub(super) fn of(method: &Method, path: &str) -> Self {
        match (method, path) {
            (&Method::GET | &Method::HEAD, "/" | "/dashboard" | "/live" | "/ready") => {
                Self::Nothing
            }
            (&Method::GET | &Method::HEAD, _) | (&Method::POST, "/explain" | "/explain/domain") => {
                Self::Read
            }
            _ => Self::Write,
        }
    }
}

/// The part of a request that matters.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head<'a> {
    pub(super) method: &'a Method,
    pub(super) uri: &'a Uri,
    pub(super) headers: &'a HeaderMap,
}

/// He may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Granted {
    pub(super) who: Who,
    /// Whether he may look at everything; otherwise only at what is for everybody.
    pub(super) reads: bool,
}

/// Why somebody may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// There is nothing that says who he is.
    Unknown,
    /// The token is nobody's.
    WrongToken,
    /// The certificate is of nobody who has access.
    WrongCertificate,
    /// He may only look.
    ReadOnly,
    /// From there nobody may change anything.
    NotFromThere,
    /// `Host` is a name that could be anybody's.
    Host,
    /// It is a web page that asks.
    WebPage,
}

impl Reason {
    pub(super) const ALL: [Self; 7] = [
        Self::Unknown,
        Self::WrongToken,
        Self::WrongCertificate,
        Self::ReadOnly,
        Self::NotFromThere,
        Self::Host,
        Self::WebPage,
    ];

    /// As a label.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::WrongToken => "wrong_token",
            Self::WrongCertificate => "wrong_certificate",
            Self::ReadOnly => "read_only",
            Self::NotFromThere => "not_from_there",
            Self::Host => "host",
            Self::WebPage => "web_page",
        }
    }

    pub(super) const fn status(self) -> StatusCode {
        match self {
            Self::Unknown | Self::WrongToken => StatusCode::UNAUTHORIZED,
            _ => StatusCode::FORBIDDEN,
        }
    }

    /// With the remedy.
    pub(super) const fn why(self) -> &'static str {
        match self {
            Self::Unknown => {
                "say who you are: send a token of spec.admin.tokens (authorization: Bearer ...; \
                 limiterd --token-file FILE), or show a certificate of spec.admin.clients"
            }
            Self::WrongToken => {
                "this is no token of spec.admin.tokens, as their files were last read: a reload \
                 (SIGHUP) reads them again"
            }
            Self::WrongCertificate => {
                "this certificate has no name of spec.admin.clients, which go by DNS names and \
                 URIs of the subject alternative names"
            }
            Self::ReadOnly => "you may only look: what changes something takes access: Write",
            Self::NotFromThere => {
                "from other hosts nobody may change anything who does not say who he is: name \
                 tokens or clients in spec.admin of the LimiterConfig, or ask at a loopback \
                 address or a Unix socket"
            }
            Self::Host => {
                "by this name any web page could ask: go by an address or localhost, or put the \
                 name into spec.admin.hostnames of the LimiterConfig"
            }
            Self::WebPage => "not for web pages",
        }
    }
}

/// He may not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Denied {
    pub(super) who: Who,
    pub(super) reason: Reason,
}

/// Whether `connection` may ask this, by `rules`.
///
/// # Errors
/// When it may not.
pub(super) fn decide(
    rules: &AdminAccess,
    connection: &Connection,
    head: Head<'_>,
) -> Result<Granted, Denied> {
    let need = Need::of(head.method, head.uri.path());
    let known = identify(rules, connection, head);
    let (who, access) = match known {
        Ok(known) => known,
        Err(denied) if need == Need::Nothing => {
            return Ok(Granted {
                who: denied.who,
                reads: false,
            });
        }
        Err(denied) => return Err(denied),
    };
    let deny = |reason| {
        Err(Denied {
            who: who.clone(),
            reason,
        })
    };
    if need == Need::Write {
        if of_web_page(head.headers) {
            return deny(Reason::WebPage);
        }
        if access < Access::Write {
            return deny(match who {
                Who::Address(_) => Reason::NotFromThere,
                _ => Reason::ReadOnly,
            });
        }
    }
    Ok(Granted { who, reads: true })
}

/// Who it is, and what he may do.
fn identify(
    rules: &AdminAccess,
    connection: &Connection,
    head: Head<'_>,
) -> Result<(Who, Access), Denied> {
    let address = match connection.peer {
        Peer::User(uid) => return Ok((Who::User(uid), Access::Write)),
        Peer::Address { of, .. } => Who::Address(of.ip().to_canonical()),
    };
    if !rules.authenticates() {
        if !trusted_host(rules, head) {
            return Err(Denied {
                who: address,
                reason: Reason::Host,
            });
        }
        let access = if connection.peer.is_local() {
            Access::Write
        } else {
            Access::Read
        };
        return Ok((address, access));
    }
    if head.headers.contains_key(AUTHORIZATION) {
        let owner = bearer(head.headers).and_then(|token| owner(rules, token));
        return owner.ok_or(Denied {
            who: address,
            reason: Reason::WrongToken,
        });
    }
    let Some(names) = &connection.certificate else {
        return Err(Denied {
            who: address,
            reason: Reason::Unknown,
        });
    };
    let clients = rules.clients.iter();
    // A certificate may have several names that have access.
    let most = clients
        .filter(|client| names.contains(&client.subject_alt_name))
        .max_by_key(|client| client.access);
    match most {
        Some(client) => {
            let who = Who::Certificate(client.subject_alt_name.clone());
            Ok((who, client.access))
        }
        None => Err(Denied {
            who: names.first().cloned().map_or(address, Who::Certificate),
            reason: Reason::WrongCertificate,
        }),
    }
}

/// The one token that is shown.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next()?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    (values.next().is_none() && scheme.eq_ignore_ascii_case("bearer")).then(|| token.trim())
}

/// Whose token it is. All are compared, and each in constant time.
fn owner(rules: &AdminAccess, token: &str) -> Option<(Who, Access)> {
    let shown = TokenDigest::of(token);
    let mut found = None;
    for one in &rules.tokens {
        for digest in &one.digests {
            if bool::from(digest.0.ct_eq(&shown.0)) {
                found = Some((Who::Token(one.name.clone()), one.access));
            }
        }
    }
    found
}

/// Whether no page can have given itself the name that the request is for.
fn trusted_host(rules: &AdminAccess, head: Head<'_>) -> bool {
    let mut hosts = head.headers.get_all(HOST).iter();
    let host = match (head.uri.authority(), hosts.next(), hosts.next()) {
        (Some(authority), ..) => Some(authority.as_str()),
        (None, Some(host), None) => host.to_str().ok(),
        // No browser leaves it out.
        (None, None, _) => return true,
        (None, Some(_), Some(_)) => None,
    };
    let Some(authority) = host.and_then(|host| host.parse::<http::uri::Authority>().ok()) else {
        return false;
    };
    let host = authority.host();
    let inner = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(host);
    let name = host.strip_suffix('.').unwrap_or(host);
    inner.parse::<IpAddr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
        || rules
            .hostnames
            .iter()
            .any(|known| known.eq_ignore_ascii_case(name))
}

/// Whether a browser sent it for a page: `Origin` is in every request of a page that could change
/// something, `Sec-Fetch-Site` in all but those that the user typed (Fetch Metadata, section 2.3).
fn of_web_page(headers: &HeaderMap) -> bool {
    let site = headers.get(SEC_FETCH_SITE);
    headers.contains_key(ORIGIN) || site.is_some_and(|site| site != "none")
}

#[cfg(test)]
mod tests;
