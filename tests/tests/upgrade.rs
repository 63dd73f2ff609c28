//! Restarts, crashes and upgrades under a flood: no packet goes by unjudged, none is dropped that the
//! policy lets pass.
//!
//! The flooder's bucket holds a number of packets and gets hardly any back while the test runs. So
//! what arrives of the flood is that number, however often the daemon goes and comes; one packet
//! more, and there was a gap.

use std::fs;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use limiter_common::ABI_VERSION;
use socket2::SockRef;
use tests::daemon::{Daemon, Policies, eventually};
use tests::policies::config;
use tests::topology::{Client, Pins, Topology};

const PORT: u16 = 5000;
const BURST: u64 = 1000;
/// Bytes; of the receiver's queue.
const QUEUE: usize = 4 << 20;
const FLOOD: Pace = Pace {
    packets: 20,
    every: Duration::from_millis(2),
};
const CALM: Pace = Pace {
    packets: 1,
    every: Duration::from_millis(3),
};

/// A thousand packets and one an hour; the calm client has more than it sends.
fn policy(comment: &str) -> String {
    format!(
        "\
# {comment}
apiVersion: limiterd.io/v1alpha1
kind: NetworkRateLimitPolicy
metadata: {{name: edge}}
spec:
  ports: [{{protocol: UDP, port: {PORT}}}]
  packets: {{maxTokens: {BURST}, tokensPerFill: 1, fillInterval: 1h}}
  rules:
  - name: calm
    sourceCIDRs: [10.77.2.0/24]
    packets: {{maxTokens: 100000, tokensPerFill: 100000}}
"
    )
}

#[derive(Clone, Copy)]
struct Pace {
    packets: u64,
    every: Duration,
}

/// What is sent and received, while it goes on.
#[derive(Default)]
struct Traffic {
    over: AtomicBool,
    flood_sent: AtomicU64,
    calm_sent: AtomicU64,
    flood_received: AtomicU64,
    calm_received: AtomicU64,
}

impl Traffic {
    fn send(&self, client: &Client, pace: Pace, sent: &AtomicU64) -> Result<()> {
        client.netns.enter(|| {
            let socket = UdpSocket::bind((client.v4, 0))?;
            socket.connect((client.gateway_v4, PORT))?;
            while !self.over.load(Ordering::Relaxed) {
                for _ in 0..pace.packets {
                    socket.send(b"packet")?;
                    sent.fetch_add(1, Ordering::Relaxed);
                }
                thread::sleep(pace.every);
            }
            Ok(())
        })
    }

    fn receive(&self, socket: &UdpSocket, flooder: IpAddr) -> Result<()> {
        let mut buffer = [0; 64];
        while !self.over.load(Ordering::Relaxed) {
            match socket.recv_from(&mut buffer) {
                Ok((_, from)) if from.ip() == flooder => {
                    self.flood_received.fetch_add(1, Ordering::Relaxed)
                }
                Ok(_) => self.calm_received.fetch_add(1, Ordering::Relaxed),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error.into()),
            };
        }
        Ok(())
    }

    /// Waits until so many more packets of the flood were sent.
    fn pass(&self, packets: u64) -> Result<()> {
        let from = self.flood_sent.load(Ordering::Relaxed);
        eventually("the flood", || {
            let sent = self.flood_sent.load(Ordering::Relaxed);
            Ok((sent >= from + packets).then_some(()))
        })
    }

    fn admitted(&self) -> u64 {
        self.flood_received.load(Ordering::Relaxed)
    }

    /// Waits until every packet that the calm client had sent by now has arrived.
    fn nothing_lost(&self) -> Result<()> {
        let sent = self.calm_sent.load(Ordering::Relaxed);
        eventually("the calm client's packets", || {
            Ok((self.calm_received.load(Ordering::Relaxed) >= sent).then_some(()))
        })
        .with_context(|| {
            let received = self.calm_received.load(Ordering::Relaxed);
            format!("of {sent} packets of the calm client, {received} arrived")
        })
    }
}

struct Stage {
    topology: Topology,
    policies: Policies,
    pins: Pins,
}

impl Stage {
    fn new() -> Result<Self> {
        let topology = Topology::new()?;
        let pins = topology.pins();
        let interfaces = [&topology.first, &topology.second].map(|c| c.gateway_interface.as_str());
        let policies = Policies::new(&[
            ("limiterd.yaml", &config(&interfaces, &pins, "Keep")),
            ("network.yaml", &policy("as it was")),
        ])?;
        Ok(Self {
            topology,
            policies,
            pins,
        })
    }

    fn daemon(&self) -> Result<Daemon> {
        Daemon::start(&self.topology.gateway, self.policies.path())
    }

    /// A daemon that must have adopted what it found.
    fn adopting(&self) -> Result<Daemon> {
        let daemon = self.daemon()?;
        let text = daemon.process.output();
        ensure!(text.matches("adopted=true").count() == 2, "{text}");
        Ok(daemon)
    }

    fn version(&self, version: u32) -> PathBuf {
        PathBuf::from(self.pins.path().to_string()).join(format!("v{version}"))
    }

    /// Does `work` while the flood and the calm client send.
    fn under_load(&self, work: impl FnOnce(&Traffic) -> Result<()> + Send) -> Result<()> {
        let Topology {
            gateway,
            first,
            second,
        } = &self.topology;
        let socket = gateway.enter(|| {
            let any: SocketAddr = ([0, 0, 0, 0], PORT).into();
            Ok(UdpSocket::bind(any)?)
        })?;
        SockRef::from(&socket).set_recv_buffer_size(QUEUE)?;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        let traffic = Traffic::default();
        thread::scope(|scope| {
            let threads = [
                scope.spawn(|| traffic.receive(&socket, first.v4.into())),
                scope.spawn(|| traffic.send(first, FLOOD, &traffic.flood_sent)),
                scope.spawn(|| traffic.send(second, CALM, &traffic.calm_sent)),
            ];
            let result = work(&traffic);
            traffic.over.store(true, Ordering::Relaxed);
            for thread in threads {
                thread
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            }
            result
        })
    }
}

#[test]
fn restarts_and_crashes_under_a_flood_let_nothing_by_and_lose_nothing() -> Result<()> {
    let stage = Stage::new()?;
    let first = stage.daemon()?;
    stage.under_load(|traffic| {
        traffic.pass(5 * BURST)?;
        assert_eq!(traffic.admitted(), BURST);

        first.kill()?;
        traffic.pass(2000)?;
        assert_eq!(traffic.admitted(), BURST, "after a crash");

        let second = stage.adopting()?;
        traffic.pass(2000)?;
        assert_eq!(traffic.admitted(), BURST, "after a restart");

        for round in 0..5 {
            stage
                .policies
                .write("network.yaml", &policy(&format!("round {round}")))?;
            second.reload(&stage.topology.gateway)?;
        }
        assert_eq!(traffic.admitted(), BURST, "after reloads");

        let mut daemon = second;
        for _ in 0..3 {
            let exit = daemon.stop()?;
            ensure!(exit.success(), "{exit}");
            traffic.pass(500)?;
            daemon = stage.adopting()?;
        }
        traffic.pass(2000)?;
        assert_eq!(traffic.admitted(), BURST, "after clean restarts");
        traffic.nothing_lost()?;

        // The kernel's counters went on, and counted nothing that did not arrive.
        let received = || traffic.admitted() + traffic.calm_received.load(Ordering::Relaxed);
        let before = received();
        let page = daemon.metrics(&stage.topology.gateway)?;
        let conforming = page.packets("default/edge", "conforming");
        assert!(conforming >= before as f64, "{conforming} of {before}");
        eventually("all that was counted", || {
            Ok((received() as f64 >= conforming).then_some(()))
        })?;
        daemon.stop().map(drop)
    })
}

/// The version before has its own maps, of which the new one cannot know the meaning: a bucket is full
/// again, once. There is no moment without a program.
#[test]
fn an_upgrade_with_other_maps_under_a_flood_costs_one_burst_and_no_packet() -> Result<()> {
    let stage = Stage::new()?;
    let before = stage.daemon()?;
    stage.under_load(|traffic| {
        traffic.pass(5 * BURST)?;
        assert_eq!(traffic.admitted(), BURST);
        before.kill()?;
        fs::rename(stage.version(ABI_VERSION), stage.version(ABI_VERSION - 1))?;
        traffic.pass(2000)?;
        assert_eq!(traffic.admitted(), BURST);

        let after = stage.adopting()?;
        assert!(after.process.output().contains("taking over the link"));
        traffic.pass(5 * BURST)?;
        assert_eq!(traffic.admitted(), 2 * BURST);
        assert!(!stage.version(ABI_VERSION - 1).exists());

        // And back, in the same way.
        let exit = after.stop()?;
        ensure!(exit.success(), "{exit}");
        fs::rename(stage.version(ABI_VERSION), stage.version(ABI_VERSION + 1))?;
        let back = stage.adopting()?;
        traffic.pass(5 * BURST)?;
        assert_eq!(traffic.admitted(), 3 * BURST);
        traffic.nothing_lost()?;
        back.stop().map(drop)
    })
}

/// The last link to a program is closed while packets run through it.
#[test]
fn a_detachment_under_a_flood_comes_to_its_end() -> Result<()> {
    let stage = Stage::new()?;
    let interfaces = [&stage.topology.first, &stage.topology.second];
    let names = interfaces.map(|client| client.gateway_interface.as_str());
    stage
        .policies
        .write("limiterd.yaml", &config(&names, &stage.pins, "Detach"))?;
    stage.under_load(|traffic| {
        for round in 1..=3 {
            let daemon = stage.daemon()?;
            traffic.pass(2 * BURST)?;
            let exit = daemon.stop()?;
            ensure!(exit.success(), "{exit}");
            assert!(!stage.pins.exist(), "round {round}");
            let admitted = traffic.admitted();
            eventually("the flood to pass", || {
                Ok((traffic.admitted() > admitted + BURST).then_some(()))
            })?;
        }
        traffic.nothing_lost()
    })
}
