//! Numbers in JSON, whole and in event streams, cut anywhere.

use http::HeaderValue;

use super::*;

fn path(text: &str) -> Vec<String> {
    text.split('.').map(str::to_owned).collect()
}

#[test]
fn numbers_by_path() {
    for (document, at, wanted) in [
        (r#"{"n":7}"#, "n", Some(7)),
        (r#"{"a":{"n":7},"n":8}"#, "a.n", Some(7)),
        (r#"{"a":{"n":7},"n":8}"#, "n", Some(8)),
        (r#"{"a":[{"n":7}]}"#, "a.n", None),
        (r#"{"n":1,"n":2}"#, "n", Some(2)),
        (r#"{"n":1.2}"#, "n", Some(2)),
        (r#"{"n":-1}"#, "n", None),
        (r#"{"n":"7"}"#, "n", None),
        (r#"{"n":null}"#, "n", None),
        (r#"{"n":{"n":3}}"#, "n", None),
        (r#"{"\u006e":5}"#, "n", Some(5)),
        (r#"{"n":5,"rest":"cut o"#, "n", Some(5)),
        (r#"{"n":18446744073709551615}"#, "n", Some(u64::MAX)),
        (r#"{"n":1e300}"#, "n", Some(u64::MAX)),
        ("[1,2]", "n", None),
        ("", "n", None),
    ] {
        let found = number_at(document.as_bytes(), &path(at));
        assert_eq!(found, wanted, "{document} {at}");
    }
}

fn watch(kind: &'static str, max: usize) -> Option<Watch> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    Watch::for_response(&headers, max)
}

/// The documents in a body that comes in pieces of so many bytes.
fn documents(kind: &'static str, max: usize, body: &[u8], piece: usize) -> Vec<String> {
    let mut watch = watch(kind, max).unwrap();
    let mut documents = Vec::new();
    let mut found = |document: &[u8]| {
        documents.push(String::from_utf8(document.to_vec()).unwrap());
    };
    for piece in body.chunks(piece) {
        watch.feed(piece, &mut found);
        assert!(watch.kept.len() <= max + 2);
    }
    watch.end(&mut found);
    documents
}

#[test]
fn only_plain_json_and_event_streams_are_looked_at() {
    for (kind, wanted) in [
        ("application/json", true),
        ("Application/Problem+JSON; charset=utf-8", true),
        ("text/event-stream;charset=utf-8", true),
        ("text/plain", false),
        ("application/grpc", false),
    ] {
        assert_eq!(watch(kind, 9).is_some(), wanted, "{kind}");
    }
}

#[test]
fn a_body_is_kept_up_to_its_bound() {
    for piece in 1..9 {
        assert_eq!(
            documents("text/json+json", 5, b"12345678", piece),
            ["12345"]
        );
    }
}

#[test]
fn events_are_found_however_the_stream_is_cut() {
    let stream =
        b": hello\n\ndata: {\"n\":1}\n\nevent: x\r\ndata:{\"n\":\r\ndata: 2}\r\nid: 4\r\n\r\n\
        data\rdata: a\r\rdata: [DONE]\n\n\n\ndata: {\"n\":3}";
    let wanted = [
        "{\"n\":1}\n",
        "{\"n\":\n2}\n",
        "a\n",
        "[DONE]\n",
        "{\"n\":3}\n",
    ];
    for piece in 1..stream.len() {
        assert_eq!(
            documents("text/event-stream", 64, stream, piece),
            wanted,
            "{piece}"
        );
    }
}

#[test]
fn an_event_beyond_the_bound_is_left_out_and_the_next_is_not() {
    let stream = b"data: 0123456789\n\ndata: ok\n\ndata: 012345\ndata: 6789\n\ndata: 9\n\n";
    for piece in 1..stream.len() {
        let found = documents("text/event-stream", 14, stream, piece);
        assert_eq!(found, ["ok\n", "9\n"], "{piece}");
    }
}
