//! A pod of `deploy/kubernetes`, played without a container runtime.
//!
//! `limiterd` runs as the manifest says: its arguments, its user, its capabilities and no others, without new
//! privileges, on a read-only root that has nothing but the volumes at their places (and the libraries that
//! the binary under test is linked to). What is left out: seccomp, a PID namespace, limits on resources.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::daemon::{Process, binary, eventually};
use crate::http_client::get;
use crate::kubernetes::Objects;
use crate::netns::Netns;
use crate::rls::health;
use crate::user::{Bpffs, open};
use crate::volume::Volume;

/// Where a node has its bpffs.
const BPFFS: &str = "/sys/fs/bpf";
/// What a runtime brings, and the binary's libraries.
const SYSTEM: [&str; 6] = ["proc", "sys", "bin", "lib", "lib64", "usr"];
/// `$0` is the root, `$1` the binary; then pairs of what is mounted and where, `--`, and what is run.
const SCRIPT: &str = r#"
mount --bind "$0" "$0"
mount --bind "$1" "$0/limiterd"
shift
while [ "$1" != -- ]; do
    mount --bind "$1" "$0$2"
    case "$2" in /sys|/usr|/bin|/lib*|/etc/limiterd) mount -o remount,bind,ro "$0$2" ;; esac
    shift 2
done
shift
mount -o remount,bind,ro "$0"
exec chroot "$0" "$@"
"#;

/// What a pod may mount of its node.
#[derive(Debug)]
pub struct Node {
    bpffs: Bpffs,
}

impl Node {
    /// One with a bpffs of its own, in place of `/sys/fs/bpf`.
    ///
    /// # Errors
    /// When it cannot be mounted.
    pub fn new() -> Result<Self> {
        let bpffs = Bpffs::mount()?;
        Ok(Self { bpffs })
    }

    /// The directory that is `path` on the node, made if it is not there.
    fn host_path(&self, volume: &Value) -> Result<PathBuf> {
        let path = volume["path"].as_str().context("no path")?;
        ensure!(volume["type"] == "DirectoryOrCreate", "{volume}");
        let inside = Path::new(path).strip_prefix(BPFFS)?;
        let dir = self.bpffs.path().join(inside);
        fs::create_dir_all(&dir)?;
        Ok(dir)
    }
}

/// A running pod; it ends when dropped.
#[derive(Debug)]
pub struct Pod {
    pub process: Process,
    container: Value,
    _root: TempDir,
}

impl Pod {
    /// Starts the pod of `objects` in `netns`. `policy` is its volume of policies, `hosts` its
    /// `/etc/hosts`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(
        objects: &Objects,
        netns: &Netns,
        node: &Node,
        policy: &Volume,
        hosts: &str,
    ) -> Result<Self> {
        let container = objects.container()?;
        let root = tempfile::tempdir_in("/tmp")?;
        open(root.path())?;
        fs::create_dir(root.path().join("etc"))?;
        fs::write(root.path().join("etc/hosts"), hosts)?;
        fs::write(
            root.path().join("etc/resolv.conf"),
            "nameserver 127.0.0.1\n",
        )?;
        fs::write(root.path().join("limiterd"), "")?;
        let mut mounts = system(root.path())?;
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        for mount in list(&container["volumeMounts"]) {
            let name = &mount["name"];
            let volumes = list(&objects.pod()?["volumes"]);
            let volume = volumes.iter().find(|volume| volume["name"] == *name);
            let volume = volume.with_context(|| format!("no volume {name}"))?;
            let source = if volume["projected"].is_object() {
                policy.path().to_owned()
            } else {
                node.host_path(&volume["hostPath"])?
            };
            let place = mount["mountPath"].as_str().context("no mountPath")?;
            fs::create_dir_all(root.path().join(place.trim_start_matches('/')))?;
            mounts.extend([source, place.into()]);
        }
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "sh", "-e", "-c", SCRIPT])
            .args([root.path(), binary()])
            .args(&mounts)
            .arg("--")
            .args(privileges(&container["securityContext"])?)
            .arg("/limiterd");
        for argument in list(&container["args"]) {
            command.arg(argument.as_str().context("an argument is no text")?);
        }
        Ok(Self {
            process: Process::spawn(netns, command)?,
            container: container.clone(),
            _root: root,
        })
    }

    /// Does what the kubelet does for a probe of this name: from `own`, the pod's network, where the probe
    /// names a host, and else from the node's, at the pod's address. Whether it succeeded.
    ///
    /// # Errors
    /// When it is not a probe that the kubelet could make.
    pub fn probe(&self, name: &str, own: &Netns, node: &Netns, address: &str) -> Result<bool> {
        let probe = &self.container[name];
        if probe["grpc"].is_object() {
            let address = format!("{address}:{}", self.port(&probe["grpc"]["port"])?);
            return Ok(health(node, &address, "").is_ok_and(|status| status == 1));
        }
        let get_of = &probe["httpGet"];
        let port = self.port(&get_of["port"])?;
        let path = get_of["path"].as_str().context("no path")?;
        let (from, host) = match get_of["host"].as_str() {
            Some(host) => (own, host),
            None => (node, address),
        };
        let answer = from.enter(|| Ok(get(&format!("http://{host}:{port}{path}"))))?;
        Ok(answer.is_ok_and(|answer| (200..400).contains(&answer.status.as_u16())))
    }

    /// Waits until a probe succeeds, or with `wanted: false` fails.
    ///
    /// # Errors
    /// When it does not, with the pod's output.
    pub fn await_probe(
        &self,
        name: &str,
        wanted: bool,
        [own, node]: [&Netns; 2],
        address: &str,
    ) -> Result<()> {
        eventually(name, || {
            let found = self.probe(name, own, node, address)?;
            Ok((found == wanted).then_some(()))
        })
        .with_context(|| self.process.output())
    }

    /// Waits until it has written `part`.
    ///
    /// # Errors
    /// When it does not, with what it has written.
    pub fn await_output(&self, part: &str) -> Result<()> {
        eventually(part, || {
            Ok(self.process.output().contains(part).then_some(()))
        })
        .with_context(|| self.process.output())
    }

    /// The number of a port, which may be given by the name that the container gives it.
    fn port(&self, port: &Value) -> Result<u64> {
        if let Some(number) = port.as_u64() {
            return Ok(number);
        }
        let ports = self.container["ports"].as_array().context("no ports")?;
        let found = ports.iter().find(|one| one["name"] == *port);
        let found = found.with_context(|| format!("no port {port}"))?;
        found["containerPort"].as_u64().context("no number")
    }
}

/// Pairs of what is mounted and where; links are made as the system has them.
fn system(root: &Path) -> Result<Vec<PathBuf>> {
    let mut mounts = Vec::new();
    for name in SYSTEM {
        let source = Path::new("/").join(name);
        if source.is_symlink() {
            symlink(fs::read_link(&source)?, root.join(name))?;
        } else if source.exists() {
            fs::create_dir(root.join(name))?;
            mounts.extend([source.clone(), source]);
        }
    }
    Ok(mounts)
}

/// How a runtime runs a container with this `securityContext`, as setpriv(1).
fn privileges(context: &Value) -> Result<Vec<String>> {
    for (field, wanted) in [
        ("privileged", false),
        ("allowPrivilegeEscalation", false),
        ("readOnlyRootFilesystem", true),
    ] {
        ensure!(context[field] == wanted, "{field} of {context}");
    }
    let capabilities = &context["capabilities"];
    ensure!(
        capabilities["drop"] == serde_json::json!(["ALL"]),
        "{capabilities}"
    );
    let mut sets = "-all".to_owned();
    for one in capabilities["add"].as_array().into_iter().flatten() {
        let Some(name) = one.as_str() else {
            bail!("{one} is not a capability");
        };
        sets += &format!(",+{}", name.to_lowercase());
    }
    let user = context["runAsUser"].as_u64().context("no user")?;
    let group = context["runAsGroup"].as_u64().context("no group")?;
    Ok(vec![
        "setpriv".to_owned(),
        format!("--reuid={user}"),
        format!("--regid={group}"),
        "--clear-groups".to_owned(),
        "--inh-caps=-all".to_owned(),
        "--ambient-caps=-all".to_owned(),
        format!("--bounding-set={sets}"),
        "--no-new-privs".to_owned(),
    ])
}
