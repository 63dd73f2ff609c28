//! What a million buckets weigh: the memory of a server before and after as many users came once.

use std::collections::HashMap;
use std::fs;
use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};

use super::Run;
use super::http::READY_DEADLINE;
use super::servers::{Kind, Listener, Ports, SERVERS, pinned, start_small};
use crate::probe;

pub(super) fn bench(run: &mut Run<'_>) -> Result<()> {
    println!(
        "\nmemory for {} distinct values of a header, each with a bucket\n",
        run.values
    );
    println!("| | before, MiB | after, MiB | bytes a bucket |\n|---|---|---|---|");
    for server in SERVERS {
        run.wait_for(server, Listener::Distinct, 200)?;
        ensure!(!run.interrupt.seen(), "interrupted");
        let before = if server == Kind::Limiterd {
            // Its table is there from the start, the others' grow: one without a table is asked.
            without_table(run)?
        } else {
            warm_up(run, server, run.ports.of(server, Listener::Proxied))?;
            memory(run.rivals.server(server)?.id())?
        };
        visit(run, server)?;
        let after = memory(run.rivals.server(server)?.id())?;
        let mib = |bytes: u64| bytes >> 20;
        println!(
            "| {} | {} | {} | {} |",
            server.name(),
            mib(before),
            mib(after),
            after.saturating_sub(before) / u64::from(run.values)
        );
    }
    Ok(())
}

/// As many users as [`Run::values`], each once.
fn visit(run: &Run<'_>, server: Kind) -> Result<()> {
    let address = run.ports.of(server, Listener::Distinct).to_string();
    client(
        run,
        server,
        &["distinct", &address, &run.values.to_string()],
    )
}

/// Memory of a limiterd with hardly a bucket.
fn without_table(run: &Run<'_>) -> Result<u64> {
    let ports = Ports::free()?;
    let mut server = start_small(run.workspace, &run.programs, &ports, run.cpu)?;
    let address = ports.of(Kind::Limiterd, Listener::Distinct);
    let servers = &mut [&mut server];
    let interrupt = &run.interrupt;
    // Its upstream is none that runs.
    probe::wait_for(503, address, "/", READY_DEADLINE, interrupt, servers)?;
    memory(server.id())
}

/// Warms the allocator and the pools of connections, and makes no bucket.
fn warm_up(run: &Run<'_>, server: Kind, address: SocketAddr) -> Result<()> {
    let rate = run.rate.to_string();
    client(run, server, &["latency", &address.to_string(), &rate, "1"])
}

fn client(run: &Run<'_>, server: Kind, args: &[&str]) -> Result<()> {
    let output = pinned(run.client_cpu)
        .arg(&run.programs.client)
        .args(args)
        .output()
        .context("the client cannot be run")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {errors}", server.name());
    Ok(())
}

/// Bytes that a process and its descendants hold, what they share counted once.
fn memory(root: u32) -> Result<u64> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        // One that has ended meanwhile is not ours.
        if let Some(parent) = parent(pid) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut sum = 0;
    let mut todo = vec![root];
    while let Some(pid) = todo.pop() {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))
            .with_context(|| format!("process {pid} has ended"))?;
        sum += proportional(&rollup).context("no Pss in smaps_rollup")?;
        todo.extend(children.remove(&pid).unwrap_or_default());
    }
    Ok(sum)
}

fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets may hold anything: what follows it is counted.
    let rest = stat.rsplit_once(')')?.1;
    rest.split_whitespace().nth(1)?.parse().ok()
}

/// The bytes of `Pss`.
fn proportional(rollup: &str) -> Option<u64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read() {
        let rollup = "55d0-7ffd ---p 00000000 00:00 0 [rollup]\nRss: 2048 kB\nPss:    1024 kB\n";
        assert_eq!(proportional(rollup), Some(1 << 20));
        // A process of its own: this one's children come and go with other tests.
        let mut child = std::process::Command::new("cat")
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        assert!(memory(child.id()).unwrap() > 0);
        drop(child.stdin.take());
        assert!(child.wait().unwrap().success());
    }
}
