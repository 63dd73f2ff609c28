//! Who may ask the admin listener, and for what.

use std::fmt;

use super::ServerTls;

/// Who may ask the admin listener, by TCP. Its Unix socket has the rights of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AdminAccess {
    pub tokens: Vec<AdminToken>,
    pub tls: ServerTls,
    /// Who shows a certificate of theirs; empty where none is asked for.
    pub clients: Vec<AdminClient>,
    /// Names that `Host` may have beside addresses and `localhost`, in lower case.
    pub hostnames: Vec<String>,
}

impl AdminAccess {
    /// Whether somebody can say who he is. If nobody can, where he is decides.
    #[must_use]
    pub fn authenticates(&self) -> bool {
        !self.tokens.is_empty() || !self.clients.is_empty()
    }
}

/// What somebody may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// Look.
    Read,
    /// Look, and change what is in force.
    Write,
}

/// A secret that its bearer shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminToken {
    /// Whose it is, for the audit log.
    pub name: String,
    pub access: Access,
    /// Never empty; several while one takes another's place.
    pub digests: Vec<TokenDigest>,
}

/// SHA-256 of a token. Never printed: what is short can be guessed from it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TokenDigest(pub [u8; 32]);

impl TokenDigest {
    #[must_use]
    pub fn of(token: &str) -> Self {
        let digest = ring::digest::digest(&ring::digest::SHA256, token.as_bytes());
        let mut bytes = [0; 32];
        // SHA-256 has as many.
        bytes.copy_from_slice(digest.as_ref());
        Self(bytes)
    }
}

impl fmt::Debug for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenDigest")
    }
}

/// Who shows a certificate that one of the authorities signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminClient {
    /// A DNS name (in lower case) or a URI that the certificate has.
    pub subject_alt_name: String,
    pub access: Access,
}
