//! A number in the JSON of a response, found while the response passes by.
//!
//! Of a body as a whole the first `max_bytes` are kept and looked at when it is over; of a
//! `text/event-stream` every event by itself, so that what is kept is one event of at most so many
//! bytes. Nothing is held back for it. What is compressed or no JSON is not looked at.

use std::cell::Cell;
use std::fmt;

use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// A body being watched.
#[derive(Debug)]
pub(super) struct Watch {
    kept: Vec<u8>,
    max: usize,
    stream: Option<Lines>,
}

/// Where in an event stream it is.
#[derive(Debug, Default)]
struct Lines {
    /// Where the line begins in what is kept; before it is the data of the event.
    line: usize,
    /// Bytes of the line so far.
    seen: usize,
    /// Bytes of the event were left out.
    cut: bool,
    /// The last byte was a carriage return: a line feed after it belongs to it.
    returned: bool,
}

impl Watch {
    /// `None`: there is nothing to look at in the body of such a response.
    pub(super) fn for_response(headers: &HeaderMap, max: usize) -> Option<Self> {
        let encoded = headers.get_all(CONTENT_ENCODING).iter();
        if encoded.into_iter().any(|coding| coding != "identity") {
            return None;
        }
        let kind = headers.get(CONTENT_TYPE)?.to_str().ok()?;
        let kind = kind.split(';').next().unwrap_or_default().trim();
        let kind = kind.to_ascii_lowercase();
        let stream = match kind.as_str() {
            "text/event-stream" => Some(Lines::default()),
            json if json == "application/json" || json.ends_with("+json") => None,
            _ => return None,
        };
        Some(Self {
            kept: Vec::new(),
            max,
            stream,
        })
    }

    /// Calls `found` with every event that `data` ends.
    pub(super) fn feed(&mut self, data: &[u8], found: &mut impl FnMut(&[u8])) {
        let Some(lines) = &mut self.stream else {
            let room = self.max.saturating_sub(self.kept.len());
            self.kept.extend_from_slice(&data[..data.len().min(room)]);
            return;
        };
        for piece in data.split_inclusive(|byte| matches!(byte, b'\n' | b'\r')) {
            let (text, end) = match piece {
                [text @ .., end @ (b'\n' | b'\r')] => (text, Some(*end)),
                text => (text, None),
            };
            let second_half = text.is_empty() && end == Some(b'\n') && lines.returned;
            lines.returned = end == Some(b'\r');
            if second_half {
                continue;
            }
            let room = self.max.saturating_sub(self.kept.len());
            lines.seen += text.len();
            lines.cut |= text.len() > room;
            self.kept.extend_from_slice(&text[..text.len().min(room)]);
            if end.is_some() {
                lines.end(&mut self.kept, found);
            }
        }
    }

    /// Calls `found` with what is left. An event that was not ended is none (as the standard has it),
    /// but an upstream that ends with it means it.
    pub(super) fn end(&mut self, found: &mut impl FnMut(&[u8])) {
        match &mut self.stream {
            None => found(&self.kept),
            Some(lines) => {
                lines.end(&mut self.kept, found);
                lines.end(&mut self.kept, found);
            }
        }
        self.kept.clear();
    }
}

impl Lines {
    /// The line is over: an empty one ends the event, of one with data the data is kept.
    fn end(&mut self, kept: &mut Vec<u8>, found: &mut impl FnMut(&[u8])) {
        if std::mem::take(&mut self.seen) == 0 {
            if !kept.is_empty() && !self.cut {
                found(kept);
            }
            kept.clear();
            self.line = 0;
            self.cut = false;
            return;
        }
        let data = kept[self.line..].strip_prefix(b"data:");
        let data = data.map(|data| data.strip_prefix(b" ").unwrap_or(data).len());
        match data {
            Some(length) => {
                let from = kept.len() - length;
                kept.copy_within(from.., self.line);
                kept.truncate(self.line + length);
                kept.push(b'\n');
            }
            None => kept.truncate(self.line),
        }
        self.line = kept.len();
    }
}

/// The number at `path` of a JSON document, or of what there is of one; `None`: there is none, or it
/// is negative. A fraction is rounded up. Of several of the same name the last counts.
pub(super) fn number_at(document: &[u8], path: &[String]) -> Option<u64> {
    let found = Cell::new(None);
    let mut reader = serde_json::Deserializer::from_slice(document);
    // A document that is cut off may have had the number before.
    let _cut_off = At {
        path,
        found: &found,
    }
    .deserialize(&mut reader);
    found.get()
}

/// Looks for the number in a value.
#[derive(Clone, Copy)]
struct At<'a> {
    path: &'a [String],
    found: &'a Cell<Option<u64>>,
}

impl At<'_> {
    fn number(&self, number: Option<u64>) {
        if self.path.is_empty() && number.is_some() {
            self.found.set(number);
        }
    }
}

impl<'de> DeserializeSeed<'de> for At<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for At<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<(), E> {
        self.number(Some(number));
        Ok(())
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<(), E> {
        self.number(u64::try_from(number).ok());
        Ok(())
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<(), E> {
        self.number(whole(number));
        Ok(())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let Some((name, path)) = self.path.split_first() else {
            while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            return Ok(());
        };
        while let Some(wanted) = entries.next_key_seed(Named(name))? {
            if wanted {
                entries.next_value_seed(At { path, ..self })?;
            } else {
                entries.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

/// A number that is not negative, rounded up.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "checked; `as` saturates"
)]
fn whole(number: f64) -> Option<u64> {
    (number >= 0.0).then(|| number.ceil() as u64)
}

/// Whether a key has this name.
struct Named<'a>(&'a str);

impl<'de> DeserializeSeed<'de> for Named<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Named<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<bool, E> {
        Ok(name == self.0)
    }
}

#[cfg(test)]
mod tests;
