//! Bits that are spread evenly: derived random numbers, and hashes that are the same on every node
//! and in every version.

/// The next of a sequence of evenly spread numbers, from the one before (Steele, Lea and Flood: Fast
/// Splittable Pseudorandom Number Generators, OOPSLA 2014).
#[must_use]
pub const fn splitmix64(seed: u64) -> u64 {
    finish(seed.wrapping_add(0x9e37_79b9_7f4a_7c15))
}

const fn finish(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// A hash of values in their order, for consistent hashing: FNV-1a, its bits mixed. It is no defence
/// against values that are chosen to collide; who can choose them can as well send one value often.
#[must_use]
pub fn hash<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> u64 {
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let add = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(PRIME);
    let hashed = values
        .into_iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, value| {
            // The length keeps `a`, `bc` apart from `ab`, `c`.
            let length = (value.len() as u64).to_le_bytes();
            length.iter().chain(value).fold(hash, add)
        });
    finish(hashed)
}

/// A number below `count`, evenly spread if `random` is; 0 if `count` is.
pub(super) fn below(random: u64, count: usize) -> usize {
    let scaled = (u128::from(random) * count as u128) >> 64;
    usize::try_from(scaled).unwrap_or(0)
}

/// Whether something happens that does with this probability.
pub(super) fn happens(random: u64, probability: f64) -> bool {
    const STEP: f64 = 1.0 / (1u64 << 53) as f64;
    ((random >> 11) as f64) * STEP < probability
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_stay_what_they_are() {
        // Nodes of two versions must agree on where a value goes.
        assert_eq!(splitmix64(0), 0xe220_a839_7b1d_cdaf);
        assert_eq!(splitmix64(1), 0x910a_2dec_8902_5cc1);
        let ab_c = hash([b"ab".as_slice(), b"c"]);
        assert_ne!(ab_c, hash([b"a".as_slice(), b"bc"]));
        assert_ne!(hash([]), hash([b"".as_slice()]));
    }

    #[test]
    fn parts_are_even() {
        let mut random = 7;
        let mut hits = [0; 7];
        let mut often = 0;
        for _ in 0..70_000 {
            random = splitmix64(random);
            hits[below(random, 7)] += 1;
            often += u32::from(happens(random, 0.25));
        }
        assert!(
            hits.iter().all(|hits| (9_500..10_500).contains(hits)),
            "{hits:?}"
        );
        assert!((17_000..18_000).contains(&often), "{often}");
        assert_eq!((below(u64::MAX, 3), below(5, 0)), (2, 0));
        assert!(!happens(0, 0.0) && happens(u64::MAX, 1.0));
    }
}
