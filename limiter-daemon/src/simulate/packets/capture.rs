//! Packets of pcap and pcapng files, as Ethernet frames.

use std::io::{BufRead, Cursor, Read};
use std::path::PathBuf;

use pcap_file::pcap::PcapReader;
use pcap_file::pcapng::blocks::interface_description::InterfaceDescriptionOption;
use pcap_file::pcapng::{Block, PcapNgReader};
use pcap_file::{DataLink, PcapError};

use crate::simulate::SimulateError;

/// The first bytes of a pcapng file.
const PCAPNG: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];
/// What a frame has before what its EtherType says, and the least that a test run takes.
const ETHERNET: usize = 14;
const SECOND: u128 = 1_000_000_000;

type Bytes = Box<dyn Read + Send>;

/// A file of packets.
pub(super) struct Capture {
    path: PathBuf,
    reader: Reader,
    next: Option<Packet>,
    /// Packets that are no frames and none that one can be made of.
    pub(super) unreadable: u64,
}

enum Reader {
    Pcap(PcapReader<Bytes>),
    PcapNg(PcapNgReader<Bytes>),
}

/// A frame.
#[derive(Debug)]
pub(super) struct Packet {
    /// Nanoseconds since 1970.
    pub(super) at: u64,
    pub(super) bytes: Vec<u8>,
    /// Bytes on the wire.
    length: usize,
}

impl Packet {
    /// Makes it as long as it was on the wire, but not longer than `longest`: what the capture does
    /// not have is zeros. Whether it could not be made whole.
    pub(super) fn fit(&mut self, longest: usize) -> bool {
        self.bytes.resize(self.length.clamp(ETHERNET, longest), 0);
        self.length > longest
    }
}

impl Capture {
    /// Opens a file and reads its first packet.
    pub(super) fn open(
        path: PathBuf,
        mut reader: Box<dyn BufRead + Send>,
    ) -> Result<Self, SimulateError> {
        let failed = |reason: String| SimulateError::Capture {
            path: path.clone(),
            reason,
        };
        let mut magic = [0; 4];
        reader
            .read_exact(&mut magic)
            .map_err(|error| failed(error.to_string()))?;
        let whole: Bytes = Box::new(Cursor::new(magic).chain(reader));
        let reader = if magic == PCAPNG {
            PcapNgReader::new(whole).map(Reader::PcapNg)
        } else {
            PcapReader::new(whole).map(Reader::Pcap)
        };
        let reader = reader.map_err(|error| failed(error.to_string()))?;
        let mut capture = Self {
            path,
            reader,
            next: None,
            unreadable: 0,
        };
        capture.next = capture.read()?;
        Ok(capture)
    }

    /// When its next packet came.
    pub(super) fn next_at(&self) -> Option<u64> {
        self.next.as_ref().map(|packet| packet.at)
    }

    /// Its next packet.
    pub(super) fn take(&mut self) -> Result<Option<Packet>, SimulateError> {
        let following = self.read()?;
        Ok(std::mem::replace(&mut self.next, following))
    }

    fn read(&mut self) -> Result<Option<Packet>, SimulateError> {
        let failed = |path: &PathBuf, error: &PcapError| SimulateError::Capture {
            path: path.clone(),
            reason: format!("the capture cannot be read on: {error}"),
        };
        loop {
            let found = match &mut self.reader {
                Reader::Pcap(reader) => of_pcap(reader),
                Reader::PcapNg(reader) => of_pcapng(reader),
            };
            match found {
                None => return Ok(None),
                Some(Ok(Found::Packet(packet))) => return Ok(Some(packet)),
                Some(Ok(Found::Unreadable)) => self.unreadable += 1,
                Some(Ok(Found::Nothing)) => {}
                Some(Err(error)) => return Err(failed(&self.path, &error)),
            }
        }
    }
}

enum Found {
    Packet(Packet),
    Unreadable,
    /// A block that has no packet.
    Nothing,
}

fn of_pcap(reader: &mut PcapReader<Bytes>) -> Option<Result<Found, PcapError>> {
    let link = reader.header().datalink;
    let next = reader.next_packet()?;
    Some(next.map(|packet| {
        let at = u64::try_from(packet.timestamp.as_nanos()).unwrap_or(u64::MAX);
        frame(link, &packet.data, packet.orig_len, at)
    }))
}

fn of_pcapng(reader: &mut PcapNgReader<Bytes>) -> Option<Result<Found, PcapError>> {
    let found = match reader.next_block()? {
        Ok(Block::EnhancedPacket(packet)) => Some(packet.into_owned()),
        // Without a time it cannot be replayed.
        Ok(Block::SimplePacket(_) | Block::Packet(_)) => return Some(Ok(Found::Unreadable)),
        Ok(_) => None,
        Err(error) => return Some(Err(error)),
    };
    let Some(packet) = found else {
        return Some(Ok(Found::Nothing));
    };
    let Some(interface) = reader.packet_interface(&packet) else {
        return Some(Ok(Found::Unreadable));
    };
    let unit = interface.options.iter().find_map(|option| match option {
        InterfaceDescriptionOption::IfTsResol(unit) => Some(*unit),
        _ => None,
    });
    // The crate takes all times for nanoseconds.
    let at = nanoseconds(packet.timestamp.as_nanos(), unit.unwrap_or(6));
    let link = interface.linktype;
    Some(Ok(frame(link, &packet.data, packet.original_len, at)))
}

/// `ticks` of a unit as `if_tsresol` has it: 10^-n seconds, or 2^-n with the highest bit set.
fn nanoseconds(ticks: u128, unit: u8) -> u64 {
    let power = u32::from(unit & 0x7f);
    let base: u128 = if unit & 0x80 == 0 { 10 } else { 2 };
    let second = base.checked_pow(power).unwrap_or(u128::MAX);
    let ns = ticks.checked_mul(SECOND).map(|ticks| ticks / second);
    ns.and_then(|ns| u64::try_from(ns).ok()).unwrap_or(u64::MAX)
}

/// The packet as an Ethernet frame; of links without one, with a made-up header.
fn frame(link: DataLink, data: &[u8], length: u32, at: u64) -> Found {
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    // Bytes of the link's header, and the EtherType of what follows it.
    let other = match u32::from(link) {
        1 => {
            return if data.len() < ETHERNET {
                Found::Unreadable
            } else {
                Found::Packet(Packet {
                    at,
                    bytes: data.to_vec(),
                    length,
                })
            };
        }
        // Raw IP, whichever or of one version.
        12 | 14 | 101 | 228 | 229 => match data.first().map(|first| first >> 4) {
            Some(4) => Some((0, [0x08, 0x00])),
            Some(6) => Some((0, [0x86, 0xdd])),
            _ => None,
        },
        // Linux cooked, version 1 and 2.
        113 => data.get(14..16).map(|kind| (16, [kind[0], kind[1]])),
        276 => data.get(..2).map(|kind| (20, [kind[0], kind[1]])),
        _ => None,
    };
    let inside = other.and_then(|(header, kind)| Some((header, kind, data.get(header..)?)));
    let Some((header, kind, inside)) = inside else {
        return Found::Unreadable;
    };
    let mut bytes = vec![0; ETHERNET - 2];
    bytes.extend_from_slice(&kind);
    bytes.extend_from_slice(inside);
    Found::Packet(Packet {
        at,
        bytes,
        length: length.saturating_sub(header).saturating_add(ETHERNET),
    })
}

#[cfg(test)]
mod tests;
