//! Everything one does with this repository: `cargo xtask <command>`.
//!
//! The commands are listed in [`Command`]; each has a file of its own.

mod bench;
mod book;
mod build_cmd;
mod child;
mod cmd;
mod deny;
mod dist;
#[cfg(test)]
mod documented;
mod ebpf;
mod fuzz;
mod probe;
mod run;
mod setup;
mod soak;
mod test;
mod tidy;
#[expect(dead_code, reason = "xtask lints with it; the build script builds")]
#[path = "../../limiter-daemon/build/toolchain.rs"]
mod toolchain;
mod verify;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use cmd::Workspace;

/// Set-up, build, run, test and bench of limiterd.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Install what is missing on this machine
    Setup,
    /// Set up, then build target/release/limiterd with the eBPF program inside it
    Build,
    /// Build, then run the daemon on examples/quickstart with a demo backend
    Run(run::Args),
    /// Set up, then check the format, lint, build and test everything, and play the demo
    Test,
    /// Check the rules of this repository that no compiler checks
    Tidy,
    /// Check licences, advisories and sources of the dependencies
    Deny,
    /// Make what users are given: executable, Debian package, image, bill of materials, licences
    Dist(dist::Args),
    /// Make a book of the documents, in target/book
    Book,
    /// Measure limiterd beside its rivals
    Bench(bench::Args),
    /// Compare the kernel half's parser with a plain one on random frames
    Fuzz(fuzz::Args),
    /// Run the daemon under churn, and see that memory and descriptors stay flat
    Soak(soak::Args),
    /// Load the eBPF object through libbpf too, and see what it costs the verifier
    Verify(verify::Args),
    /// Run the kernel half's tests on other kernels, in virtual machines
    VmTest(vm::Args),
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    let workspace = Workspace::open()?;
    match command {
        Command::Setup => setup::setup(&workspace)?,
        Command::Build => build_cmd::build(&workspace)?,
        Command::Run(args) => return run::run(&workspace, &args),
        Command::Test => test::test(&workspace)?,
        Command::Tidy => tidy::tidy(&workspace)?,
        Command::Deny => deny::deny(&workspace)?,
        Command::Dist(args) => dist::dist(&workspace, &args)?,
        Command::Book => book::book(&workspace)?,
        Command::Bench(args) => bench::bench(&workspace, &args)?,
        Command::Fuzz(args) => fuzz::fuzz(&workspace, &args)?,
        Command::Soak(args) => soak::soak(&workspace, &args)?,
        Command::Verify(args) => verify::verify(&workspace, &args)?,
        Command::VmTest(args) => vm::vm_test(&workspace, &args)?,
    }
    Ok(ExitCode::SUCCESS)
}
