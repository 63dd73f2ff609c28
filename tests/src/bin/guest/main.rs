//! For guests of `cargo xtask vm-test`: `guest features` checks what the running kernel should
//! have, and `guest exit N` ends the virtual machine with a number.

mod bpf;
mod features;
mod port;

use std::env;
use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<_> = env::args().skip(1).collect();
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["features"] => features::check(),
        ["exit", number] => match number.parse() {
            Ok(number) => port::leave(number),
            Err(_) => Err(format!("`{number}` is not a number up to 255")),
        },
        _ => Err("usage: guest features | guest exit NUMBER".to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("guest: {error}");
            ExitCode::FAILURE
        }
    }
}
