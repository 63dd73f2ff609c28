//! What really arrives on a wire: a capture by tcpdump.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result};
use etherparse::{SlicedPacket, TransportSlice};
use pcap_file::pcap::PcapReader;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::NamedTempFile;

use crate::netns::Netns;

/// A running capture of what comes in on one interface.
#[derive(Debug)]
pub struct Capture {
    tcpdump: Child,
    file: NamedTempFile,
}

/// What was captured.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Our ports to which a SYN+ACK came.
    pub accepted: BTreeSet<u16>,
    /// Our ports to which a RST came.
    pub reset: BTreeSet<u16>,
    /// ICMP and ICMPv6 errors (not neighbour discovery).
    pub icmp_errors: usize,
}

impl Capture {
    /// Starts; returns when packets are being captured.
    ///
    /// # Errors
    /// When tcpdump cannot be started.
    pub fn start(netns: &Netns, interface: &str) -> Result<Self> {
        let file = NamedTempFile::new()?;
        let path = file.path().to_owned();
        let mut tcpdump = netns.enter(|| {
            Command::new("tcpdump")
                .args([
                    "-n", "-U", "-Z", "root", "-B", "16384", "-Q", "in", "-i", interface, "-w",
                ])
                .arg(&path)
                .stderr(Stdio::piped())
                .spawn()
                .context("cannot run tcpdump")
        })?;
        let stderr = tcpdump.stderr.take().context("tcpdump has no stderr")?;
        let mut lines = BufReader::new(stderr).lines();
        let listening = lines
            .by_ref()
            .map_while(Result::ok)
            .any(|line| line.contains("listening on"));
        anyhow::ensure!(listening, "tcpdump does not capture on {interface}");
        // Its last words go nowhere, but the pipe must stay open.
        std::thread::spawn(move || lines.for_each(drop));
        Ok(Self { tcpdump, file })
    }

    /// Stops and reads what was captured.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn stop(mut self) -> Result<Seen> {
        kill_process(Pid::from_child(&self.tcpdump), Signal::INT)?;
        self.tcpdump.wait()?;
        let mut reader = PcapReader::new(self.file.reopen()?)?;
        let mut seen = Seen::default();
        while let Some(packet) = reader.next_packet() {
            seen.add(&packet?.data);
        }
        Ok(seen)
    }
}

impl Seen {
    fn add(&mut self, packet: &[u8]) {
        let Ok(packet) = SlicedPacket::from_ethernet(packet) else {
            return;
        };
        match packet.transport {
            Some(TransportSlice::Tcp(tcp)) if tcp.rst() => {
                self.reset.insert(tcp.destination_port());
            }
            Some(TransportSlice::Tcp(tcp)) if tcp.syn() && tcp.ack() => {
                self.accepted.insert(tcp.destination_port());
            }
            // Destination unreachable, time exceeded, parameter problem.
            Some(TransportSlice::Icmpv4(icmp)) if matches!(icmp.type_u8(), 3 | 11 | 12) => {
                self.icmp_errors += 1;
            }
            Some(TransportSlice::Icmpv6(icmp)) if icmp.type_u8() < 128 => self.icmp_errors += 1,
            _ => {}
        }
    }
}
