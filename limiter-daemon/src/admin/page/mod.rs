//! The dashboard: one page, made of four files when it is first asked for, with nothing from
//! elsewhere. What it shows it reads from the other paths of the admin listener, with a token where
//! that wants one; the page itself is for everybody.
//!
//! Its policy names the one script and the one style by their hashes, so nothing that somebody
//! manages to write into the page is run, and no other page may show it in a frame.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{Response, StatusCode};
use http_body_util::Full;

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = concat!(include_str!("token.js"), include_str!("script.js"));

static WHOLE: LazyLock<(Bytes, String)> = LazyLock::new(|| {
    let page = PAGE
        .replace("/*STYLE*/", STYLE)
        .replace("/*SCRIPT*/", SCRIPT);
    let policy = format!(
        "default-src 'none'; script-src {}; style-src {}; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        hash(SCRIPT),
        hash(STYLE)
    );
    (Bytes::from(page), policy)
});

/// As a source of a content security policy.
fn hash(text: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    format!("'sha256-{}'", BASE64_STANDARD.encode(digest))
}

/// The page.
pub(super) fn answer() -> Response<Full<Bytes>> {
    let (page, policy) = &*WHOLE;
    let mut response = Response::new(Full::new(page.clone()));
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    for (name, value) in [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CACHE_CONTROL, "no-store"),
        (REFERRER_POLICY, "no-referrer"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if let Ok(policy) = HeaderValue::from_str(policy) {
        headers.insert(CONTENT_SECURITY_POLICY, policy);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_whole_and_its_policy_names_what_is_in_it() {
        let response = answer();
        let policy = response.headers()[CONTENT_SECURITY_POLICY]
            .to_str()
            .unwrap();
        assert!(policy.contains(&hash(SCRIPT)) && policy.contains(&hash(STYLE)));
        assert!(!policy.contains("unsafe"));
        let (page, _) = &*WHOLE;
        let page = std::str::from_utf8(page).unwrap();
        assert!(page.contains(&format!("<script>{SCRIPT}</script>")));
        assert!(page.contains(&format!("<style>{STYLE}</style>")));
        // Nothing from elsewhere, and nothing that the policy would refuse.
        let of_svg = "http://www.w3.org/2000/svg";
        for foreign in [
            "http://",
            "https://",
            "//cdn",
            " style=",
            " onclick=",
            "innerHTML",
            "eval(",
        ] {
            assert!(!page.replace(of_svg, "").contains(foreign), "{foreign}");
        }
    }
}
