//! The question that is asked over and over, as a gRPC message.

/// One `ShouldRateLimit` question (envoy.service.ratelimit.v3) about `domain` with a descriptor of
/// these entries, after the five bytes that gRPC puts before each message.
pub(super) fn message(domain: &str, entries: &[(&str, &str)]) -> Vec<u8> {
    let entry = |(key, value): &(&str, &str)| field(1, &[text(1, key), text(2, value)].concat());
    let descriptor = field(2, &entries.iter().flat_map(entry).collect::<Vec<_>>());
    let message = [text(1, domain), descriptor].concat();
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    let mut framed = vec![0];
    framed.extend(length.to_be_bytes());
    framed.extend(message);
    framed
}

fn text(number: u8, text: &str) -> Vec<u8> {
    field(number, text.as_bytes())
}

/// A field of bytes, shorter than 128 of them: its length is one byte.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let length = u8::try_from(bytes.len()).unwrap_or(u8::MAX).min(127);
    let mut field = vec![number << 3 | 2, length];
    field.extend(bytes.iter().take(usize::from(length)));
    field
}

#[cfg(test)]
mod tests {
    use super::message;

    #[test]
    fn a_message_is_as_protobuf_has_it() {
        let wanted = [
            [0, 0, 0, 0, 13].as_slice(),
            b"\x0a\x01d",
            b"\x12\x08\x0a\x06\x0a\x01k\x12\x01v",
        ];
        assert_eq!(message("d", &[("k", "v")]), wanted.concat());
    }
}
