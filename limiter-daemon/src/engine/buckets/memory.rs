//! Memory that buckets lie in: this process' own, or a file of memory (memfd_create(2)) that other
//! processes map as well.

use std::alloc::{Layout, handle_alloc_error};
use std::fmt;
use std::io;
use std::ops::Deref;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::ptr::{NonNull, null_mut};
use std::sync::Arc;

use rustix::fs::{
    FallocateFlags, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, fcntl_get_seals, fstat,
    memfd_create,
};
use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};

/// What keeps the memory of a file from being taken away under those who have mapped it.
const FIXED: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW);

/// Zeros at first, and mapped for as long as this lives.
pub(super) struct Memory {
    base: NonNull<u8>,
    len: usize,
    file: Option<OwnedFd>,
}

// SAFETY: the mapping belongs to no thread, and all that is reached through it is atomic (`Shared`).
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

/// What may lie in memory that other processes change at any time.
///
/// # Safety
/// Every pattern of bits is a value, and all of it is atomic.
pub(super) unsafe trait Shared {}

impl Memory {
    /// This process' own; `len` is not 0.
    pub(super) fn private(len: usize) -> Self {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping, at no address in particular.
        let mapped = unsafe { mmap_anonymous(null_mut(), len, access, MapFlags::PRIVATE) };
        match mapped.ok().and_then(|base| NonNull::new(base.cast())) {
            Some(base) => Self {
                base,
                len,
                file: None,
            },
            None => handle_alloc_error(Layout::array::<u8>(len).unwrap_or(Layout::new::<u8>())),
        }
    }

    /// A new file of `len` bytes, all of which are there: who writes to one that the machine has no
    /// room for would be killed.
    pub(super) fn file(len: usize) -> io::Result<Self> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = memfd_create("limiterd-buckets", flags)?;
        let size = len.try_into().map_err(io::Error::other)?;
        fallocate(&file, FallocateFlags::empty(), 0, size)?;
        fcntl_add_seals(&file, FIXED | SealFlags::SEAL)?;
        Self::map(file, len)
    }

    /// A file that another process made so.
    pub(super) fn of(file: OwnedFd) -> io::Result<Self> {
        if !fcntl_get_seals(&file)?.contains(FIXED) {
            return Err(io::Error::other("its size may change"));
        }
        let len = usize::try_from(fstat(&file)?.st_size).map_err(io::Error::other)?;
        Self::map(file, len)
    }

    fn map(file: OwnedFd, len: usize) -> io::Result<Self> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping, at no address in particular; the file cannot become shorter.
        let base = unsafe { mmap(null_mut(), len, access, MapFlags::SHARED, &file, 0) }?;
        let base = NonNull::new(base.cast()).ok_or_else(|| io::Error::other("mapped at zero"))?;
        Ok(Self {
            base,
            len,
            file: Some(file),
        })
    }

    pub(super) fn as_file(&self) -> Option<BorrowedFd<'_>> {
        self.file.as_ref().map(OwnedFd::as_fd)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: it is this mapping's own, and `Region`s keep it from being dropped before them.
        let unmapped = unsafe { munmap(self.base.as_ptr().cast(), self.len) };
        debug_assert!(unmapped.is_ok(), "{unmapped:?}");
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { base: _, len, file } = self;
        let mut told = f.debug_struct("Memory");
        told.field("len", len).field("file", file).finish()
    }
}

/// Values that lie one after the other in a memory.
pub(super) struct Region<T> {
    values: NonNull<[T]>,
    memory: Arc<Memory>,
}

// SAFETY: it is a shared reference to values that are atomic (`Shared`).
unsafe impl<T: Shared> Send for Region<T> {}
// SAFETY: as above.
unsafe impl<T: Shared> Sync for Region<T> {}

impl<T: Shared> Region<T> {
    /// `count` values from byte `at` on, which has to be a multiple of their alignment; `None`: they
    /// do not fit.
    pub(super) fn new(memory: &Arc<Memory>, at: usize, count: usize) -> Option<Self> {
        let end = count.checked_mul(size_of::<T>())?.checked_add(at)?;
        if end > memory.len || !at.is_multiple_of(align_of::<T>()) {
            return None;
        }
        // SAFETY: within the mapping. It begins at a page, so that it is aligned as `at` is.
        let first = unsafe { memory.base.add(at) }.cast();
        Some(Self {
            values: NonNull::slice_from_raw_parts(first, count),
            memory: Arc::clone(memory),
        })
    }

    pub(super) const fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }
}

impl<T: Shared> Deref for Region<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: they are mapped for as long as `memory` is, any bits are a value, and nobody has
        // them for himself.
        unsafe { self.values.as_ref() }
    }
}

impl<T> fmt::Debug for Region<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.values.len();
        f.debug_struct("Region").field("count", &count).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use rustix::fs::ftruncate;

    use super::*;

    // SAFETY: it is.
    unsafe impl Shared for AtomicU64 {}

    fn numbers(memory: Memory) -> Region<AtomicU64> {
        Region::new(&Arc::new(memory), 8, 3).unwrap()
    }

    #[test]
    fn a_file_is_the_same_for_all_and_outlives_who_made_it() {
        let one = numbers(Memory::file(4096).unwrap());
        let again = one.memory().as_file().unwrap().try_clone_to_owned();
        let other = numbers(Memory::of(again.unwrap()).unwrap());
        one[2].store(7, Ordering::Relaxed);
        assert_eq!(other[2].load(Ordering::Relaxed), 7);
        drop(one);
        other[0].store(8, Ordering::Relaxed);
        assert_eq!(other[2].load(Ordering::Relaxed), 7);
    }

    #[test]
    fn what_could_be_cut_short_is_not_mapped() {
        let file = memfd_create("cut", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        ftruncate(&file, 4096).unwrap();
        let error = Memory::of(file).unwrap_err();
        assert_eq!(error.to_string(), "its size may change");
        let disk = std::fs::File::open(std::env::current_exe().unwrap()).unwrap();
        assert!(Memory::of(disk.into()).is_err());
    }

    #[test]
    fn nothing_lies_outside() {
        let memory = Arc::new(Memory::private(64));
        let fits = |at, count| Region::<AtomicU64>::new(&memory, at, count).is_some();
        assert!(fits(0, 8) && fits(56, 1) && fits(64, 0));
        assert!(!fits(0, 9) && !fits(64, 1) && !fits(4, 1) && !fits(8, usize::MAX));
    }
}
