//! What is behind the question mark.

use percent_encoding::percent_decode_str;

use crate::admin::l4::{Refused, bad};

/// Parameters at most.
const MOST: usize = 100;

/// Decoded parameters.
#[derive(Debug)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn read(text: &str) -> Result<Self, Refused> {
        let mut pairs = Vec::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = percent_decode_str(value).decode_utf8();
            let value = value.map_err(|_bytes| bad(format!("{key}: not UTF-8")))?;
            pairs.push((key.to_owned(), value.into_owned()));
        }
        if pairs.len() > MOST {
            return Err(bad(format!("at most {MOST} parameters")));
        }
        Ok(Self(pairs))
    }

    /// Refuses parameters that are none of these: one that is misspelt would ask for something else.
    pub(super) fn only(&self, known: &[&str]) -> Result<(), Refused> {
        let mut keys = self.0.iter().map(|(key, _)| key);
        match keys.find(|key| !known.contains(&key.as_str())) {
            None => Ok(()),
            Some(other) => Err(bad(format!(
                "there is no parameter {other:?}; there are {}",
                known.join(", ")
            ))),
        }
    }

    pub(super) fn get(&self, wanted: &str) -> Option<&str> {
        let mut found = self.0.iter().filter(|(key, _)| key == wanted);
        found.next().map(|(_, value)| value.as_str())
    }

    pub(super) fn all(&self, wanted: &str) -> Vec<String> {
        let found = self.0.iter().filter(|(key, _)| key == wanted);
        found.map(|(_, value)| value.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_and_known() {
        let query =
            Query::read("name=local%3Aa%2Fb%40c%2Bd&header=x%3A%201&header=y:2&empty").unwrap();
        assert_eq!(query.get("name"), Some("local:a/b@c+d"));
        assert_eq!(query.all("header"), ["x: 1", "y:2"]);
        assert_eq!(query.get("empty"), Some(""));
        assert_eq!(query.get("none"), None);
        assert!(query.only(&["name", "header", "empty"]).is_ok());
        let (_, why) = query.only(&["name", "header"]).unwrap_err();
        assert!(why.contains("\"empty\"; there are name, header"), "{why}");
        assert!(Query::read("name=%ff").is_err());
        assert!(Query::read(&"a=1&".repeat(101)).is_err());
    }
}
