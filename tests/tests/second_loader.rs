//! A second loader's opinion: libbpf takes the object that aya takes, and the kernel's verifier
//! needs about as many instructions for each program as were recorded.
//!
//! `cargo xtask verify` shows the figures, and records them with `--record`.

#![expect(
    clippy::unwrap_used,
    reason = "clippy takes the helpers of integration tests for production code"
)]

use std::collections::BTreeMap;
use std::env;
use std::ffi::{CStr, c_int};
use std::fs;
use std::io;
use std::mem::size_of_val;
use std::path::{Path, PathBuf};
use std::ptr::{self, NonNull};

use libbpf_sys as sys;

/// Where the figures are; the variable with which they are written anew.
const RECORD: &str = "verifier-insns.txt";
const RECORD_VARIABLE: &str = "VERIFIER_RECORD";
const HEADING: &str = "\
# Instructions that the verifier processed, by program; `cargo xtask verify --record` writes this.
";
/// A program that needs so many times its figure is to be looked at.
const TOLERATED: u32 = 2;

/// An object that libbpf opened.
struct Object(NonNull<sys::bpf_object>);

impl Object {
    fn open(bytes: &[u8]) -> io::Result<Self> {
        let size = u64::try_from(bytes.len()).unwrap();
        // SAFETY: so many bytes, which libbpf reads while it has the object; they are static. No
        // options are given.
        let object = unsafe { sys::bpf_object__open_mem(bytes.as_ptr().cast(), size, ptr::null()) };
        NonNull::new(object)
            .map(Self)
            .ok_or_else(io::Error::last_os_error)
    }

    /// Makes the maps and has the kernel verify every program.
    fn load(&self) -> io::Result<()> {
        // SAFETY: an open object.
        let result = unsafe { sys::bpf_object__load(self.0.as_ptr()) };
        if result == 0 {
            Ok(())
        } else {
            Err(io::Error::from_raw_os_error(-result))
        }
    }

    /// What the verifier processed, by program.
    fn instructions(&self) -> BTreeMap<String, u32> {
        let mut figures = BTreeMap::new();
        let mut program = ptr::null_mut();
        loop {
            // SAFETY: the object is open, and the program is none or one of its own.
            program = unsafe { sys::bpf_object__next_program(self.0.as_ptr(), program) };
            if program.is_null() {
                return figures;
            }
            // SAFETY: a program of the object, which owns the name.
            let name = unsafe { CStr::from_ptr(sys::bpf_program__name(program)) };
            // SAFETY: a program of the object.
            let fd = unsafe { sys::bpf_program__fd(program) };
            let name = name.to_str().unwrap().to_owned();
            figures.insert(name, verified_instructions(fd).unwrap());
        }
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        // SAFETY: opened by us, and not used after this.
        unsafe { sys::bpf_object__close(self.0.as_ptr()) };
    }
}

fn verified_instructions(fd: c_int) -> io::Result<u32> {
    let mut info = sys::bpf_prog_info::default();
    let mut length = u32::try_from(size_of_val(&info)).unwrap();
    // SAFETY: the kernel writes so many bytes at most; all lengths inside are 0, so it follows no
    // address.
    let result = unsafe {
        sys::bpf_obj_get_info_by_fd(fd, ptr::from_mut(&mut info).cast(), &raw mut length)
    };
    if result == 0 {
        Ok(info.verified_insns)
    } else {
        Err(io::Error::from_raw_os_error(-result))
    }
}

fn record() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(RECORD)
}

fn read(text: &str) -> BTreeMap<String, u32> {
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let (name, figure) = line.split_once(' ').expect("a name and a figure");
            (name.to_owned(), figure.parse().expect("a number"))
        })
        .collect()
}

fn write(figures: &BTreeMap<String, u32>) -> String {
    let mut text = HEADING.to_owned();
    for (name, figure) in figures {
        text += &format!("{name} {figure}\n");
    }
    text
}

/// What is wrong with the figures.
fn complaints(figures: &BTreeMap<String, u32>, recorded: &BTreeMap<String, u32>) -> Vec<String> {
    let mut wrong = Vec::new();
    for (name, figure) in figures {
        match recorded.get(name) {
            None => wrong.push(format!("{name} is not recorded; it needs {figure}")),
            Some(before) if *figure > before * TOLERATED => wrong.push(format!(
                "{name} needs {figure}, more than {TOLERATED} times the {before} recorded"
            )),
            Some(_) => {}
        }
    }
    for name in recorded.keys().filter(|name| !figures.contains_key(*name)) {
        wrong.push(format!("{name} is recorded, and not in the object"));
    }
    wrong
}

#[test]
fn libbpf_loads_the_object_and_the_verifier_needs_what_it_needed() {
    let object = Object::open(limiter_daemon::l4::object())
        .and_then(|object| object.load().map(|()| object))
        .expect("libbpf loads the object; what it and the verifier say is above");
    let figures = object.instructions();
    println!("{}", write(&figures));
    if env::var_os(RECORD_VARIABLE).is_some() {
        fs::write(record(), write(&figures)).unwrap();
    }
    let recorded = read(&fs::read_to_string(record()).unwrap());
    let wrong = complaints(&figures, &recorded);
    assert!(
        wrong.is_empty(),
        "{}\nif that is meant to be: `cargo xtask verify --record`",
        wrong.join("\n")
    );
}

#[test]
fn a_program_that_doubles_is_told() {
    let recorded = read("# heading\nlimiter 100\ngone 1\n");
    let figures = BTreeMap::from([("limiter".to_owned(), 201), ("new".to_owned(), 5)]);
    let wrong = complaints(&figures, &recorded);
    assert_eq!(wrong.len(), 3, "{wrong:?}");
    assert!(wrong[0].contains("201, more than 2 times the 100"));
    assert_eq!(
        complaints(&read("limiter 200\ngone 1\n"), &recorded),
        Vec::<String>::new()
    );
}
