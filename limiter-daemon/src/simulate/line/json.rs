//! A JSON object a line. The names of Envoy's fields are up to who configures it: those of limiterd's,
//! Envoy Gateway's and Istio's defaults are known, and those of nginx's variables; any other field
//! that is called like a header that a policy looks at (`x-user-id`, `x_user_id`) is that header.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{Draft, LineError};
use crate::simulate::entry::Logged;
use crate::simulate::wanted::Wanted;

const MILLISECOND: f64 = 1e6;
const SECOND: f64 = 1e9;

pub(super) fn read(line: &[u8], wanted: &Wanted) -> Result<Draft, LineError> {
    let mut json = serde_json::Deserializer::from_slice(line);
    let read = Object(wanted).deserialize(&mut json);
    let draft = read.and_then(|draft| json.end().map(|()| draft));
    draft.map_err(|error| LineError::Json(error.to_string()))
}

struct Object<'a>(&'a Wanted);

impl<'de> DeserializeSeed<'de> for Object<'_> {
    type Value = Draft;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Draft, D::Error> {
        deserializer.deserialize_map(self)
    }
}

/// limiterd's own.
#[derive(Debug, Deserialize)]
struct RateLimit {
    #[serde(default)]
    decision: String,
    rule: Option<String>,
    descriptor: Option<String>,
}

impl<'de> Visitor<'de> for Object<'_> {
    type Value = Draft;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Draft, M::Error> {
        let mut draft = Draft::default();
        while let Some(Text(key)) = map.next_key::<Text<'de>>()? {
            let text = match &*key {
                "start_time" | "@timestamp" | "timestamp" | "time" | "time_iso8601"
                | "time_local" => &mut draft.time,
                "method" | ":method" | "request_method" => &mut draft.method,
                "x-envoy-origin-path"
                | "x-envoy-original-path"
                | "path"
                | ":path"
                | "request_uri" => &mut draft.target,
                ":authority" | "authority" | "host" | "http_host" => &mut draft.host,
                "client" => &mut draft.client,
                "downstream_remote_address" | "remote_addr" | "remote_address" => &mut draft.remote,
                "downstream_local_address" => &mut draft.local,
                "response_flags" => &mut draft.flags,
                "response_code_details" => &mut draft.details,
                "response_code" | "status" => {
                    let status = map.next_value::<Scalar<'de>>()?.number();
                    draft.status = status.and_then(whole).and_then(|n| u16::try_from(n).ok());
                    continue;
                }
                "duration" => {
                    draft.took = nanoseconds(map.next_value()?, MILLISECOND);
                    continue;
                }
                "request_time" => {
                    draft.took = nanoseconds(map.next_value()?, SECOND);
                    continue;
                }
                "rate_limit" => {
                    let said = map.next_value::<Option<RateLimit>>()?;
                    let over_limit = said
                        .as_ref()
                        .is_some_and(|one| one.decision == "over_limit");
                    let said = said.map(|one| (one.rule, one.descriptor));
                    let (rule, descriptor) = said.unwrap_or_default();
                    draft.logged = Some(Logged { over_limit, rule });
                    draft.descriptor = descriptor;
                    continue;
                }
                name => {
                    match self.0.field(name) {
                        Some(header) => {
                            let value = map.next_value::<Scalar<'de>>()?.text();
                            let header = header.clone();
                            draft.headers.extend(value.map(|value| (header, value)));
                        }
                        None => {
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                    continue;
                }
            };
            let value = map.next_value::<Scalar<'de>>()?.text();
            if text.is_none() {
                *text = value;
            }
        }
        // limiterd and Envoy write `null` and `-` for what a connection does not have.
        draft.connection = draft.method.as_deref().is_none_or(|method| method == "-")
            && (draft.local.is_some() || draft.remote.is_some());
        Ok(draft)
    }
}

/// A key, borrowed where it has no escapes.
struct Text<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Borrow;
        impl<'de> Visitor<'de> for Borrow {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Borrow)
    }
}

/// A value; one that is neither text nor number says nothing.
#[derive(Debug)]
enum Scalar<'a> {
    Text(Cow<'a, str>),
    Number(f64),
    Other,
}

impl<'de> Deserialize<'de> for Scalar<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyScalar)
    }
}

struct AnyScalar;

#[expect(
    clippy::cast_precision_loss,
    reason = "statuses and durations are small"
)]
impl<'de> Visitor<'de> for AnyScalar {
    type Value = Scalar<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Number(number as f64))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Number(number as f64))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Number(number))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Other)
    }

    fn visit_unit<E>(self) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Other)
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Scalar<'de>, M::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Scalar::Other)
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut seq: S) -> Result<Scalar<'de>, S::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Scalar::Other)
    }
}

impl Scalar<'_> {
    fn text(self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text.into_owned()),
            Self::Number(number) => Some(number.to_string()),
            Self::Other => None,
        }
    }

    fn number(self) -> Option<f64> {
        match self {
            Self::Text(text) => text.parse().ok(),
            Self::Number(number) => Some(number),
            Self::Other => None,
        }
    }
}

fn nanoseconds(value: Scalar<'_>, unit: f64) -> u64 {
    let number = value.number().map(|number| number * unit);
    number.and_then(whole).unwrap_or(0)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "what is no number of this range is none"
)]
fn whole(number: f64) -> Option<u64> {
    (0.0..1e18).contains(&number).then_some(number as u64)
}
