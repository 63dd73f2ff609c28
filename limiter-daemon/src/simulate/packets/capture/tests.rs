//! Captures written by hand, after the formats' specifications.

use std::io::BufReader;

use super::*;

const ENHANCED: u32 = 6;
const SIMPLE: u32 = 3;
const INTERFACE: u32 = 1;
const SECTION: u32 = 0x0a0d_0d0a;
/// 2026-11-25T22:40:19.123456789Z
const AT: u64 = 1_795_646_419_123_456_789;

fn padded(bytes: &[u8]) -> Vec<u8> {
    let mut padded = bytes.to_vec();
    padded.resize(bytes.len().next_multiple_of(4), 0);
    padded
}

/// A block of pcapng, little-endian.
fn block(kind: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(12 + body.len()).unwrap().to_le_bytes();
    [&kind.to_le_bytes(), &length[..], body, &length].concat()
}

fn section() -> Vec<u8> {
    let magic = 0x1a2b_3c4d_u32.to_le_bytes();
    block(SECTION, &[&magic[..], &[1, 0, 0, 0], &[0xff; 8]].concat())
}

/// `unit`: of its times, as `if_tsresol`.
fn interface(link: u16, unit: Option<u8>) -> Vec<u8> {
    let option = unit.map_or(vec![], |unit| vec![9, 0, 1, 0, unit, 0, 0, 0, 0, 0, 0, 0]);
    let [low, high] = link.to_le_bytes();
    block(
        INTERFACE,
        &[&[low, high, 0, 0, 0, 0, 4, 0][..], &option].concat(),
    )
}

fn packet(interface: u32, ticks: u64, length: u32, data: &[u8]) -> Vec<u8> {
    let [high, low] = [ticks >> 32, ticks & 0xffff_ffff].map(|half| u32::try_from(half).unwrap());
    let captured = u32::try_from(data.len()).unwrap();
    let head = [interface, high, low, captured, length].map(u32::to_le_bytes);
    block(ENHANCED, &[head.concat(), padded(data)].concat())
}

fn open(bytes: Vec<u8>) -> Result<Capture, SimulateError> {
    let reader = BufReader::new(Cursor::new(bytes));
    Capture::open("made.pcapng".into(), Box::new(reader))
}

#[test]
fn pcapng_has_several_interfaces_each_with_its_link_and_unit() {
    let ethernet: Vec<u8> = (0..15).collect();
    let ip = [0x45, 1, 2, 3];
    let simple = [&15_u32.to_le_bytes()[..], &padded(&ethernet)].concat();
    let mut capture = open(
        [
            section(),
            interface(1, Some(9)),
            interface(101, None),
            interface(101, Some(0x80 | 10)),
            packet(0, AT, 60, &ethernet),
            // Statistics of an interface have no packet.
            block(5, &[0; 12]),
            packet(1, AT / 1_000, 4, &ip),
            // Has no time.
            block(SIMPLE, &simple),
            packet(2, (1_795_646_419 << 10) | 512, 4, &ip),
        ]
        .concat(),
    )
    .unwrap();

    assert_eq!(capture.next_at(), Some(AT));
    let mut first = capture.take().unwrap().unwrap();
    assert_eq!((first.at, &first.bytes), (AT, &ethernet));
    // Cut when it was captured: what is missing is zeros.
    assert!(!first.fit(2_000));
    assert_eq!(
        (first.bytes.len(), first.bytes[14], first.bytes[15]),
        (60, 14, 0)
    );

    let second = capture.take().unwrap().unwrap();
    assert_eq!(second.at, AT / 1_000 * 1_000);
    let framed = [&[0; 12][..], &[0x08, 0x00], &ip].concat();
    assert_eq!(second.bytes, framed);

    let third = capture.take().unwrap().unwrap();
    assert_eq!(third.at, 1_795_646_419_500_000_000);
    assert_eq!(capture.unreadable, 1);
    assert!(capture.take().unwrap().is_none());
}

#[test]
fn pcapng_that_is_cut_off_is_an_error_and_not_a_shorter_capture() {
    let whole = [
        section(),
        interface(1, None),
        packet(0, 1, 20, &[7; 20]),
        packet(0, 2, 20, &[7; 20]),
    ]
    .concat();
    let cut = whole[..whole.len() - 9].to_vec();
    let mut capture = open(cut).unwrap();
    let error = capture.take().unwrap_err().to_string();
    assert!(error.contains("cannot be read on"), "{error}");
    // An interface that the file does not have.
    let stray = [section(), interface(1, None), packet(7, 1, 20, &[7; 20])].concat();
    let outcome = open(stray).and_then(|mut capture| capture.take());
    assert!(matches!(outcome, Ok(None) | Err(_)), "{outcome:?}");
}
