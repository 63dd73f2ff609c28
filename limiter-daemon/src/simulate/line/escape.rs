//! What logs write instead of quotes, backslashes and unprintable bytes, and back.

use http::HeaderName;

use crate::simulate::wanted::Wanted;

/// The text that was written with `\"`, `\\`, `\xHH` (nginx, Apache) or `\u{H}` (limiterd) in it.
/// Other backslashes stand for themselves. What is no UTF-8 is replaced.
pub(super) fn undo(written: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(written.len());
    let mut rest = written;
    while let Some((&first, after)) = rest.split_first() {
        let (taken, one) = match (first, after.first()) {
            (b'\\', Some(&next)) => escaped(next, after),
            _ => (1, None),
        };
        match one {
            Some(Decoded::Byte(byte)) => bytes.push(byte),
            Some(Decoded::Char(c)) => {
                bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes())
            }
            None => bytes.extend_from_slice(rest.get(..taken).unwrap_or_default()),
        }
        rest = rest.get(taken..).unwrap_or_default();
    }
    String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

enum Decoded {
    Byte(u8),
    Char(char),
}

/// How many bytes an escape takes, with its backslash, and what it stands for; `after` begins behind
/// the backslash.
fn escaped(next: u8, after: &[u8]) -> (usize, Option<Decoded>) {
    let hex = |digits: &[u8]| {
        let digits = std::str::from_utf8(digits).ok()?;
        u32::from_str_radix(digits, 16).ok()
    };
    match next {
        b'"' | b'\\' | b'\'' => (2, Some(Decoded::Byte(next))),
        b'n' => (2, Some(Decoded::Byte(b'\n'))),
        b'r' => (2, Some(Decoded::Byte(b'\r'))),
        b't' => (2, Some(Decoded::Byte(b'\t'))),
        b'x' => match after.get(1..3).and_then(hex).map(u8::try_from) {
            Some(Ok(byte)) => (4, Some(Decoded::Byte(byte))),
            _ => (1, None),
        },
        b'u' => {
            let end = after.iter().take(10).position(|byte| *byte == b'}');
            let digits = end.and_then(|end| after.get(1..end)?.strip_prefix(b"{"));
            match (end, digits.and_then(hex).and_then(char::from_u32)) {
                (Some(end), Some(c)) => (end + 2, Some(Decoded::Char(c))),
                _ => (1, None),
            }
        }
        _ => (1, None),
    }
}

/// The headers among the values that limiterd's log says a bucket is for: `name=value,name=value`.
/// A comma only ends a value where a name that is looked for follows; values are cut after 128 bytes
/// there, and secret ones left out.
pub(super) fn entries(descriptor: &str, wanted: &Wanted) -> Vec<(HeaderName, String)> {
    let mut starts: Vec<(usize, usize, Option<&HeaderName>)> = Vec::new();
    let pieces = std::iter::once(0).chain(descriptor.match_indices(',').map(|(at, _)| at + 1));
    for at in pieces {
        let rest = descriptor.get(at..).unwrap_or_default();
        let Some((name, _)) = rest.split_once('=') else {
            continue;
        };
        let header = wanted.named(name);
        if header.is_some() || name == "source" || at == 0 {
            starts.push((at, name.len() + 1, header));
        }
    }
    let ends = starts.iter().skip(1).map(|(at, ..)| at - 1);
    let ends: Vec<usize> = ends.chain([descriptor.len()]).collect();
    let value = |((at, name, header), end): (&(usize, usize, Option<&HeaderName>), usize)| {
        let text = descriptor.get(at + name..end)?;
        let header = (*header)?.clone();
        (text != "(redacted)").then(|| (header, undo(text.as_bytes())))
    };
    starts.iter().zip(ends).filter_map(value).collect()
}
