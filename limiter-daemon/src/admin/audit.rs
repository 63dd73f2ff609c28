//! Who changed what by the admin listener, or tried to: a line in the log (target `audit`) for each
//! such request, and the latest of them in memory for `GET /audit`.
//!
//! What was refused for who asked is kept apart from what was carried out, and logged at a bounded
//! rate: somebody without any right can neither push out what others did nor fill the disk.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;
use http::{Method, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use serde::{Deserialize, Serialize};

use super::guard::{Denied, Peer, Reason, Who};

/// Entries that are kept of what was carried out or went wrong, and as many of what was refused.
const KEPT: usize = 256;
/// Bytes of a path, of what was to be done, and of a reason.
const MAX_TEXT: usize = 300;
/// Lines about refusals that are logged in a second.
const LINES: u32 = 10;
const SECOND: u64 = 1_000_000_000;

/// What a handler says that it did, for people. It goes with its response.
#[derive(Clone, Debug)]
pub(super) struct Deed(pub(super) String);

/// How it ended.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Carried out.
    Done,
    /// He may, and what he asked for is wrong or could not be done.
    Failed,
    /// He may not.
    Refused,
}

impl Outcome {
    const ALL: [Self; 3] = [Self::Done, Self::Failed, Self::Refused];

    /// In one word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Refused => "refused",
        }
    }
}

/// A request to change something.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct EntryView {
    /// Counts all, from 1.
    pub number: u64,
    /// RFC 3339, UTC.
    pub at: String,
    /// The name of a token or certificate, a user id, or an address.
    pub who: String,
    /// Which of them: `token`, `certificate`, `uid` or `address`.
    pub by: String,
    /// Where the connection came from; empty: the Unix socket.
    pub address: String,
    pub method: String,
    /// Path and query.
    pub path: String,
    /// What was done, in words; empty: see the path.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub what: String,
    pub outcome: Outcome,
    pub status: u16,
    /// Why it was refused or failed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// The latest requests, the last one first.
#[derive(Debug, Default, Deserialize, Serialize)]
pub struct AuditView {
    pub entries: Vec<EntryView>,
}

/// The record.
#[derive(Debug, Default)]
pub struct Audit {
    kept: Mutex<Kept>,
    writes: [AtomicU64; Outcome::ALL.len()],
    denied: [AtomicU64; Reason::ALL.len()],
}

#[derive(Debug, Default)]
struct Kept {
    numbers: u64,
    heard: VecDeque<EntryView>,
    refused: VecDeque<EntryView>,
    lines: Lines,
}

/// How many lines may still be written.
#[derive(Debug, Default)]
struct Lines {
    /// The second that is counted, by the monotonic clock.
    second: u64,
    written: u32,
    left_out: u64,
}

impl Lines {
    /// How many were left out before this one; `None`: so is this one.
    const fn admit(&mut self, now: u64) -> Option<u64> {
        let second = now / SECOND;
        if second != self.second {
            self.second = second;
            self.written = 0;
        }
        if self.written >= LINES {
            self.left_out += 1;
            return None;
        }
        self.written += 1;
        Some(std::mem::replace(&mut self.left_out, 0))
    }
}

/// Who asks for what.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) peer: Peer,
}

/// When: by both clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct At {
    pub(super) wall: SystemTime,
    /// Nanoseconds, monotonic.
    pub(super) now: u64,
}

impl Audit {
    /// Somebody was refused something; `writes`: what would have changed something.
    pub(super) fn refused(&self, denied: &Denied, writes: bool, request: &Request, at: At) {
        let counts = Reason::ALL.iter().zip(&self.denied);
        for (_, count) in counts.filter(|(reason, _)| **reason == denied.reason) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        if writes {
            let status = denied.reason.status();
            let reason = denied.reason.why().to_owned();
            let entry = entry(&denied.who, request, status, String::new(), reason, at.wall);
            self.keep(
                EntryView {
                    outcome: Outcome::Refused,
                    ..entry
                },
                at.now,
            );
        }
    }

    /// What came of somebody's request to change something.
    pub(super) async fn heard(
        &self,
        who: &Who,
        request: &Request,
        response: &Response<Full<Bytes>>,
        at: At,
    ) {
        let status = response.status();
        let reason = if status.is_success() {
            String::new()
        } else {
            first_line(response.body().clone()).await
        };
        let what = response.extensions().get::<Deed>();
        let what = what.map(|deed| deed.0.clone()).unwrap_or_default();
        self.keep(entry(who, request, status, what, reason, at.wall), at.now);
    }

    fn keep(&self, mut entry: EntryView, now: u64) {
        let outcomes = Outcome::ALL.iter().zip(&self.writes);
        for (_, count) in outcomes.filter(|(outcome, _)| **outcome == entry.outcome) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.numbers += 1;
        entry.number = kept.numbers;
        let refused = entry.outcome == Outcome::Refused;
        let left_out = if refused {
            kept.lines.admit(now)
        } else {
            Some(0)
        };
        if let Some(left_out) = left_out {
            log(&entry, left_out);
        }
        let ring = if refused {
            &mut kept.refused
        } else {
            &mut kept.heard
        };
        if ring.len() >= KEPT {
            ring.pop_front();
        }
        ring.push_back(entry);
    }

    /// What is kept.
    pub(super) fn view(&self) -> AuditView {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let mut entries: Vec<_> = kept.heard.iter().chain(&kept.refused).cloned().collect();
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.number));
        AuditView { entries }
    }

    /// Requests to change something, by outcome.
    pub(super) fn writes(&self) -> impl Iterator<Item = ([&'static str; 1], u64)> {
        let counts = Outcome::ALL.iter().zip(&self.writes);
        counts.map(|(outcome, count)| ([outcome.name()], count.load(Ordering::Relaxed)))
    }

    /// Requests that were refused for who asked, by reason.
    pub(super) fn denied(&self) -> impl Iterator<Item = ([&'static str; 1], u64)> {
        let counts = Reason::ALL.iter().zip(&self.denied);
        counts.map(|(reason, count)| ([reason.name()], count.load(Ordering::Relaxed)))
    }
}

fn entry(
    who: &Who,
    request: &Request,
    status: StatusCode,
    what: String,
    reason: String,
    at: SystemTime,
) -> EntryView {
    let address = match request.peer {
        Peer::User(_) => String::new(),
        Peer::Address { of, .. } => of.to_string(),
    };
    EntryView {
        number: 0,
        at: humantime::format_rfc3339_millis(at).to_string(),
        who: cut(&who.name()),
        by: who.by().to_owned(),
        address,
        method: cut(request.method.as_str()),
        path: cut(&request.path),
        what: cut(&what),
        outcome: if status.is_success() {
            Outcome::Done
        } else {
            Outcome::Failed
        },
        status: status.as_u16(),
        reason: cut(&reason),
    }
}

/// Of bounded length, on one line.
fn cut(text: &str) -> String {
    let mut end = text.len().min(MAX_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let text = text.get(..end).unwrap_or_default();
    text.replace(char::is_control, " ")
}

async fn first_line(body: Full<Bytes>) -> String {
    // It lies in memory; there is nothing that could fail.
    let Ok(body) = body.collect().await;
    let text = String::from_utf8_lossy(&body.to_bytes()).into_owned();
    text.lines().next().unwrap_or_default().to_owned()
}

fn log(entry: &EntryView, left_out: u64) {
    let EntryView {
        number,
        who,
        by,
        address,
        method,
        path,
        what,
        outcome,
        status,
        reason,
        ..
    } = entry;
    tracing::info!(
        target: "audit",
        number, who, by, address, method, path, what, outcome = outcome.name(), status, reason,
        "admin request"
    );
    if left_out > 0 {
        tracing::info!(target: "audit", left_out, "refused admin requests without a line");
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn request(path: &str) -> Request {
        Request {
            method: Method::POST,
            path: path.to_owned(),
            peer: Peer::User(7),
        }
    }

    fn at(seconds: u64) -> At {
        At {
            wall: UNIX_EPOCH + Duration::from_secs(seconds),
            now: seconds * SECOND,
        }
    }

    fn denied() -> Denied {
        Denied {
            who: Who::Address([192, 0, 2, 7].into()),
            reason: Reason::NotFromThere,
        }
    }

    fn answered(status: StatusCode, body: &str) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(Bytes::from(body.to_owned())));
        *response.status_mut() = status;
        response
    }

    #[tokio::test]
    async fn what_was_done_stays_however_much_is_refused() {
        let audit = Audit::default();
        let who = Who::Token("oncall".to_owned());
        let mut done = answered(StatusCode::OK, "{}");
        done.extensions_mut()
            .insert(Deed("block 192.0.2.0/24".to_owned()));
        audit.heard(&who, &request("/blocks"), &done, at(1)).await;
        let wrong = answered(StatusCode::BAD_REQUEST, "seconds: from 1\nmore");
        audit.heard(&who, &request("/blocks"), &wrong, at(2)).await;
        for _ in 0..1000 {
            audit.refused(&denied(), true, &request("/blocks?\u{7}a"), at(3));
        }
        audit.refused(&denied(), false, &request("/config"), at(3));

        let entries = audit.view().entries;
        assert_eq!(entries.len(), KEPT + 2);
        let last = &entries[0];
        assert_eq!((last.number, last.outcome), (1002, Outcome::Refused));
        assert_eq!(
            (last.who.as_str(), last.by.as_str()),
            ("192.0.2.7", "address")
        );
        assert_eq!((last.path.as_str(), last.status), ("/blocks? a", 403));
        let [failed, first] = &entries[KEPT..] else {
            panic!("{entries:?}");
        };
        assert_eq!(
            (first.what.as_str(), first.at.as_str(), first.outcome),
            (
                "block 192.0.2.0/24",
                "1970-01-01T00:00:01.000Z",
                Outcome::Done
            )
        );
        assert_eq!(
            (failed.reason.as_str(), failed.outcome),
            ("seconds: from 1", Outcome::Failed)
        );
        let writes: Vec<_> = audit.writes().collect();
        assert_eq!(
            writes,
            [(["done"], 1), (["failed"], 1), (["refused"], 1000)]
        );
        let not = audit
            .denied()
            .find(|(reason, _)| reason == &["not_from_there"]);
        assert_eq!(not, Some((["not_from_there"], 1001)));
    }

    #[test]
    fn lines_about_refusals_are_bounded_and_those_left_out_are_counted() {
        let mut lines = Lines::default();
        let written = (0..100).filter(|_| lines.admit(5 * SECOND + 1).is_some());
        assert_eq!(written.count(), LINES as usize);
        assert_eq!(lines.admit(6 * SECOND), Some(90));
        assert_eq!(lines.admit(6 * SECOND), Some(0));
    }

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!(cut(&"ä".repeat(MAX_TEXT)).len(), MAX_TEXT);
        let odd = format!("a{}", "ä".repeat(MAX_TEXT));
        assert_eq!(cut(&odd).len(), MAX_TEXT - 1);
    }
}
