//! How the buckets of a process lie in memory, so that the next one finds them: what they are found by,
//! the table, and the words that are limits' own.

use std::alloc::{self, handle_alloc_error};
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use siphasher::sip::SipHasher13;

use super::memory::{Memory, Region, Shared};
use super::{SLOTS, Set, Slot};

/// Says what it is. The digit changes with anything that words or keys mean, or where they lie.
const MAGIC: u64 = u64::from_le_bytes(*b"limiter1");
/// Words that are limits' own.
const SINGLES: usize = 1 << 16;

#[derive(Debug)]
#[repr(C, align(64))]
struct Header {
    magic: AtomicU64,
    /// How many there are.
    sets: AtomicU64,
    singles: AtomicU64,
    secret: [AtomicU64; 2],
}

// SAFETY: atomic numbers and padding.
unsafe impl Shared for Header {}
// SAFETY: atomic numbers.
unsafe impl Shared for Set {}
// SAFETY: atomic numbers.
unsafe impl Shared for Slot {}

/// What identities are hashed with, so that nobody can choose values that fall together.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Secret([u64; 2]);

impl Secret {
    fn new() -> Self {
        Self([0, 1].map(|half: u8| RandomState::new().hash_one(half)))
    }

    pub(super) fn hasher(self) -> SipHasher13 {
        let Self([first, second]) = self;
        SipHasher13::new_with_keys(first, second)
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

/// Where everything is.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) secret: Secret,
    /// A power of two, and at least two.
    pub(super) sets: Region<Set>,
    /// A power of two.
    pub(super) singles: Region<Slot>,
}

impl Layout {
    /// Sets for at least so many slots.
    pub(super) fn sets(capacity: usize) -> usize {
        capacity.div_ceil(SLOTS).max(2).next_power_of_two()
    }

    fn len(sets: usize, singles: usize) -> Option<usize> {
        let singles = singles.checked_mul(size_of::<Slot>())?;
        let sets = sets.checked_mul(size_of::<Set>())?;
        sets.checked_add(singles)?.checked_add(size_of::<Header>())
    }

    /// In memory of this process, for which there has to be room.
    pub(super) fn private(sets: usize) -> Self {
        // Nobody comes after it.
        let singles = 1;
        let len = Self::len(sets, singles);
        len.and_then(|len| Self::make(Memory::private(len), sets, singles, Secret::new()))
            .unwrap_or_else(|| handle_alloc_error(alloc::Layout::new::<Set>()))
    }

    /// In a file, by a secret of its own or by that of the buckets that are to be taken over.
    pub(super) fn file(sets: usize, secret: Option<Secret>) -> io::Result<Self> {
        let too_many = || io::Error::other("more buckets than there are addresses");
        let len = Self::len(sets, SINGLES).ok_or_else(too_many)?;
        let secret = secret.unwrap_or_else(Secret::new);
        Self::make(Memory::file(len)?, sets, SINGLES, secret).ok_or_else(too_many)
    }

    fn make(memory: Memory, sets: usize, singles: usize, secret: Secret) -> Option<Self> {
        let memory = Arc::new(memory);
        let header = Region::<Header>::new(&memory, 0, 1)?;
        let Secret([first, second]) = secret;
        let header = header.first()?;
        for (field, value) in [
            (&header.sets, u64::try_from(sets).ok()?),
            (&header.singles, u64::try_from(singles).ok()?),
            (&header.secret[0], first),
            (&header.secret[1], second),
            (&header.magic, MAGIC),
        ] {
            field.store(value, Ordering::SeqCst);
        }
        Self::find(&memory, sets, singles, secret)
    }

    /// That of another process.
    ///
    /// # Errors
    /// When it is none, or of another version.
    pub(super) fn of(file: OwnedFd) -> io::Result<Self> {
        let memory = Arc::new(Memory::of(file)?);
        let other = || io::Error::other("it is not laid out as this version's are");
        let header = Region::<Header>::new(&memory, 0, 1).ok_or_else(other)?;
        let header = header.first().ok_or_else(other)?;
        let read = |field: &AtomicU64| field.load(Ordering::SeqCst);
        let count = |field| usize::try_from(read(field)).ok();
        let counts = count(&header.sets).zip(count(&header.singles));
        let counts = counts.filter(|(sets, singles)| {
            *sets >= 2 && sets.is_power_of_two() && singles.is_power_of_two()
        });
        let (sets, singles) = counts
            .filter(|_| read(&header.magic) == MAGIC)
            .ok_or_else(other)?;
        let secret = Secret([read(&header.secret[0]), read(&header.secret[1])]);
        Self::find(&memory, sets, singles, secret).ok_or_else(other)
    }

    fn find(memory: &Arc<Memory>, sets: usize, singles: usize, secret: Secret) -> Option<Self> {
        let at = size_of::<Header>();
        Some(Self {
            secret,
            sets: Region::new(memory, at, sets)?,
            singles: Region::new(memory, at + sets.checked_mul(size_of::<Set>())?, singles)?,
        })
    }

    pub(super) const fn memory(&self) -> &Arc<Memory> {
        self.sets.memory()
    }
}
