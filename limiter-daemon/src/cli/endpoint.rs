//! Where an admin listener is, as people write it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use http::uri::Authority;

/// An address of TCP, or the path of a Unix socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    Tcp {
        /// A name, or an address without brackets.
        host: String,
        port: u16,
        /// TLS is spoken.
        secure: bool,
    },
    Unix(PathBuf),
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let path = text.strip_prefix("unix:").unwrap_or(text);
        if path.starts_with('/') {
            return Ok(Self::Unix(path.into()));
        }
        let (rest, secure) = match text.split_once("://") {
            Some(("https", rest)) => (rest, true),
            Some(("http", rest)) => (rest, false),
            None => (text, false),
            Some((scheme, _)) => return Err(format!("{scheme}:// is not spoken there")),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let authority = rest.parse::<Authority>().ok();
        let authority = authority.filter(|one| !one.as_str().contains('@'));
        let place = authority.and_then(|one| {
            let host = one.host();
            let inner = host
                .strip_prefix('[')
                .and_then(|rest| rest.strip_suffix(']'));
            let host = inner.unwrap_or(host).to_owned();
            Some((host, one.port_u16().filter(|port| *port != 0)?))
        });
        let (host, port) = place.filter(|(host, _)| !host.is_empty()).ok_or(
            "write it as 127.0.0.1:9901, [::1]:9901, https://gateway.example:9901 or \
             /run/limiterd-admin.sock",
        )?;
        Ok(Self::Tcp { host, port, secure })
    }
}

impl Endpoint {
    /// What `Host` says.
    #[must_use]
    pub fn authority(&self) -> String {
        match self {
            Self::Tcp { host, port, .. } if host.contains(':') => format!("[{host}]:{port}"),
            Self::Tcp { host, port, .. } => format!("{host}:{port}"),
            Self::Unix(_) => "localhost".to_owned(),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { secure: true, .. } => write!(f, "https://{}", self.authority()),
            Self::Tcp { .. } => f.write_str(&self.authority()),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_names_and_paths_are_read_and_told_as_they_are_written() {
        for (text, told) in [
            ("127.0.0.1:9901", "127.0.0.1:9901"),
            ("[::1]:9901", "[::1]:9901"),
            ("http://localhost:80/", "localhost:80"),
            ("https://gw.example:9901", "https://gw.example:9901"),
            ("https://[2001:db8::1]:1", "https://[2001:db8::1]:1"),
            ("unix:/run/a.sock", "/run/a.sock"),
            ("/run/a.sock", "/run/a.sock"),
        ] {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!(endpoint.to_string(), told);
        }
        for text in [
            "",
            "localhost",
            "127.0.0.1:0",
            "127.0.0.1:99999",
            "ftp://a:1",
            "https://a:1/path",
            "user@a:1",
            ":9901",
            "::1:9901:",
        ] {
            assert!(text.parse::<Endpoint>().is_err(), "{text}");
        }
    }
}
