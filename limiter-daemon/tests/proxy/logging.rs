//! A record of each request, whatever became of it.

use std::time::Duration;

use limiter_daemon::l7::record::Completion;

use super::client::{Client, get};
use super::plans::plan;
use super::stage::{Stage, address};
use super::upstream::{Upstream, ok, read};

#[test]
fn every_request_leaves_a_record() {
    let upstream = Upstream::new(|mut client, _| {
        while let Some(seen) = read(&mut client) {
            match seen.target() {
                "GET /half" => {
                    client.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf");
                    return;
                }
                "GET /endless" => {
                    client
                        .send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nsome\r\n");
                    let _gone = client.is_closed();
                    return;
                }
                "GET /never" => {
                    let _gone = client.is_closed();
                    return;
                }
                _ => client.send(ok(b"answer")),
            }
        }
    });
    let bind = address();
    let stage = Stage::new(&plan(bind, upstream.address));
    let mut client = Client::connect(bind);
    client.send("POST /whole?q HTTP/1.1\r\nhost: h\r\ncontent-length: 4\r\n\r\nbody");
    assert_eq!(client.answer().unwrap().text(), "answer");
    let line = &stage.log.lines(1)[0];
    assert_eq!(line.target, "/whole?q");
    assert_eq!((line.status, line.received, line.sent), (200, 4, 6));
    assert_eq!(line.upstream, Some(upstream.address.to_string()));
    assert_eq!(
        (line.completion, line.refused),
        (Completion::Complete, None)
    );

    client.send("GET /half HTTP/1.1\r\nhost: h\r\n\r\n");
    let line = &stage.log.lines(2)[1];
    assert_eq!((line.completion, line.sent), (Completion::UpstreamBroke, 4));

    let mut client = Client::connect(bind);
    client.send("GET /endless HTTP/1.1\r\nhost: h\r\n\r\n");
    client.head().unwrap();
    drop(client);
    let line = &stage.log.lines(3)[2];
    assert_eq!((line.completion, line.status), (Completion::Cancelled, 200));

    let mut client = Client::connect(bind);
    client.send("GET /never HTTP/1.1\r\nhost: h\r\n\r\n");
    // Time for it to be on its way, so that there is something to cancel; either order is right.
    std::thread::sleep(Duration::from_millis(20));
    drop(client);
    let line = &stage.log.lines(4)[3];
    assert_eq!(line.completion, Completion::Cancelled);

    assert_eq!(get(bind, "/..", "").status, 400);
    let line = &stage.log.lines(5)[4];
    assert_eq!(
        (line.refused, line.route.as_deref()),
        (Some("bad_request"), None)
    );
    assert_eq!(line.completion, Completion::Complete);
}
