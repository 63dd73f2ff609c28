//! What clients see of a backend that misbehaves, and that nothing of what their requests took is lost.

use std::io::{ErrorKind, Read as _};
use std::net::{Shutdown, TcpStream};

use anyhow::{Context as _, Result, ensure};
use tests::daemon::eventually;
use tests::netns::Netns;
use tests::raw::Raw;
use tests::scripted::{Counts, Script, Scripted};

use super::support::{Host, stage, told};

/// More than sockets and buffers on the way hold.
const LONG: usize = 32 << 20;

/// A backend, and a host without retries to it.
fn with_backend(test: impl FnOnce(&Host<'_>, &Scripted) -> Result<()>) -> Result<()> {
    let netns = Netns::new("failing")?;
    let backend = Scripted::start(&netns, "127.0.0.1:3001")?;
    let spec = "  circuitBreaker: {maxParallelRequests: 8, maxConnections: 8}\n";
    let scene = stage(netns, &[("failing", &[3001], spec)])?;
    let host = Host::new(&scene, "failing");
    test(&host, &backend)
}

/// Nothing is under way, what the daemon takes for connections are those that the backend has, no more
/// of them than before, and the backend is asked as if nothing had happened.
fn recovers(host: &Host<'_>, backend: &Scripted, before: Counts) -> Result<()> {
    host.rests()?;
    eventually("the connections to be what they were", || {
        let open = backend.counts().open;
        let known = host.metric("upstream_cx_active")?;
        Ok((open <= before.open && known == f64::from(u32::try_from(open)?)).then_some(()))
    })?;
    backend.plays(Script::Echo);
    let answer = host.ask("PUT /", "", "hello")?;
    ensure!(
        (answer.status, answer.body.as_str()) == (200, "hello"),
        "{answer:?}"
    );
    Ok(())
}

#[test]
fn without_an_answer_the_client_is_told_so() -> Result<()> {
    with_backend(|host, backend| {
        for script in [
            Script::Close,
            Script::Reset,
            Script::HalfClose,
            Script::Garbage,
            Script::FloodHead,
        ] {
            // At first on a new connection, and then on ones that had answered before.
            for (line, body) in [("GET /", ""), ("POST /", "body")].repeat(3) {
                let before = backend.counts();
                backend.plays(script);
                let answer = host
                    .ask(line, "", body)
                    .with_context(|| format!("{script:?}"))?;
                let seen = (answer.status, answer.header("x-envoy-overloaded"));
                assert_eq!(seen, (502, String::new()), "{script:?} {answer:?}");
                recovers(host, backend, before).with_context(|| format!("{script:?}"))?;
            }
        }
        Ok(())
    })
}

#[test]
fn an_answer_that_breaks_off_breaks_off_for_the_client() -> Result<()> {
    with_backend(|host, backend| {
        for script in [Script::HalfAnswer, Script::ResetAnswer].repeat(2) {
            let before = backend.counts();
            backend.plays(script);
            let mut client = host.send("GET /", "", "")?;
            match client.answer() {
                Ok(answer) => panic!("{script:?}: {answer:?}"),
                Err(broken) => {
                    let kind = broken.downcast_ref().map(std::io::Error::kind);
                    let ended = [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset];
                    assert!(kind.is_none_or(|kind| ended.contains(&kind)), "{broken:?}");
                }
            }
            recovers(host, backend, before)?;
        }
        Ok(())
    })
}

#[test]
fn who_leaves_a_backend_that_stalls_or_floods_leaves_nothing_behind() -> Result<()> {
    with_backend(|host, backend| {
        for script in [
            Script::Stall,
            Script::StallAnswer,
            Script::FloodBody,
            Script::FloodContinue,
        ] {
            backend.plays(script);
            let before = backend.counts();
            let mut clients: Vec<_> = (0..8)
                .map(|_| host.send("GET /", "", ""))
                .collect::<Result<_>>()?;
            backend.came(before.requests + 8)?;
            assert!(host.get()?.is_overloaded(), "{script:?}");
            for client in &mut clients {
                match script {
                    Script::StallAnswer => {
                        client.head()?.context("closed")?;
                        assert_eq!(client.bytes(5)?, b"half!");
                    }
                    Script::FloodBody => {
                        client.head()?.context("closed")?;
                        let mut bytes = 0;
                        while bytes < 1 << 20 {
                            bytes += client.chunk()?.len();
                        }
                    }
                    _ => {}
                }
                client.get_ref().shutdown(Shutdown::Both)?;
            }
            recovers(host, backend, before).with_context(|| format!("{script:?}"))?;
        }
        Ok(())
    })
}

/// Sends a long body for as long as it is taken, and gives what is answered.
fn upload(host: &Host<'_>) -> Result<u16> {
    let client = host.connect()?;
    let mut writes = client.get_ref().try_clone()?;
    let mut client: Raw<TcpStream> = client;
    client.send(format!(
        "PUT / HTTP/1.1\r\nhost: failing.test\r\ncontent-length: {LONG}\r\n\r\n"
    ))?;
    let sends = std::thread::spawn(move || {
        let piece = vec![b'.'; 64 << 10];
        for _ in 0..LONG / piece.len() {
            if std::io::Write::write_all(&mut writes, &piece).is_err() {
                return;
            }
        }
    });
    let answer = told(&mut client);
    client.get_ref().shutdown(Shutdown::Both).or_else(|error| {
        // The proxy has closed it already.
        if error.kind() == ErrorKind::NotConnected {
            Ok(())
        } else {
            Err(error)
        }
    })?;
    sends.join().expect("no panic");
    Ok(answer?.status)
}

#[test]
fn a_backend_that_has_enough_of_a_body_is_heard() -> Result<()> {
    with_backend(|host, backend| {
        for (script, wanted) in [
            (Script::EarlyClose, &[502][..]),
            (Script::EarlyAnswer, &[413]),
            // A reset may overtake the answer before it (RFC 9112 section 9.6).
            (Script::EarlyAnswerClose, &[413, 502]),
        ]
        .repeat(5)
        {
            let before = backend.counts();
            backend.plays(script);
            let status = upload(host).with_context(|| format!("{script:?}"))?;
            assert!(wanted.contains(&status), "{script:?} {status}");
            recovers(host, backend, before).with_context(|| format!("{script:?}"))?;
        }
        Ok(())
    })
}

#[test]
fn an_answer_that_nobody_has_asked_for_reaches_nobody() -> Result<()> {
    with_backend(|host, backend| {
        for _ in 0..10 {
            backend.next([Script::Unasked]);
            let mut client = host.connect()?;
            client.send(host.request("GET /", "", ""))?;
            assert_eq!(told(&mut client)?.body, "asked");
            for body in ["one", "two"] {
                client.send(host.request("PUT /", "", body))?;
                let answer = told(&mut client)?;
                assert_eq!((answer.status, answer.body.as_str()), (200, body));
            }
        }
        host.rests()
    })
}

#[test]
fn a_backend_that_is_gone_is_asked_again_when_it_is_back() -> Result<()> {
    with_backend(|host, backend| {
        for _ in 0..3 {
            assert_eq!(host.get()?.status, 200);
            let before = backend.counts();
            backend.down();
            for _ in 0..3 {
                let answer = host.get()?;
                assert_eq!(answer.status, 503, "{answer:?}");
                assert!(!answer.is_overloaded(), "it is not too busy, it is gone");
            }
            backend.up(&host.scene.netns)?;
            recovers(host, backend, before)?;
        }
        assert!(host.metric("upstream_cx_connect_fail")? >= 9.0);
        Ok(())
    })
}

#[test]
fn a_client_that_does_not_read_holds_back_a_flood() -> Result<()> {
    with_backend(|host, backend| {
        let before = backend.counts();
        backend.plays(Script::FloodBody);
        let client = host.send("GET /", "", "")?;
        backend.came(1)?;
        host.becomes("upstream_rq_active", 1)?;
        // What has been sent on comes, to the last byte, when it reads at last.
        let mut bytes = 0;
        let mut stream = client.get_ref();
        let mut piece = vec![0; 64 << 10];
        while bytes < 16 << 20 {
            let count = stream.read(&mut piece)?;
            ensure!(count > 0, "closed after {bytes}");
            bytes += count;
        }
        drop(client);
        recovers(host, backend, before)
    })
}
