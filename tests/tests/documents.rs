//! The commands in the documents do what they say: those of a document are run one after the other, in a
//! network namespace and a directory of its own, beside the daemon where a block asks for one, and print
//! what stands there.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use regex::Regex;
use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;
use tests::daemon::{Daemon, Process, binary, demo_backend};
use tests::envoy;
use tests::netns::Netns;

#[path = "../../limiter-daemon/tests/documents_support/mod.rs"]
mod documents_support;

use documents_support::{Block, blocks, blocks_of, workspace};

/// A desk at which the commands of one document are typed.
struct Desk {
    netns: Netns,
    dir: TempDir,
    /// Process groups of what was typed; some of it goes on.
    groups: Vec<Pid>,
    daemon: Option<(Daemon, Process)>,
}

impl Desk {
    fn new() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let bin = dir.path().join("bin");
        fs::create_dir(&bin)?;
        symlink(binary(), bin.join("limiterd"))?;
        // Tests are root.
        let sudo = bin.join("sudo");
        fs::write(&sudo, "#!/bin/sh\nexec \"$@\"\n")?;
        fs::set_permissions(&sudo, fs::Permissions::from_mode(0o755))?;
        let here = dir.path().join("here");
        fs::create_dir(&here)?;
        for shared in ["examples", "deploy"] {
            symlink(
                fs::canonicalize(workspace().join(shared))?,
                here.join(shared),
            )?;
        }
        Ok(Self {
            netns: Netns::new("documents")?,
            dir,
            groups: Vec::new(),
            daemon: None,
        })
    }

    fn here(&self) -> PathBuf {
        self.dir.path().join("here")
    }

    /// With paths that no other test has.
    fn own(&self, text: &str) -> Result<String> {
        let pins = Regex::new("/sys/fs/bpf/limiterd[a-z-]*")?;
        let own = format!("/sys/fs/bpf/{}", self.netns.name());
        let text = pins.replace_all(text, own.as_str());
        let own = format!("{}/", self.dir.path().display());
        Ok(text.replace("/tmp/", &own))
    }

    /// Starts the daemon on the files of `dir`, with a backend behind it, unless it runs.
    fn start(&mut self, dir: &str) -> Result<()> {
        if self.daemon.is_some() {
            return Ok(());
        }
        let own = self.dir.path().join("policy");
        fs::create_dir(&own)?;
        for file in fs::read_dir(workspace().join(dir))? {
            let file = file?;
            let text = self.own(&fs::read_to_string(file.path())?)?;
            fs::write(own.join(file.file_name()), text)?;
        }
        let backend = demo_backend(&self.netns)?;
        self.daemon = Some((Daemon::start(&self.netns, &own)?, backend));
        Ok(())
    }

    /// Puts a file where the document says that it is.
    fn write(&self, block: &Block, name: &str) -> Result<()> {
        let path = self.here().join(name);
        fs::create_dir_all(path.parent().context("no folder")?)?;
        Ok(fs::write(path, self.own(&block.text)?)?)
    }

    /// Types a script; what it has printed.
    fn run(&mut self, script: &str) -> Result<String> {
        let script = &self.own(script)?;
        let out = self.dir.path().join(format!("out-{}", self.groups.len()));
        let path = std::env::var("PATH").unwrap_or_default();
        let path = format!("{}:{path}", self.dir.path().join("bin").display());
        let mut command = Command::new("sh");
        command
            .args(["-e", "-c", script])
            .env("PATH", path)
            .env("NO_COLOR", "1")
            .current_dir(self.here())
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(File::create(&out)?)
            .stderr(File::options().append(true).open(&out)?);
        let (status, id) = self.netns.enter(|| {
            let mut child = command.spawn()?;
            Ok((child.wait()?, i32::try_from(child.id())?))
        })?;
        self.groups.extend(Pid::from_raw(id));
        let said = fs::read_to_string(&out)?;
        ensure!(status.success(), "{status}: {script}\n{said}");
        Ok(said)
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        for group in &self.groups {
            // Most of them have ended.
            let _gone = kill_process_group(*group, Signal::KILL);
        }
        self.daemon.take();
        let pins = Path::new("/sys/fs/bpf").join(self.netns.name());
        let _none = fs::remove_dir_all(pins);
    }
}

/// Whether what was said is what is shown; `...` stands for anything, as a line for any lines.
fn is_shown(said: &str, shown: &str) -> Result<bool> {
    let squeeze = |text: &str| -> String {
        let lines = text
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
        let lines = lines.filter(|line| !line.is_empty());
        lines.map(|line| format!("{line}\n")).collect()
    };
    let mut pattern = "^".to_owned();
    for line in squeeze(shown).lines() {
        if line == "..." {
            pattern.push_str("(?:.*\n)*?");
        } else {
            let parts: Vec<_> = line.split("...").map(regex::escape).collect();
            pattern.push_str(&format!("{}\n", parts.join(".*")));
        }
    }
    pattern.push('$');
    Ok(Regex::new(&pattern)?.is_match(&squeeze(said)))
}

/// Each command of a block of the console, and what it prints.
fn dialogue(block: &Block) -> Vec<(String, String)> {
    let mut said: Vec<(String, String)> = Vec::new();
    for line in block.text.lines() {
        match (line.strip_prefix("$ "), said.last_mut()) {
            (Some(command), _) => said.push((command.to_owned(), String::new())),
            (None, Some((_, output))) => output.push_str(&format!("{line}\n")),
            (None, None) => {}
        }
    }
    said
}

/// Does what a block says.
fn follow(desk: &mut Desk, block: &Block) -> Result<()> {
    if let Some(name) = block.attributes.get("file") {
        return desk.write(block, name);
    }
    if !block.has_commands() || block.has("parsed") {
        return Ok(());
    }
    if let Some(dir) = block.attributes.get("daemon") {
        desk.start(dir)?;
    }
    if block.language == "sh" {
        return desk.run(&block.text).map(drop);
    }
    for (command, shown) in dialogue(block) {
        let said = desk.run(&command)?;
        ensure!(
            is_shown(&said, &shown)?,
            "{command}\n--- shown\n{shown}--- said\n{said}"
        );
    }
    Ok(())
}

#[test]
fn commands_do_what_the_documents_say() -> Result<()> {
    let mut failures = Vec::new();
    let all = blocks();
    for document in all.chunk_by(|a, b| a.document == b.document) {
        let runs = |block: &Block| block.has_commands() && !block.has("parsed");
        if !document.iter().any(runs) {
            continue;
        }
        let mut desk = Desk::new()?;
        for block in document {
            if let Err(error) = follow(&mut desk, block) {
                failures.push(format!("{}: {error:#}", block.place()));
                break;
            }
        }
    }
    ensure!(failures.is_empty(), "{}", failures.join("\n"));
    Ok(())
}

#[test]
fn what_is_not_shown_is_noticed() -> Result<()> {
    assert!(is_shown("a  1\n\nb 2\nc\nd\n", "a ...\n...\nd\n")?);
    assert!(is_shown("a 1\n", "...\n")?);
    assert!(!is_shown("a 1\nb\n", "a 1\n")?);
    assert!(!is_shown("a 1.5\n", "a 1x5\n")?);
    let block = &blocks_of("a.md", "```console\n$ echo b\na\n```\n")[0];
    let error = follow(&mut Desk::new()?, block).err().context("no error")?;
    assert!(error.to_string().contains("echo b"), "{error}");
    let block = &blocks_of("a.md", "```sh\nfalse | true\nfalse\n```\n")[0];
    assert!(follow(&mut Desk::new()?, block).is_err());
    Ok(())
}

#[test]
fn envoy_takes_the_filter() -> Result<()> {
    let all = blocks();
    let mut filters = all.iter().filter(|block| {
        block
            .attributes
            .get("by")
            .is_some_and(|test| test.ends_with("::envoy_takes_the_filter"))
    });
    let filter = filters.next().context("no block")?;
    let filters: String = filter
        .text
        .lines()
        .map(|line| format!("          {line}\n"))
        .collect();
    envoy::validate(&format!(
        r#"static_resources:
  listeners:
  - address: {{ socket_address: {{ address: 127.0.0.1, port_value: 18080 }} }}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: edge
          route_config: {{ virtual_hosts: [{{ name: all, domains: ["*"] }}] }}
{filters}          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
  clusters:
  - name: limiterd
    type: STATIC
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {{ http2_protocol_options: {{}} }}
    load_assignment:
      cluster_name: limiterd
      endpoints: [{{ lb_endpoints: [{{ endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: 8081 }} }} }} }}] }}]
"#
    ))
}
