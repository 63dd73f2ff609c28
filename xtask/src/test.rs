//! `cargo xtask test`: what must hold before a change goes in. CI runs just this.

use std::time::Duration;

use anyhow::{Context as _, Result};
use xshell::cmd;

use crate::cmd::{Stopwatch, Workspace, need_root};
use crate::{dist, ebpf, setup, tidy, vm};

/// A step: its name, and what it does.
type Step = (&'static str, fn(&Workspace) -> Result<()>);

/// In the order in which they fail fastest. What is built for the tests is built with their
/// features from the start: a plain `cargo build` has fewer, and all would be built, and kept, twice.
const STEPS: &[Step] = &[
    ("set-up", setup::setup),
    ("tidy", tidy::tidy),
    ("format", |w| {
        Ok(cmd!(w.sh, "cargo fmt --all --check").run()?)
    }),
    ("clippy", clippy),
    ("clippy, BPF target", ebpf::clippy),
    ("documentation", documentation),
    ("dependencies", crate::deny::offline),
    ("build", |w| {
        Ok(cmd!(
            w.sh,
            "cargo test --workspace --exclude limiter-ebpf --no-run"
        )
        .run()?)
    }),
    ("tests", tests),
    ("other kernels", vm::for_ci),
    ("release build", |w| dist::executable(w).map(drop)),
    ("package and image", dist::for_ci),
    ("demo", demo),
];

pub(crate) fn test(workspace: &Workspace) -> Result<()> {
    need_root("`cargo xtask test`")?;
    let mut done = Vec::new();
    for (index, (name, step)) in STEPS.iter().enumerate() {
        println!("\n=== {}/{} {name}", index + 1, STEPS.len());
        let clock = Stopwatch::start();
        let result = step(workspace);
        let verdict = if result.is_ok() { "ok" } else { "FAILED" };
        println!("=== {name}: {verdict} ({:.1?})", clock.elapsed());
        done.push((*name, verdict, clock.elapsed()));
        if let Err(error) = result {
            print!("{}", table(&done));
            return Err(error).with_context(|| format!("step `{name}` failed"));
        }
    }
    print!("{}", table(&done));
    Ok(())
}

fn clippy(workspace: &Workspace) -> Result<()> {
    cmd!(
        workspace.sh,
        "cargo clippy --workspace --exclude limiter-ebpf --all-targets -- -D warnings"
    )
    .run()?;
    Ok(())
}

fn documentation(workspace: &Workspace) -> Result<()> {
    cmd!(
        workspace.sh,
        "cargo doc --workspace --exclude limiter-ebpf --no-deps"
    )
    .env("RUSTDOCFLAGS", "-D warnings")
    .run()?;
    Ok(())
}

/// The scenarios run the binary that the step before built.
fn tests(workspace: &Workspace) -> Result<()> {
    let kubernetes = setup::kubernetes(workspace)?;
    cmd!(
        workspace.sh,
        "cargo test --workspace --exclude limiter-ebpf"
    )
    .env("LIMITERD_BIN", workspace.root.join("target/debug/limiterd"))
    .env("ENVOY", setup::envoy(workspace)?)
    .env("VALKEY", setup::valkey(workspace)?)
    .env("PROMETHEUS", setup::prometheus(workspace)?)
    .env("KUBECTL", kubernetes.kubectl)
    .env("HELM", kubernetes.helm)
    .env("KUBERNETES_VALIDATE", kubernetes.validate)
    .run()?;
    Ok(())
}

/// What users get, played by the demo as the step `build` made it: alone it would be built anew, with
/// other features.
fn demo(workspace: &Workspace) -> Result<()> {
    let demo = workspace.target_dir().join("debug/demo");
    cmd!(workspace.sh, "{demo}")
        .env("LIMITERD_BIN", dist::executable(workspace)?)
        .run()
        .context("the numbers of the demo are not what its policy says")
}

fn table(done: &[(&str, &str, Duration)]) -> String {
    let mut lines = String::from("\n");
    for (name, verdict, time) in done {
        lines += &format!("{name:<20} {verdict:<6} {:>8.1} s\n", time.as_secs_f64());
    }
    let total: Duration = done.iter().map(|(_, _, time)| *time).sum();
    lines += &format!("{:<20} {:<6} {:>8.1} s\n", "total", "", total.as_secs_f64());
    lines
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::table;

    #[test]
    fn the_table_has_a_line_a_step_and_a_total() {
        let text = table(&[
            ("format", "ok", Duration::from_millis(500)),
            ("clippy", "FAILED", Duration::from_millis(1500)),
        ]);
        assert!(
            text.contains("format               ok          0.5 s\n"),
            "{text}"
        );
        assert!(
            text.contains("clippy               FAILED      1.5 s\n"),
            "{text}"
        );
        assert!(text.ends_with("2.0 s\n"), "{text}");
    }
}
