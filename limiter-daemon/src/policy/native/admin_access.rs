//! `admin` of the `LimiterConfig`: where the admin listener is, and who may ask it.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;

use serde::Deserialize;

use super::rate_limit_service::{self, RawTls, TlsRefs};
use crate::policy::decode::At;
use crate::policy::findings::{Mark, Scope};
use crate::policy::plan::{Access, AdminClient, AdminToken, DaemonConfig, TokenDigest};
use crate::policy::resource::Meta;
use crate::policy::source;

/// Entries of a list.
const MAX_ENTRIES: usize = 64;
/// Characters of a token's name.
const MAX_NAME: usize = 64;
/// Characters of a token: with fewer it could be guessed, and more are no header.
const TOKEN_LENGTH: std::ops::RangeInclusive<usize> = 16..=4096;
/// Tokens in a file: the one before may be good while the next is handed out.
const MAX_TOKENS: usize = 4;
/// Others than the owner and the group may read or write.
const OTHERS: u32 = 0o006;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawAdmin {
    address: Option<At<String>>,
    hostnames: Option<At<Vec<At<String>>>>,
    tokens: Option<At<Vec<RawToken>>>,
    tls: Option<At<RawTls>>,
    clients: Option<At<Vec<RawClient>>>,
}

#[derive(Debug, Deserialize)]
struct RawToken {
    name: At<String>,
    path: At<String>,
    access: RawAccess,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawClient {
    subject_alt_name: At<String>,
    access: RawAccess,
}

#[derive(Clone, Copy, Debug, Deserialize)]
enum RawAccess {
    Read,
    Write,
}

impl From<RawAccess> for Access {
    fn from(raw: RawAccess) -> Self {
        match raw {
            RawAccess::Read => Self::Read,
            RawAccess::Write => Self::Write,
        }
    }
}

/// Who may ask, with references to certificates that are to be followed.
#[derive(Clone, Debug, Default)]
pub(crate) struct AdminSettings {
    pub(crate) tokens: Vec<AdminToken>,
    /// `None`: no TLS.
    pub(crate) tls: Option<TlsRefs>,
    pub(crate) clients: Vec<AdminClient>,
    pub(crate) hostnames: Vec<String>,
}

/// Checks it, and reads the files with tokens; where it is goes into `daemon`.
pub(super) fn lower(
    raw: RawAdmin,
    meta: &Meta,
    daemon: &mut DaemonConfig,
    scope: &mut Scope<'_>,
) -> AdminSettings {
    let mut settings = AdminSettings::default();
    if let Some(list) = raw.hostnames {
        scope.at_most(&list.mark, list.len(), MAX_ENTRIES);
        for name in list.value {
            settings.hostnames.extend(hostname(&name, scope));
        }
    }
    if let Some(list) = raw.tokens {
        scope.at_most(&list.mark, list.len(), MAX_ENTRIES);
        for raw in list.value {
            let token = token(raw, &settings.tokens, meta, scope);
            settings.tokens.extend(token);
        }
    }
    let tls = raw.tls.map(|tls| {
        let mark = tls.mark.clone();
        let refs = rate_limit_service::lower_tls(tls, &meta.name.namespace, scope);
        (refs, mark)
    });
    settings.clients = clients(raw.clients, tls.as_ref(), scope);
    settings.tls = tls.map(|(refs, _)| refs);
    if let Some(address) = &raw.address {
        lower_address(address, &settings, daemon, scope);
    }
    settings
}

fn lower_address(
    text: &At<String>,
    settings: &AdminSettings,
    daemon: &mut DaemonConfig,
    scope: &mut Scope<'_>,
) {
    let Some(address) = text
        .parse::<SocketAddr>()
        .ok()
        .filter(|address| address.port() != 0)
    else {
        let message = format!("`{}` is not an address with a port", text.value);
        scope.error(
            &text.mark,
            message,
            "write it as `127.0.0.1:9901` or `[::1]:9901`",
        );
        return;
    };
    daemon.admin = address;
    if address.ip().to_canonical().is_loopback() {
        return;
    }
    let message = format!("the admin address {address} can be reached from other hosts");
    if settings.tokens.is_empty() && settings.clients.is_empty() {
        scope.warning(
            &text.mark,
            message,
            "without `tokens` and `clients` everybody there may read, and nobody may change \
             anything: name some, or write a loopback address",
        );
    } else if settings.tls.is_none() {
        scope.warning(
            &text.mark,
            format!("{message}, and tokens go there in clear text"),
            "give it `tls`",
        );
    }
}

fn hostname(name: &At<String>, scope: &mut Scope<'_>) -> Option<String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    if name.is_empty() || name.len() > 253 || !name.bytes().all(plain) {
        scope.error(
            &name.mark,
            format!("`{}` is not the name of a host", name.value),
            "write it without a port, as `gateway.example.com`; addresses and `localhost` need \
             no entry",
        );
        return None;
    }
    Some(name.to_ascii_lowercase())
}

/// A token with its file; `before`: those that are there already.
fn token(
    raw: RawToken,
    before: &[AdminToken],
    meta: &Meta,
    scope: &mut Scope<'_>,
) -> Option<AdminToken> {
    let RawToken { name, path, access } = raw;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    if !(1..=MAX_NAME).contains(&name.len()) || !name.bytes().all(plain) {
        scope.error(
            &name.mark,
            format!("`{}` is not the name of a token", name.value),
            format!("write 1 to {MAX_NAME} letters, digits, `-`, `.` and `_`"),
        );
    }
    if before.iter().any(|other| other.name == name.value) {
        scope.error(
            &name.mark,
            format!("the token `{}` is given twice", name.value),
            "keep one of them; a file may have several tokens, a line each",
        );
    }
    let tokens = read(&path, meta, scope)?;
    let digests: Vec<TokenDigest> = tokens.iter().map(|token| TokenDigest::of(token)).collect();
    let other = before
        .iter()
        .find(|other| other.digests.iter().any(|one| digests.contains(one)));
    if let Some(other) = other {
        scope.error(
            &path.mark,
            format!("`{}` is also a token of `{}`", name.value, other.name),
            "give each its own, or nobody could say whose it was",
        );
    }
    Some(AdminToken {
        name: name.value,
        access: access.into(),
        digests,
    })
}

/// The tokens in a file, at least one. What they are is never told.
fn read(path: &At<String>, meta: &Meta, scope: &mut Scope<'_>) -> Option<BTreeSet<String>> {
    const REMEDY: &str = "write a random one, as `openssl rand -hex 32` makes it";
    let file = meta.origin.file.with_file_name(&path.value);
    let shown = file.display();
    let text = match source::read_text(&file) {
        Ok(text) if !path.is_empty() => text,
        Ok(_) => String::new(),
        Err(unreadable) => {
            let message = format!("`{shown}`: {}", unreadable.message);
            let remedy = "name a file that limiterd's user may read; relative to this file's \
                          directory";
            scope.error(&path.mark, message, remedy);
            return None;
        }
    };
    warn_of_mode(&file, path, scope);
    let lines = text.lines().enumerate();
    let lines = lines.map(|(at, line)| (at + 1, line.trim()));
    let mut tokens = BTreeSet::new();
    for (number, token) in lines.filter(|(_, line)| !line.is_empty()) {
        // RFC 6750, section 2.1.
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
        if !token.bytes().all(plain) {
            let message = format!("line {number} of `{shown}` has characters that no token has");
            let remedy = format!("a token has letters, digits and `-._~+/=`: {REMEDY}");
            scope.error(&path.mark, message, remedy);
            return None;
        }
        if !TOKEN_LENGTH.contains(&token.len()) {
            let (least, most) = (TOKEN_LENGTH.start(), TOKEN_LENGTH.end());
            let message = format!("the token in line {number} of `{shown}` is too short or long");
            let remedy = format!("it may have {least} to {most} characters: {REMEDY}");
            scope.error(&path.mark, message, remedy);
            return None;
        }
        tokens.insert(token.to_owned());
    }
    if tokens.is_empty() || tokens.len() > MAX_TOKENS {
        let message = format!("`{shown}` has {} tokens", tokens.len());
        let remedy = format!("it may have 1 to {MAX_TOKENS}, a line each: {REMEDY}");
        scope.error(&path.mark, message, remedy);
        return None;
    }
    Some(tokens)
}

fn warn_of_mode(file: &std::path::Path, path: &At<String>, scope: &mut Scope<'_>) {
    // That it was just read is a better proof that it is there.
    let Ok(about) = file.metadata() else { return };
    if about.mode() & OTHERS != 0 {
        let mode = about.mode() & 0o777;
        let message = format!(
            "`{}` may be read or written by every user (mode {mode:04o})",
            file.display()
        );
        scope.warning(
            &path.mark,
            message,
            "take that away with `chmod o-rw`; of a Secret's volume, with `defaultMode: 0440`",
        );
    }
}

fn clients(
    raw: Option<At<Vec<RawClient>>>,
    tls: Option<&(TlsRefs, Mark)>,
    scope: &mut Scope<'_>,
) -> Vec<AdminClient> {
    let asked = tls.is_some_and(|(refs, _)| refs.clients.is_some());
    let Some(list) = raw else {
        if let Some((_, mark)) = tls.filter(|_| asked) {
            scope.error(
                mark,
                "clients are asked for certificates, and nobody has access by one",
                "name them in `spec.admin.clients`, or remove `clientValidation`",
            );
        }
        return Vec::new();
    };
    if !asked {
        scope.error(
            &list.mark,
            "no client is asked for a certificate",
            "name authorities in `spec.admin.tls.clientValidation`, or remove this",
        );
    }
    scope.at_most(&list.mark, list.len(), MAX_ENTRIES);
    let mut clients: Vec<AdminClient> = Vec::new();
    for RawClient {
        subject_alt_name: At { value: name, mark },
        access,
    } in list.value
    {
        let is_uri = name.contains(':');
        let name = if is_uri {
            name
        } else {
            name.to_ascii_lowercase()
        };
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
            scope.error(
                &mark,
                format!("`{name}` is no name that a certificate has"),
                "write a DNS name or a URI (`spiffe://...`) of its subject alternative names",
            );
        }
        if clients.iter().any(|other| other.subject_alt_name == name) {
            scope.error(
                &mark,
                format!("`{name}` is given twice"),
                "keep one of them",
            );
        }
        clients.push(AdminClient {
            subject_alt_name: name,
            access: access.into(),
        });
    }
    clients
}
