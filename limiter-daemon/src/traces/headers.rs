//! What is sent to a collector with each batch: mostly who we are.

use std::path::Path;

use http::header::{HeaderMap, HeaderName, HeaderValue};

use super::TraceError;

/// Bytes of the file.
const MAX_FILE: usize = 64 << 10;
/// What the protocols say themselves.
const OURS: [&str; 7] = [
    "connection",
    "content-length",
    "content-type",
    "content-encoding",
    "host",
    "te",
    "transfer-encoding",
];

/// Reads a file with a `name: value` a line; empty lines and those that begin with `#` say nothing.
///
/// # Errors
/// When it cannot be read, or a line is no header; no value is repeated.
pub fn read(path: &Path) -> Result<HeaderMap, TraceError> {
    let read = std::fs::read_to_string(path).map_err(|error| error.to_string());
    read.and_then(|text| parse(&text))
        .map_err(|why| TraceError::Headers {
            path: path.to_owned(),
            why,
        })
}

fn parse(text: &str) -> Result<HeaderMap, String> {
    if text.len() > MAX_FILE {
        return Err(format!("it has more than {MAX_FILE} bytes"));
    }
    let mut headers = HeaderMap::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let number = number + 1;
        let (name, value) = line
            .split_once(':')
            .ok_or_else(|| format!("line {number} is not `name: value`"))?;
        let name: HeaderName = name
            .trim()
            .parse()
            .map_err(|_invalid| format!("line {number} has no name that a header can have"))?;
        if OURS.contains(&name.as_str()) || name.as_str().starts_with("grpc-") {
            return Err(format!("line {number}: `{name}` is not to be set"));
        }
        let mut value: HeaderValue = value
            .trim()
            .parse()
            .map_err(|_invalid| format!("line {number} has no value that a header can have"))?;
        value.set_sensitive(true);
        headers.append(name, value);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn a_line_is_a_header() {
        let headers =
            parse("# who we are\n\nAuthorization: Bearer a:b \nx-scope-orgid:1\n").unwrap();
        assert_eq!(headers.len(), 2);
        assert_eq!(headers["authorization"], "Bearer a:b");
        assert!(headers["authorization"].is_sensitive());
        assert_eq!(headers["x-scope-orgid"], "1");
    }

    #[test]
    fn what_is_no_header_is_named_by_its_line_without_its_value() {
        for (text, wanted) in [
            ("\nsecret", "line 2 is not `name: value`"),
            ("a b: secret", "line 1 has no name that a header can have"),
            (
                "a: secret\u{1}x",
                "line 1 has no value that a header can have",
            ),
            ("Host: secret", "line 1: `host` is not to be set"),
            (
                "grpc-timeout: 1S",
                "line 1: `grpc-timeout` is not to be set",
            ),
        ] {
            assert_eq!(parse(text).unwrap_err(), wanted);
        }
    }
}
