//! Commands of bpf(2) that aya does not have: batches of map entries, what is on tcx, and links that are
//! detached at once.

use std::ffi::CString;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use aya::Pod;

const BPF_OBJ_GET: libc::c_long = 7;
const BPF_PROG_QUERY: libc::c_long = 16;
const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;
const BPF_MAP_UPDATE_BATCH: libc::c_long = 26;
const BPF_MAP_DELETE_BATCH: libc::c_long = 27;
const BPF_LINK_DETACH: libc::c_long = 34;
const BPF_TCX_INGRESS: u32 = 46;

/// Entries of one system call; the kernel may be interrupted between calls, not within one.
const BATCH: usize = 4096;
/// Programs on one hook at most (`BPF_MPROG_MAX`).
const MAX_PROGRAMS: usize = 64;

/// `union bpf_attr` for the batch commands.
#[derive(Debug, Default)]
#[repr(C)]
struct BatchAttributes {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// `union bpf_attr` for `BPF_PROG_QUERY`.
#[derive(Debug, Default)]
#[repr(C)]
struct QueryAttributes {
    target_ifindex: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    count: u32,
    padding: u32,
    prog_attach_flags: u64,
    link_ids: u64,
    link_attach_flags: u64,
    revision: u64,
}

/// `union bpf_attr` for `BPF_OBJ_GET`.
#[derive(Debug, Default)]
#[repr(C)]
struct ObjectAttributes {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// `union bpf_attr` for `BPF_LINK_DETACH`.
#[derive(Debug, Default)]
#[repr(C)]
struct DetachAttributes {
    link_fd: u32,
}

/// A map whose entries are written and read by the thousand.
#[derive(Debug)]
pub(super) struct Batch<K, V> {
    map: OwnedFd,
    entry: PhantomData<(K, V)>,
}

impl<K: Pod, V: Pod> Batch<K, V> {
    /// `map` must have keys of the size of `K` and values of the size of `V`: aya checked both when
    /// it made its typed map of it.
    pub(super) fn new(map: BorrowedFd<'_>) -> io::Result<Self> {
        Ok(Self {
            map: map.try_clone_to_owned()?,
            entry: PhantomData,
        })
    }

    /// Inserts or replaces.
    pub(super) fn update(&self, keys: &[K], values: &[V]) -> io::Result<()> {
        for (keys, values) in keys.chunks(BATCH).zip(values.chunks(BATCH)) {
            let count = keys.len().min(values.len());
            let mut attributes = self.attributes(count);
            attributes.keys = address(keys.as_ptr());
            attributes.values = address(values.as_ptr());
            // SAFETY: the kernel reads `count` keys and values, which the slices have.
            unsafe { bpf(BPF_MAP_UPDATE_BATCH, &mut attributes) }?;
        }
        Ok(())
    }

    /// Removes keys that are there.
    pub(super) fn delete(&self, keys: &[K]) -> io::Result<()> {
        for keys in keys.chunks(BATCH) {
            let mut attributes = self.attributes(keys.len());
            attributes.keys = address(keys.as_ptr());
            // SAFETY: the kernel reads `count` keys, which the slice has.
            unsafe { bpf(BPF_MAP_DELETE_BATCH, &mut attributes) }?;
        }
        Ok(())
    }

    fn attributes(&self, count: usize) -> BatchAttributes {
        BatchAttributes {
            count: u32::try_from(count).unwrap_or(0),
            map_fd: self.map.as_raw_fd().cast_unsigned(),
            ..BatchAttributes::default()
        }
    }
}

impl<V: Pod> Batch<u32, V> {
    /// Gives `each` the `count` values of an array from index `first` on, with their indices.
    pub(super) fn read(
        &self,
        first: u32,
        count: u32,
        zero: V,
        mut each: impl FnMut(u32, V),
    ) -> io::Result<()> {
        let mut keys = vec![0_u32; BATCH];
        let mut values = vec![zero; BATCH];
        let mut next = first;
        let end = first.saturating_add(count);
        while next < end {
            // The kernel goes on after the key that it is given.
            let before = next.wrapping_sub(1);
            let mut last = 0_u32;
            let wanted = usize::try_from(end - next).unwrap_or(BATCH).min(BATCH);
            let mut attributes = self.attributes(wanted);
            attributes.in_batch = if next == 0 {
                0
            } else {
                address(&raw const before)
            };
            attributes.out_batch = address((&raw mut last).cast_const());
            attributes.keys = address(keys.as_mut_ptr());
            attributes.values = address(values.as_mut_ptr());
            // SAFETY: the kernel writes at most `count` keys and values, for which the vectors have
            // room, and one key each at `in_batch` and `out_batch`, which outlive the call; all are
            // types that any bytes are values of.
            let result = unsafe { bpf(BPF_MAP_LOOKUP_BATCH, &mut attributes) };
            match result {
                Err(error) if error.raw_os_error() != Some(libc::ENOENT) => return Err(error),
                _ if attributes.count == 0 => return Ok(()),
                _ => {}
            }
            let found = usize::try_from(attributes.count).unwrap_or(0);
            for (key, value) in keys.iter().zip(&values).take(found) {
                each(*key, *value);
                next = key.saturating_add(1);
            }
        }
        Ok(())
    }
}

/// Ids of the programs on the interface's tcx ingress hook, in their order. An error where the
/// kernel has no tcx.
pub(super) fn tcx_programs(ifindex: u32) -> io::Result<Vec<u32>> {
    let mut ids = vec![0_u32; MAX_PROGRAMS];
    let mut attributes = QueryAttributes {
        target_ifindex: ifindex,
        attach_type: BPF_TCX_INGRESS,
        prog_ids: ids.as_mut_ptr().expose_provenance() as u64,
        count: 64,
        ..QueryAttributes::default()
    };
    // SAFETY: the kernel writes at most `count` ids, for which the vector has room.
    unsafe { bpf(BPF_PROG_QUERY, &mut attributes) }?;
    ids.truncate(usize::try_from(attributes.count).unwrap_or(0));
    Ok(ids)
}

/// Detaches a link that is pinned at `path`, of XDP or tcx. Whoever only lets go of the last reference
/// to a link has the kernel detach it in the background.
pub(super) fn detach_pinned_link(path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attributes = ObjectAttributes {
        pathname: address(path.as_ptr()),
        ..ObjectAttributes::default()
    };
    // SAFETY: `path` is a string that ends with a zero and outlives the call.
    let link = unsafe { bpf(BPF_OBJ_GET, &mut attributes) }?;
    // SAFETY: the kernel has made this descriptor for this call.
    let link = unsafe { OwnedFd::from_raw_fd(link) };
    let mut attributes = DetachAttributes {
        link_fd: link.as_raw_fd().cast_unsigned(),
    };
    // SAFETY: nothing but a descriptor is passed.
    unsafe { bpf(BPF_LINK_DETACH, &mut attributes) }?;
    Ok(())
}

fn address<T>(pointer: *const T) -> u64 {
    pointer.expose_provenance() as u64
}

/// What the command returns: a descriptor, or 0.
///
/// # Safety
/// The addresses in `attributes` must be good for what `command` does with them.
unsafe fn bpf<T>(command: libc::c_long, attributes: &mut T) -> io::Result<i32> {
    // SAFETY: `attributes` is a `repr(C)` struct without padding, of the size that is given; the
    // rest is the contract of this function.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attributes, size_of::<T>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    i32::try_from(result).map_err(io::Error::other)
}
