//! Frames to surprise a parser with: built from the pieces of real ones, then damaged. All of it
//! follows from a seed.

/// A generator of numbers (SplitMix64): small, and the same everywhere.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// Below `bound`, which is not 0.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap_or(0)
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }

    fn word(&mut self) -> [u8; 2] {
        [self.byte(), self.byte()]
    }

    /// Once in `n` times.
    pub fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.byte()).collect()
    }
}

/// What `BPF_PROG_TEST_RUN` takes.
const MIN_FRAME: usize = 14;
const MAX_FRAME: usize = 1514;

/// The port that the policies of the comparison target.
pub const PORT: u16 = 443;

const TAGS: &[u16] = &[0x8100, 0x88a8];
const ETHERTYPES: &[u16] = &[0x0800, 0x86dd, 0x0806, 0x88cc, 0x8100, 0x9100, 0x0600];
const EXTENSIONS: &[u8] = &[0, 43, 44, 51, 60, 135];
const PROTOCOLS: &[u8] = &[6, 6, 6, 6, 17, 17, 1, 58, 4, 41, 47, 50, 59, 132];
/// Bytes that limits and flags are made of.
const TELLING: &[u8] = &[
    0, 1, 2, 0x0f, 0x10, 0x12, 0x20, 0x45, 0x60, 0x7f, 0x80, 0xff,
];

/// A frame, more often near a good one than not.
#[must_use]
pub fn frame(random: &mut Random) -> Vec<u8> {
    let mut frame = whole(random);
    if random.once_in(2) {
        for _ in 0..=random.below(4) {
            damage(random, &mut frame);
        }
    }
    frame.resize(frame.len().clamp(MIN_FRAME, MAX_FRAME), 0);
    frame
}

/// A frame whose lengths are mostly right.
fn whole(random: &mut Random) -> Vec<u8> {
    let (ethertype, packet) = match random.below(20) {
        0 => {
            let length = random.below(80);
            (random.pick(ETHERTYPES), random.bytes(length))
        }
        1..=10 => (0x0800, ipv4(random)),
        _ => (0x86dd, ipv6(random)),
    };
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    let tags = random.pick(&[0, 0, 0, 0, 1, 1, 2, 2, 3]);
    for _ in 0..tags {
        frame.extend(random.pick(TAGS).to_be_bytes());
        frame.extend(random.word());
    }
    frame.extend(ethertype.to_be_bytes());
    frame.extend(packet);
    if random.once_in(8) {
        let padding = random.below(30);
        frame.extend(random.bytes(padding));
    }
    frame
}

fn ipv4(random: &mut Random) -> Vec<u8> {
    let protocol = random.pick(PROTOCOLS);
    let options = match random.once_in(4) {
        true => 4 * random.below(11),
        false => 0,
    };
    let payload = transport(random, protocol);
    let header = 20 + options;
    let fragment: u16 = match random.below(12) {
        0 => 0x2000,
        1 => 0x2001,
        2 => 0x0001,
        3 => u16::from_be_bytes(random.word()),
        4..=6 => 0x4000,
        _ => 0,
    };
    let mut packet = vec![0x40 | low_byte(header / 4), random.byte()];
    packet.extend(length(random, header + payload.len()));
    packet.extend(random.word());
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, protocol, 0, 0]);
    packet.extend([192, 0, 2, low_byte(random.below(64))]);
    packet.extend([198, 51, 100, 1]);
    packet.extend(random.bytes(options));
    packet.extend(payload);
    packet
}

fn ipv6(random: &mut Random) -> Vec<u8> {
    let protocol = random.pick(PROTOCOLS);
    let chain = match random.below(8) {
        0..=3 => 0,
        4 | 5 => 1 + random.below(2),
        6 => 1 + random.below(6),
        _ => 7 + random.below(4),
    };
    let kinds: Vec<u8> = (0..chain).map(|_| random.pick(EXTENSIONS)).collect();
    let next = |at: usize| kinds.get(at).copied().unwrap_or(protocol);
    let mut rest = Vec::new();
    for (at, kind) in kinds.iter().enumerate() {
        rest.extend(extension(random, *kind, next(at + 1)));
    }
    rest.extend(transport(random, protocol));

    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(length(random, rest.len()));
    packet.extend([next(0), 64]);
    packet.extend(match random.once_in(16) {
        true => [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1],
        false => address(random),
    });
    packet.extend([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    packet.extend(rest);
    packet
}

/// Hosts of a few networks.
fn address(random: &mut Random) -> [u8; 16] {
    let mut address = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    address[7] = low_byte(random.below(32));
    address[15] = random.byte();
    address
}

fn extension(random: &mut Random, kind: u8, next: u8) -> Vec<u8> {
    if kind == 44 {
        let field: u16 = random.pick(&[0, 0, 1, 1, 8, 9, 0xfff8, 6]);
        let mut header = vec![next, random.byte()];
        header.extend(field.to_be_bytes());
        header.extend(random.bytes(4));
        return header;
    }
    let units = random.pick(&[0, 0, 0, 1, 2, 3, 8, 20]);
    let body = match kind {
        51 => 4 * (units + 2),
        _ => 8 * (units + 1),
    };
    let mut header = vec![next, low_byte(units)];
    header.extend(random.bytes(body - 2));
    header
}

fn transport(random: &mut Random, protocol: u8) -> Vec<u8> {
    let port = match random.once_in(4) {
        true => u16::from_be_bytes(random.word()),
        false => PORT,
    };
    let mut segment = random.word().to_vec();
    segment.extend(port.to_be_bytes());
    match protocol {
        6 => {
            segment.extend(random.bytes(8));
            let flags = random.pick(&[0x02, 0x02, 0x10, 0x12, 0x18, 0x04, 0x03, 0x42, 0xc2, 0]);
            segment.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
        }
        17 => segment.extend([0, 8, 0, 0]),
        1 | 58 => {
            let kinds = [
                0, 1, 2, 3, 4, 5, 8, 11, 12, 128, 129, 130, 135, 137, 138, 143,
            ];
            segment[0] = random.pick(&kinds);
            segment.extend(random.bytes(4));
        }
        _ => segment.extend(random.bytes(16)),
    }
    let more = random.below(12);
    segment.extend(random.bytes(more));
    segment
}

/// A length field, now and then a lie.
fn length(random: &mut Random, right: usize) -> [u8; 2] {
    match random.below(10) {
        0 => random.word(),
        1 => u16_of(random.below(64)),
        _ => u16_of(right),
    }
}

fn damage(random: &mut Random, frame: &mut Vec<u8>) {
    if frame.is_empty() {
        return;
    }
    let at = random.below(frame.len());
    match random.below(8) {
        0 => frame[at] ^= 1 << random.below(8),
        1 => frame[at] = random.byte(),
        2 | 3 => frame[at] = random.pick(TELLING),
        4 | 5 => frame.truncate(at),
        6 => {
            let length = random.below(16);
            let noise = random.bytes(length);
            frame.splice(at..at, noise);
        }
        _ => {
            let end = (at + random.below(16)).min(frame.len());
            frame.drain(at..end);
        }
    }
}

fn u16_of(number: usize) -> [u8; 2] {
    let bytes = number.to_be_bytes();
    [bytes[bytes.len() - 2], bytes[bytes.len() - 1]]
}

fn low_byte(number: usize) -> u8 {
    number.to_le_bytes()[0]
}
