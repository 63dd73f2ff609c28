//! Where a key lies in a cluster.

use crc::{CRC_16_XMODEM, Crc};

/// Slots of a cluster.
pub const SLOTS: u16 = 16_384;

const CHECKSUM: Crc<u16> = Crc::<u16>::new(&CRC_16_XMODEM);

/// The slot of `key`: by what is between its first `{` and the `}` after it, if that is not empty
/// (Redis Cluster specification, hash tags).
#[must_use]
pub fn slot(key: &str) -> u16 {
    let tag = key
        .split_once('{')
        .and_then(|(_, rest)| rest.split_once('}'))
        .map(|(tag, _)| tag)
        .filter(|tag| !tag.is_empty());
    CHECKSUM.checksum(tag.unwrap_or(key).as_bytes()) % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a server answers to `CLUSTER KEYSLOT`.
    #[test]
    fn slots_are_those_of_the_specification() {
        let slots = [
            ("123456789", 12_739),
            ("foo", 12_182),
            ("{foo}bar", 12_182),
            ("a{foo}{bar}", 12_182),
            ("", 0),
        ];
        for (key, wanted) in slots {
            assert_eq!(slot(key), wanted, "{key}");
        }
        // An empty tag, and one without an end, are none.
        assert_ne!(slot("{}foo"), slot("{}bar"));
        assert_ne!(slot("{foo"), slot("foo"));
    }
}
