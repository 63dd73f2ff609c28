//! What becomes of a request: the question as the command line and `POST /explain` put it.

use std::net::{IpAddr, Ipv4Addr};

use http::header::HOST;
use http::uri::Scheme;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use serde::{Deserialize, Serialize};

use crate::engine::explain::{Asked, Explanation, Look, explain, settings};
use crate::engine::request::RequestView;
use crate::engine::time::Now;
use crate::l7::preview;
use crate::policy::Plan;

/// A request that is asked about.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    pub method: String,
    /// With a host, or a path alone (the host is then that of a `Host` header).
    pub url: String,
    /// As `name: value`.
    #[serde(default)]
    pub headers: Vec<String>,
    /// The address that the connection comes from, 127.0.0.1 if left out; what the listener's policy
    /// says of `X-Forwarded-For` and its like holds for it.
    #[serde(default)]
    pub from: Option<IpAddr>,
}

/// A question that cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum QuestionError {
    #[error("`{0}` is not a method; write it as `GET`")]
    Method(String),
    #[error("`{0}` is not a URL; write it as `http://api.example:8080/path?query`, or as `/path`")]
    Url(String),
    #[error("`{0}` is not a header; write it as `name: value`")]
    Header(String),
    #[error("the path of `{0}` leads above the root: such a request is answered with 400")]
    Path(String),
    #[error(
        "the header that the listener takes the client's address from is missing or holds none: such a request is answered with 403"
    )]
    Client,
}

impl Question {
    /// Asks it of `plan`, with the buckets that `look` sees at `now`.
    ///
    /// # Errors
    /// When it is not a request.
    pub fn ask(
        &self,
        plan: &Plan,
        look: &dyn Look,
        now: Now,
    ) -> Result<Explanation, QuestionError> {
        self.with(plan, |asked| explain(plan, asked, look, now))
    }

    /// Gives the request to `then`, attributed to whom the listener that takes it says.
    ///
    /// # Errors
    /// When it is not a request.
    pub fn with<T>(
        &self,
        plan: &Plan,
        then: impl FnOnce(&Asked<'_>) -> T,
    ) -> Result<T, QuestionError> {
        let method = Method::from_bytes(self.method.as_bytes())
            .map_err(|_invalid| QuestionError::Method(self.method.clone()))?;
        let url = || QuestionError::Url(self.url.clone());
        let uri: Uri = self.url.parse().map_err(|_invalid| url())?;
        // `host:port` alone parses as an authority, `host` as a path without a slash.
        if !uri.path().starts_with('/') {
            return Err(url());
        }
        let mut headers = self.header_map()?;
        if let Some(authority) = uri.authority()
            && !headers.contains_key(HOST)
        {
            let host = HeaderValue::from_str(authority.as_str()).map_err(|_invalid| url())?;
            headers.insert(HOST, host);
        }
        let host = headers.get(HOST).map(|host| host.to_str().unwrap_or(""));
        let tls = uri.scheme().map(|scheme| *scheme == Scheme::HTTPS);
        let peer = self.from.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let path =
            preview::path(uri.path()).ok_or_else(|| QuestionError::Path(self.url.clone()))?;
        let mut asked = Asked {
            tls,
            host: host.unwrap_or(""),
            port: uri.port_u16(),
            request: RequestView {
                connection: None,
                method: &method,
                path: &path,
                query: uri.query(),
                headers: &headers,
                client: peer.to_canonical(),
            },
        };
        if let Some(settings) = settings(plan, &asked) {
            asked.request.client = preview::client(&settings.client_address, &headers, peer)
                .ok_or(QuestionError::Client)?;
        }
        Ok(then(&asked))
    }

    fn header_map(&self) -> Result<HeaderMap, QuestionError> {
        let mut headers = HeaderMap::new();
        for line in &self.headers {
            let header = || QuestionError::Header(line.clone());
            let (name, value) = line.split_once(':').ok_or_else(header)?;
            let name = HeaderName::from_bytes(name.trim().as_bytes()).map_err(|_bad| header())?;
            let value = HeaderValue::from_str(value.trim()).map_err(|_bad| header())?;
            headers.append(name, value);
        }
        Ok(headers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::explain::NoBuckets;

    fn ask(method: &str, url: &str, headers: &[&str]) -> Result<Explanation, QuestionError> {
        let question = Question {
            method: method.to_owned(),
            url: url.to_owned(),
            headers: headers.iter().map(ToString::to_string).collect(),
            from: None,
        };
        question.ask(&Plan::default(), &NoBuckets, Now::default())
    }

    #[test]
    fn a_request_is_read_from_what_one_types() {
        let said = ask("GET", "http://api.example:8080/a/b?c=d", &["x: 1"]).unwrap();
        assert_eq!(
            (said.host.as_str(), said.path.as_str()),
            ("api.example:8080", "/a/b")
        );
        assert_eq!(said.client, "127.0.0.1");
        let said = ask("GET", "/a", &["Host: api.example"]).unwrap();
        assert_eq!(said.host, "api.example");
        assert_eq!(ask("GET", "http://api.example", &[]).unwrap().path, "/");
    }

    #[test]
    fn the_client_is_whom_the_listener_attributes_the_request_to() {
        use std::sync::Arc;

        use crate::policy::plan::{ClientAddress, ClientSettings, Listener};

        let how = |client_address| Plan {
            listeners: vec![Listener {
                client: Arc::new(ClientSettings {
                    client_address,
                    ..ClientSettings::default()
                }),
                ..Listener::default()
            }],
            ..Plan::default()
        };
        let question = Question {
            method: "GET".to_owned(),
            url: "/a//./b/../c".to_owned(),
            headers: vec!["x-forwarded-for: 192.0.2.1, 192.0.2.2".to_owned()],
            from: Some([198, 51, 100, 1].into()),
        };
        let ask = |how: &Plan| question.ask(how, &NoBuckets, Now::default());
        let said = ask(&how(ClientAddress::Peer)).unwrap();
        assert_eq!(
            (said.client.as_str(), said.path.as_str()),
            ("198.51.100.1", "/a/c")
        );
        let said = ask(&how(ClientAddress::TrustedHops(1))).unwrap();
        assert_eq!(said.client, "192.0.2.2");
        let header = ClientAddress::Header {
            name: HeaderName::from_static("x-client"),
            required: true,
        };
        let error = ask(&how(header)).unwrap_err().to_string();
        assert!(error.contains("answered with 403"), "{error}");
    }

    #[test]
    fn what_is_no_request_is_refused_with_a_remedy() {
        for (method, url, headers, wanted) in [
            ("G T", "/", [].as_slice(), "`G T` is not a method"),
            ("GET", "api.example", &[], "`api.example` is not a URL"),
            (
                "GET",
                "api.example:80",
                &[],
                "`api.example:80` is not a URL",
            ),
            ("GET", "/", &["x"], "`x` is not a header"),
            ("GET", "/", &["x y: 1"], "`x y: 1` is not a header"),
        ] {
            let error = ask(method, url, headers).unwrap_err().to_string();
            assert!(error.starts_with(wanted), "{error}");
            assert!(error.contains("; write it as "), "{error}");
        }
    }
}
