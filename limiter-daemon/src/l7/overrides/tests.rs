//! Own answers and what becomes of them; the upstream's are in `tests/proxy/overrides.rs`.

use http_body::Body as _;

use super::*;

const PLACE: Place = Place {
    tls: false,
    bind: std::net::SocketAddr::V4(std::net::SocketAddrV4::new(
        std::net::Ipv4Addr::LOCALHOST,
        8080,
    )),
};

fn asked(head: bool, grpc: bool) -> Asked {
    let request = Request::builder().uri("/a/b?q").header("host", "h");
    Asked {
        head,
        grpc,
        redirect: Some(request.body(()).unwrap()),
        prefix: Some(2),
    }
}

/// A refusal with `status`, as a rate limit leaves it.
fn refusal(status: u16) -> Response<Body> {
    let response = Response::builder()
        .status(status)
        .header("content-type", "text/plain")
        .header("connection", "close")
        .header("etag", "\"1\"")
        .header("retry-after", "3")
        .header("x-ratelimit-limit", "5");
    let body = Body::own(Bytes::from_static(b"no"));
    response.body(body).unwrap()
}

fn body_of(response: Response<Body>) -> String {
    let mut body = response.into_body();
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    let mut text = Vec::new();
    while let std::task::Poll::Ready(Some(Ok(frame))) =
        std::pin::Pin::new(&mut body).poll_frame(&mut cx)
    {
        text.extend_from_slice(frame.data_ref().unwrap());
    }
    String::from_utf8(text).unwrap()
}

fn given(statuses: &[std::ops::RangeInclusive<u16>], with: Replacement) -> ResponseOverride {
    ResponseOverride {
        statuses: statuses.to_vec(),
        source: ResponseSource::All,
        with,
    }
}

fn text(status: Option<u16>, body: Option<&'static str>) -> Replacement {
    Replacement::Response {
        status: status.map(|status| StatusCode::from_u16(status).unwrap()),
        content_type: None,
        body: body.map(|body| Bytes::from_static(body.as_bytes())),
        headers: HeaderChanges::default(),
    }
}

fn replaced(overrides: &[ResponseOverride], asked: &Asked, status: u16) -> Response<Body> {
    replace(overrides, asked, &PLACE, refusal(status), None).0
}

#[test]
fn the_first_that_is_met_is_applied() {
    let mut backends = given(&[400..=599], text(None, Some("backend")));
    backends.source = ResponseSource::Backend;
    let mut local = given(&[400..=428, 429..=429], text(None, Some("local")));
    local.source = ResponseSource::Local;
    let all = given(&[100..=599], text(None, Some("all")));
    let overrides = [backends, local, all];
    let http = asked(false, false);
    for (status, wanted) in [(429, "local"), (400, "local"), (503, "all"), (101, "no")] {
        assert_eq!(
            body_of(replaced(&overrides, &http, status)),
            wanted,
            "{status}"
        );
    }
    assert_eq!(body_of(replaced(&overrides[..1], &http, 503)), "no");
}

#[test]
fn a_body_takes_its_description_with_it() {
    let changes = HeaderChanges {
        set: vec![("x-set".parse().unwrap(), HeaderValue::from_static("1"))],
        add: vec![(
            "retry-after".parse().unwrap(),
            HeaderValue::from_static("9"),
        )],
        remove: vec!["connection".parse().unwrap()],
    };
    let with = Replacement::Response {
        status: Some(StatusCode::SERVICE_UNAVAILABLE),
        content_type: Some(HeaderValue::from_static("application/json")),
        body: Some(Bytes::from_static(b"{}")),
        headers: changes,
    };
    let response = replaced(&[given(&[429..=429], with)], &asked(false, false), 429);
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    let headers = response.headers();
    assert_eq!(headers["content-type"], "application/json");
    assert_eq!(headers["x-set"], "1");
    assert_eq!(headers["x-ratelimit-limit"], "5");
    assert_eq!(headers.get_all("retry-after").iter().count(), 2);
    assert!(!headers.contains_key("etag") && !headers.contains_key("connection"));
    assert_eq!(body_of(response), "{}");

    // Without a body of its own, an answer keeps the one it has.
    let response = replaced(
        &[given(&[429..=429], text(Some(418), None))],
        &asked(false, false),
        429,
    );
    assert_eq!(response.status(), StatusCode::IM_A_TEAPOT);
    assert_eq!(response.headers()["etag"], "\"1\"");
    assert_eq!(body_of(response), "no");
}

#[test]
fn answers_without_a_body_get_none() {
    let long = given(&[429..=429, 304..=304], text(None, Some("a body")));
    let response = replaced(std::slice::from_ref(&long), &asked(true, false), 429);
    assert_eq!(response.headers()["content-length"], "6");
    assert_eq!(body_of(response), "");
    let response = replaced(&[long], &asked(false, false), 304);
    assert!(!response.headers().contains_key("content-length"));
    assert_eq!(body_of(response), "");
    let gone = given(&[429..=429], text(Some(204), None));
    let response = replaced(&[gone], &asked(false, false), 429);
    assert_eq!(response.status(), StatusCode::NO_CONTENT);
    assert!(!response.headers().contains_key("etag"));
    assert_eq!(body_of(response), "");
}

#[test]
fn redirects_keep_what_is_not_of_the_answer() {
    let with = Replacement::Redirect(Redirect {
        scheme: Some("https".into()),
        hostname: Some("else.where".into()),
        path: None,
        port: None,
        status: StatusCode::FOUND,
    });
    let overrides = [given(&[429..=429], with)];
    let response = replaced(&overrides, &asked(false, false), 429);
    assert_eq!(response.status(), StatusCode::FOUND);
    let headers = response.headers();
    assert_eq!(headers["location"], "https://else.where/a/b?q");
    for kept in ["retry-after", "x-ratelimit-limit", "connection"] {
        assert!(headers.contains_key(kept), "{kept}");
    }
    assert!(!headers.contains_key("etag") && !headers.contains_key("content-type"));
    assert_eq!(body_of(response), "");
    // Nobody follows it in gRPC.
    let response = replaced(&overrides, &asked(false, true), 429);
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
}

#[test]
fn grpc_calls_get_the_status_in_grpc_and_no_body() {
    let mut refused = refusal(200);
    respond::set_grpc_status(refused.headers_mut(), HeaderValue::from_static("14"));
    refused.headers_mut().insert(
        respond::GRPC_MESSAGE,
        HeaderValue::from_static("local_rate_limited"),
    );
    let overrides = [given(&[429..=429], text(Some(403), Some("{}")))];
    let limited = Some(StatusCode::TOO_MANY_REQUESTS);
    let (response, _) = replace(&overrides, &asked(false, true), &PLACE, refused, limited);
    assert_eq!(response.status(), StatusCode::OK);
    let headers = response.headers();
    assert_eq!(headers["grpc-status"], "7");
    assert_eq!(headers["grpc-message"], "local_rate_limited");
    assert_eq!(headers["content-type"], "application/grpc");
    assert_eq!(headers["retry-after"], "3");
    assert_eq!(body_of(response), "");
}
