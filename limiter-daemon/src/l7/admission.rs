//! Which requests are taken at all: everything that two HTTP implementations might read differently
//! (request smuggling) is refused before anything is decided about it.

use std::borrow::Cow;

use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::{HeaderValue, Method, Request, Version};
use hyper::body::Incoming;

use super::respond::Refusal;
use crate::engine::route::hostname;
use crate::policy::plan::ClientSettings;

/// Checks a request's head, and brings it into one shape: its host is in its one `Host` header.
///
/// # Errors
/// [`Refusal`] as the client is to see it.
pub(super) fn admit(
    request: &mut Request<Incoming>,
    settings: &ClientSettings,
) -> Result<(), Refusal> {
    if request.method() == Method::CONNECT {
        return Err(Refusal::Connect);
    }
    let max_headers = settings.http1.max_headers;
    if u32::try_from(request.headers().len()).unwrap_or(u32::MAX) > max_headers {
        return Err(Refusal::HeadTooLarge);
    }
    framing(request)?;
    authority(request, settings)?;
    Ok(())
}

/// One way to tell where the body ends (RFC 9112 section 6.3). What hyper does not refuse itself.
fn framing(request: &Request<Incoming>) -> Result<(), Refusal> {
    let headers = request.headers();
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else {
        return Ok(());
    };
    let chunked = coding.as_bytes().eq_ignore_ascii_case(b"chunked");
    if !chunked || codings.next().is_some() {
        return Err(Refusal::BadRequest("a transfer coding other than chunked"));
    }
    if headers.contains_key(CONTENT_LENGTH) {
        return Err(Refusal::BadRequest(
            "both Content-Length and Transfer-Encoding",
        ));
    }
    Ok(())
}

/// One host: of the target (RFC 9112 section 3.2.2, RFC 9113 section 8.3.1), else of the one `Host`
/// header.
fn authority(request: &mut Request<Incoming>, settings: &ClientSettings) -> Result<(), Refusal> {
    let http2 = request.version() == Version::HTTP_2;
    let mut hosts = request.headers().get_all(HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(Refusal::BadRequest("more than one Host header"));
    }
    if let Some(scheme) = request.uri().scheme_str()
        && !matches!(scheme, "http" | "https")
    {
        return Err(Refusal::BadRequest("a target that is not of HTTP"));
    }
    if request.uri().scheme().is_none() && request.uri().authority().is_some() {
        return Err(Refusal::BadRequest("a target without a path"));
    }
    if request.version() < Version::HTTP_11 && settings.http1.http10.is_none() {
        return Err(Refusal::OldVersion);
    }
    let named = match (request.uri().authority(), host) {
        (Some(authority), Some(host)) if http2 && authority.as_str() != host => {
            return Err(Refusal::BadRequest("two hosts: `:authority` and `host`"));
        }
        (Some(authority), _) => {
            let value = HeaderValue::from_str(authority.as_str());
            Some(value.map_err(|_invalid| Refusal::BadRequest("a malformed host"))?)
        }
        (None, Some(host)) => {
            return if is_host(host.as_bytes()) {
                Ok(())
            } else {
                Err(Refusal::BadRequest("a malformed host"))
            };
        }
        (None, None) if request.version() < Version::HTTP_11 => {
            let default = settings.http1.http10.as_ref().and_then(Option::as_deref);
            default.and_then(|host| HeaderValue::from_str(host).ok())
        }
        (None, None) => return Err(Refusal::BadRequest("no host")),
    };
    if let Some(named) = named {
        if !is_host(named.as_bytes()) {
            return Err(Refusal::BadRequest("a malformed host"));
        }
        request.headers_mut().insert(HOST, named);
    }
    Ok(())
}

/// Characters of a host and a port; in particular no user, no path, no list.
fn is_host(host: &[u8]) -> bool {
    host.iter().all(|byte| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':' | b'[' | b']')
    })
}

/// The host of an admitted request.
pub(super) fn host(request: &Request<Incoming>) -> Cow<'_, str> {
    let host = request.headers().get(HOST);
    hostname(host.and_then(|host| host.to_str().ok()).unwrap_or(""))
}
