//! SIGTERM: readiness fails first, what was let in is answered, and the end comes in time.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use tests::daemon::{ADMIN, BACKEND, Daemon, Policies, Process, binary, demo_backend, eventually};
use tests::http_client::get;
use tests::netns::Netns;
use tests::policies::{GATEWAY, route};
use tests::raw::{Raw, header, tcp};
use tests::tls::Authority;
use tests::upstream::{Upstream, response};
use tests::user::thread_status;

const ASK: &str = "GET / HTTP/1.1\r\nhost: a.test\r\n\r\n";
const FRONT: &str = "127.0.0.1:8080";

/// A LimiterConfig with one worker and this in its `http`.
fn http(settings: &str) -> String {
    format!(
        "\
apiVersion: limiterd.io/v1alpha1
kind: LimiterConfig
metadata: {{name: limiterd}}
spec:
  http: {{workers: 1, {settings}}}
"
    )
}

fn policies(settings: &str) -> Result<Policies> {
    Policies::new(&[
        ("limiterd.yaml", &http(settings)),
        ("gateway.yaml", GATEWAY),
        ("route.yaml", &route("api", "/")),
    ])
}

fn client(netns: &Netns) -> Result<Raw> {
    Ok(Raw::on(tcp(netns, FRONT)?))
}

fn ask(client: &mut Raw) -> Result<String> {
    client.send(ASK)?;
    let (status, head, _) = client.answer()?;
    ensure!(status == 200, "{head}");
    Ok(head)
}

fn said(process: &Process, what: &str) -> Result<()> {
    eventually(what, || Ok(process.output().contains(what).then_some(())))
        .with_context(|| process.output())
}

fn ready(netns: &Netns) -> Result<(u16, String)> {
    let answer = netns.enter(|| get(&format!("http://{ADMIN}/ready")))?;
    Ok((answer.status.as_u16(), answer.text()))
}

/// Waits until nobody is let in any more.
fn closed(netns: &Netns) -> Result<()> {
    let refused = || netns.enter(|| Ok(TcpStream::connect(FRONT).is_err()));
    eventually("the listener to close", || Ok(refused()?.then_some(())))
}

/// Connections that were let in and not accepted yet.
fn queued(netns: &Netns, wanted: usize) -> Result<()> {
    eventually("connections in the queue", || {
        let output = Command::new("ip")
            .args([
                "netns",
                "exec",
                netns.name(),
                "ss",
                "-Hltn",
                "sport",
                "=",
                "8080",
            ])
            .output()?;
        let text = String::from_utf8(output.stdout)?;
        let queue = text.split_whitespace().nth(1).context("nobody listens")?;
        Ok((queue.parse::<usize>()? >= wanted).then_some(()))
    })
}

#[test]
fn readiness_fails_first_and_a_second_signal_ends_it_at_once() -> Result<()> {
    let netns = Netns::new("delay")?;
    let backend = netns.enter(|| Ok(TcpListener::bind(BACKEND)?))?;
    let policies = policies("drainDelay: 1h, drainTimeout: 1h")?;
    let daemon = Daemon::start(&netns, policies.path())?;
    assert_eq!(ready(&netns)?, (200, "ready\n".to_owned()));
    let mut waiting = client(&netns)?;
    waiting.send(ASK)?;
    let (mut first, _) = backend.accept()?;

    daemon.process.signal(Signal::TERM)?;
    eventually("readiness to fail", || {
        Ok((ready(&netns)? == (503, "draining\n".to_owned())).then_some(()))
    })?;
    // Load balancers may not have noticed: whoever comes is served.
    let mut late = client(&netns)?;
    late.send(ASK)?;
    let (mut second, _) = backend.accept()?;
    assert!(second.read(&mut [0; 1024])? > 0);
    second.write_all(response("200 OK", "", "late").as_bytes())?;
    assert_eq!(late.answer()?.2, "late");

    daemon.process.signal(Signal::INT)?;
    said(&daemon.process, "connections did not end in time")?;
    let mut process = daemon.process;
    assert_eq!(process.wait()?.code(), Some(0), "{}", process.output());
    assert!(waiting.answer().is_err());
    assert!(first.read(&mut [0; 1024])? > 0);
    Ok(())
}

#[test]
fn a_second_signal_cuts_off_what_is_in_flight() -> Result<()> {
    let netns = Netns::new("second")?;
    let backend = netns.enter(|| Ok(TcpListener::bind(BACKEND)?))?;
    let policies = policies("drainTimeout: 1h")?;
    let daemon = Daemon::start(&netns, policies.path())?;
    let mut waiting = client(&netns)?;
    waiting.send(ASK)?;
    let _upstream = backend.accept()?;
    daemon.process.signal(Signal::TERM)?;
    closed(&netns)?;
    assert_eq!(ready(&netns)?, (503, "draining\n".to_owned()));
    daemon.process.signal(Signal::TERM)?;
    let mut process = daemon.process;
    assert_eq!(process.wait()?.code(), Some(0), "{}", process.output());
    assert!(
        process.output().contains("cut_off=1"),
        "{}",
        process.output()
    );
    assert!(waiting.answer().is_err());
    Ok(())
}

#[test]
fn what_does_not_end_in_time_is_cut_off_tunnels_too() -> Result<()> {
    let netns = Netns::new("deadline")?;
    let backend = netns.enter(|| Ok(TcpListener::bind(BACKEND)?))?;
    let policies = policies("drainTimeout: 1s")?;
    let daemon = Daemon::start(&netns, policies.path())?;
    let mut waiting = client(&netns)?;
    waiting.send(ASK)?;
    let _silent = backend.accept()?;
    let mut tunnel = client(&netns)?;
    tunnel
        .send("GET / HTTP/1.1\r\nhost: a.test\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n")?;
    let (mut upstream, _) = backend.accept()?;
    assert!(upstream.read(&mut [0; 1024])? > 0);
    upstream.write_all(
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n",
    )?;
    assert!(
        tunnel
            .head()?
            .context("closed")?
            .starts_with("HTTP/1.1 101")
    );
    daemon.process.signal(Signal::TERM)?;
    let mut process = daemon.process;
    assert_eq!(process.wait()?.code(), Some(0), "{}", process.output());
    assert!(
        process.output().contains("cut_off=2"),
        "{}",
        process.output()
    );
    Ok(())
}

#[test]
fn in_flight_responses_say_close_and_idle_connections_end() -> Result<()> {
    let netns = Netns::new("flight")?;
    let backend = netns.enter(|| Ok(TcpListener::bind(BACKEND)?))?;
    let policies = policies("drainTimeout: 1h")?;
    let daemon = Daemon::start(&netns, policies.path())?;
    let mut idle = client(&netns)?;
    idle.send(ASK)?;
    let (mut upstream, _) = backend.accept()?;
    assert!(upstream.read(&mut [0; 1024])? > 0);
    upstream.write_all(response("200 OK", "", "idle").as_bytes())?;
    assert_eq!(header(&idle.answer()?.1, "connection"), "");
    let mut busy = client(&netns)?;
    busy.send(ASK)?;
    assert!(upstream.read(&mut [0; 1024])? > 0);

    daemon.process.signal(Signal::TERM)?;
    assert_eq!(idle.head()?, None);
    upstream.write_all(response("200 OK", "", "busy").as_bytes())?;
    let (status, head, body) = busy.answer()?;
    assert_eq!((status, body.as_str()), (200, "busy"));
    assert_eq!(header(&head, "connection"), "close");
    assert_eq!(busy.head()?, None);
    let mut process = daemon.process;
    assert_eq!(process.wait()?.code(), Some(0), "{}", process.output());
    Ok(())
}

/// The daemon is stopped while clients come and the signal is sent: everything is there at once when
/// it goes on.
#[test]
fn what_came_before_the_signal_is_answered() -> Result<()> {
    let netns = Netns::new("moment")?;
    let authority = Authority::new()?;
    let _backend = Upstream::echo(&netns, BACKEND)?;
    let https = "  - {name: https, protocol: HTTPS, port: 8443, \
                 tls: {certificateRefs: [{name: site}]}}\n";
    let gateway = GATEWAY.replace("port: 8080}\n", &format!("port: 8080}}\n{https}"));
    let policies = policies("drainTimeout: 1h")?;
    policies.write("gateway.yaml", &gateway)?;
    policies.write("secret.yaml", &authority.secret("site", "a.test")?)?;
    let daemon = Daemon::start(&netns, policies.path())?;
    let mut kept = client(&netns)?;
    assert_eq!(header(&ask(&mut kept)?, "connection"), "");

    daemon.process.signal(Signal::STOP)?;
    eventually("all threads to stop", || {
        let states = thread_status(daemon.process.id(), "State")?;
        let stopped = states.iter().all(|(_, state)| state.starts_with('T'));
        Ok(stopped.then_some(()))
    })?;
    kept.send(ASK)?;
    let mut queue: Vec<_> = (0..20).map(|_| client(&netns)).collect::<Result<_>>()?;
    for client in &mut queue {
        client.send(ASK)?;
    }
    queued(&netns, 20)?;
    let (connected, wait) = mpsc::channel();
    let tls = thread::scope(|scope| {
        let tls = scope.spawn(|| -> Result<_> {
            let config = authority.client(&["http/1.1"])?;
            let stream = tcp(&netns, "127.0.0.1:8443")?;
            connected.send(())?;
            let name = "a.test".to_owned().try_into()?;
            let tls = rustls::ClientConnection::new(config, name)?;
            let mut client = Raw::on(rustls::StreamOwned::new(tls, stream));
            client.send(ASK)?;
            client.answer()
        });
        wait.recv_timeout(Duration::from_secs(30))?;
        daemon.process.signal(Signal::TERM)?;
        daemon.process.signal(Signal::CONT)?;
        tls.join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    assert_eq!(tls.0, 200, "{}", tls.1);
    for client in std::iter::once(&mut kept).chain(&mut queue) {
        let (status, head, _) = client.answer()?;
        assert_eq!(status, 200, "{head}");
        assert_eq!(client.head()?, None);
    }
    let mut process = daemon.process;
    assert_eq!(process.wait()?.code(), Some(0), "{}", process.output());
    assert!(
        !process.output().contains("in time"),
        "{}",
        process.output()
    );
    Ok(())
}

#[test]
fn clients_are_asked_to_go_while_others_are_still_let_in() -> Result<()> {
    const CLIENTS: usize = 50;
    let netns = Netns::new("asked")?;
    let _backend = Upstream::echo(&netns, BACKEND)?;
    let policies = policies("drainDelay: 10s")?;
    let daemon = Daemon::start(&netns, policies.path())?;
    let mut clients: Vec<_> = (0..CLIENTS)
        .map(|_| client(&netns))
        .collect::<Result<_>>()?;
    for client in &mut clients {
        ask(client)?;
    }
    let mut http2 = (0..CLIENTS)
        .map(|_| H2::connect(&netns))
        .collect::<Result<Vec<_>>>()?;
    daemon.process.signal(Signal::TERM)?;
    let mut kept = 0;
    eventually("a client to be asked to go", || {
        kept = 0;
        for client in &mut clients {
            if header(&ask(client)?, "connection") == "close" {
                return Ok(Some(()));
            }
            kept += 1;
        }
        Ok(None)
    })?;
    // The first of many: the time is far from over.
    ask(&mut client(&netns)?)?;
    eventually("GOAWAY", || {
        for client in &mut http2 {
            client
                .stream
                .set_read_timeout(Some(Duration::from_millis(1)))?;
            if matches!(client.frame(), Ok(Some((GOAWAY, _)))) {
                return Ok(Some(()));
            }
        }
        Ok(None)
    })?;
    ask(&mut client(&netns)?)?;
    daemon.process.signal(Signal::TERM)?;
    let mut process = daemon.process;
    assert_eq!(process.wait()?.code(), Some(0), "{}", process.output());
    Ok(())
}

#[test]
fn http2_gets_goaway_and_streams_in_flight_finish() -> Result<()> {
    let netns = Netns::new("goaway")?;
    let backend = netns.enter(|| Ok(TcpListener::bind(BACKEND)?))?;
    let policies = policies("drainTimeout: 1h")?;
    let daemon = Daemon::start(&netns, policies.path())?;
    let mut client = H2::connect(&netns)?;
    client.request(1)?;
    let (mut upstream, _) = backend.accept()?;
    daemon.process.signal(Signal::TERM)?;
    // Two steps (RFC 9113 section 6.8): first it goes, then it says which stream was the last.
    assert_eq!(client.wait_for(GOAWAY)?[..4], [0x7f, 0xff, 0xff, 0xff]);
    client.answer_ping()?;
    assert_eq!(client.wait_for(GOAWAY)?[..4], [0, 0, 0, 1]);
    assert!(upstream.read(&mut [0; 1024])? > 0);
    upstream.write_all(response("200 OK", "", "late").as_bytes())?;
    assert_eq!(client.wait_for(DATA)?, b"late");
    while client.frame()?.is_some() {}
    let mut process = daemon.process;
    assert_eq!(process.wait()?.code(), Some(0), "{}", process.output());
    Ok(())
}

#[test]
fn systemd_is_told_of_start_reload_and_stop() -> Result<()> {
    let netns = Netns::new("notify")?;
    let _backend = demo_backend(&netns)?;
    let policies = policies("drainTimeout: 1s")?;
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("notify");
    let socket = UnixDatagram::bind(&path)?;
    socket.set_read_timeout(Some(Duration::from_secs(30)))?;
    let told = || -> Result<String> {
        let mut message = [0; 1024];
        let length = socket.recv(&mut message)?;
        Ok(String::from_utf8(message[..length].to_vec())?)
    };
    let mut limiterd = Command::new(binary());
    limiterd.env("NOTIFY_SOCKET", &path);
    let daemon = Daemon::start_by(&netns, policies.path(), limiterd)?;
    assert_eq!(told()?, "READY=1\n");
    daemon.process.signal(Signal::HUP)?;
    let reloading = told()?;
    assert!(
        reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="),
        "{reloading}"
    );
    assert_eq!(told()?, "READY=1\n");
    assert!(daemon.stop()?.success());
    assert_eq!(told()?, "STOPPING=1\n");
    Ok(())
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PING: u8 = 6;
const GOAWAY: u8 = 7;

/// HTTP/2 by its frames (RFC 9113 section 4.1).
struct H2 {
    stream: TcpStream,
    ping: Option<Vec<u8>>,
}

impl H2 {
    fn connect(netns: &Netns) -> Result<Self> {
        let mut stream = tcp(netns, FRONT)?;
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")?;
        Ok(Self { stream, ping: None })
    }

    fn send(&mut self, kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Result<()> {
        let length = u8::try_from(payload.len())?;
        let head = [0, 0, length, kind, flags, 0, 0, 0, stream];
        Ok(self.stream.write_all(&[&head, payload].concat())?)
    }

    /// `GET http://a.test/`, by HPACK's static table.
    fn request(&mut self, stream: u8) -> Result<()> {
        let headers = [b"\x82\x86\x84\x41\x06".as_slice(), b"a.test"].concat();
        const END_STREAM_AND_HEADERS: u8 = 0x05;
        self.send(HEADERS, END_STREAM_AND_HEADERS, stream, &headers)
    }

    /// The next frame; `None`: the connection was closed.
    fn frame(&mut self) -> Result<Option<(u8, Vec<u8>)>> {
        let mut head = [0; 9];
        match self.stream.read(&mut head[..1])? {
            0 => return Ok(None),
            _ => self.stream.read_exact(&mut head[1..])?,
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length)?];
        self.stream.read_exact(&mut payload)?;
        if head[3] == PING {
            self.ping = Some(payload.clone());
        }
        Ok(Some((head[3], payload)))
    }

    fn wait_for(&mut self, kind: u8) -> Result<Vec<u8>> {
        loop {
            let (seen, payload) = self.frame()?.context("closed")?;
            if seen == kind {
                return Ok(payload);
            }
        }
    }

    fn answer_ping(&mut self) -> Result<()> {
        const ACK: u8 = 1;
        let ping = match self.ping.take() {
            Some(ping) => ping,
            None => self.wait_for(PING)?,
        };
        self.send(PING, ACK, 0, &ping)
    }
}
