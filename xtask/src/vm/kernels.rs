//! The kernels: the newest of each line that the suites have, unpacked.
//!
//! Versions roll and old ones vanish from the suites, so which one it is is found out at run time.
//! From 6.19 on the image is an empty package, and kernel and modules are two others.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use xshell::cmd;

use super::apt::Apt;
use super::{Line, Wanted};
use crate::cmd::Workspace;

const PATTERN: &str = "^linux-(image|binary|modules)-[0-9].*-cloud-amd64$";

/// Kernels to be had.
pub(super) struct Kernels {
    apt: Apt,
    directory: PathBuf,
    names: Vec<String>,
}

/// An unpacked kernel.
pub(super) struct Kernel {
    /// As `uname -r` says it.
    pub(super) name: String,
    pub(super) line: Line,
    directory: PathBuf,
}

impl Kernels {
    pub(super) fn open(workspace: &Workspace, apt: Apt, directory: &Path) -> Result<Self> {
        let names = apt.names(workspace, PATTERN)?;
        Ok(Self {
            apt,
            directory: directory.to_owned(),
            names,
        })
    }

    /// Whether the suites have a kernel of this line.
    pub(super) fn has(&self, line: Line) -> bool {
        resolve(&self.names, Wanted::Line(line)).is_some()
    }

    /// Downloads and unpacks a kernel, unless it is there.
    pub(super) fn fetch(&self, workspace: &Workspace, wanted: Wanted) -> Result<Kernel> {
        let (name, packages) = resolve(&self.names, wanted)
            .with_context(|| format!("the suites have no kernel for {wanted:?}"))?;
        let line = line_of(&name).context("a kernel without a version")?;
        let kernel = Kernel {
            directory: self.directory.join("kernels").join(&name),
            name,
            line,
        };
        if !kernel.directory.is_dir() {
            println!("{}: downloading", kernel.name);
            let debs = self
                .apt
                .download(workspace, &packages, &self.directory.join("debs"))?;
            kernel.unpack(workspace, &debs)?;
        }
        Ok(kernel)
    }
}

impl Kernel {
    /// The image to boot.
    pub(super) fn image(&self) -> Result<PathBuf> {
        let name = &self.name;
        let places = [
            format!("boot/vmlinuz-{name}"),
            format!("usr/lib/modules/{name}/vmlinuz"),
        ];
        places
            .iter()
            .map(|place| self.directory.join(place))
            .find(|path| path.is_file())
            .with_context(|| format!("the packages of {name} have no image"))
    }

    /// The directory of all modules, with their index.
    pub(super) fn modules_directory(&self) -> Result<PathBuf> {
        let places = ["usr/lib/modules", "lib/modules"];
        places
            .iter()
            .map(|place| self.directory.join(place).join(&self.name))
            .find(|path| path.join("modules.dep").is_file())
            .with_context(|| format!("{} has no modules", self.name))
    }

    /// Files of these modules and of what they need, in the order of loading.
    pub(super) fn modules(&self, workspace: &Workspace, wanted: &[&str]) -> Result<Vec<PathBuf>> {
        let (directory, name) = (&self.directory, &self.name);
        let mut files = Vec::new();
        for module in wanted {
            // Without the machine's /etc/modprobe.d.
            let steps = cmd!(
                workspace.sh,
                "modprobe --config /dev/null --dirname {directory} --set-version {name} --show-depends {module}"
            )
            .quiet()
            .read()
            .with_context(|| format!("{name} has no module {module}"))?;
            for step in steps.lines() {
                let Some(file) = step.trim().strip_prefix("insmod ") else {
                    ensure!(step.starts_with("builtin "), "modprobe said `{step}`");
                    continue;
                };
                let file = PathBuf::from(file);
                if !files.contains(&file) {
                    files.push(file);
                }
            }
        }
        Ok(files)
    }

    /// Into another place first: a directory that has its name is complete.
    fn unpack(&self, workspace: &Workspace, debs: &[PathBuf]) -> Result<()> {
        let partial = self.directory.with_file_name(format!(".{}", self.name));
        if partial.exists() {
            fs::remove_dir_all(&partial)?;
        }
        fs::create_dir_all(&partial)?;
        let sh = &workspace.sh;
        for deb in debs {
            cmd!(sh, "dpkg-deb --extract {deb} {partial}")
                .quiet()
                .run()?;
        }
        if !partial.join("lib").exists() {
            symlink("usr/lib", partial.join("lib"))?;
        }
        let name = &self.name;
        cmd!(sh, "depmod --basedir {partial} {name}")
            .quiet()
            .run()?;
        fs::rename(&partial, &self.directory)?;
        Ok(())
    }
}

/// The newest kernel that can be had whole: its name, and its packages.
fn resolve(names: &[String], wanted: Wanted) -> Option<(String, Vec<String>)> {
    let has = |name: &String| names.contains(name);
    names
        .iter()
        .filter_map(|name| name.strip_prefix("linux-image-"))
        .filter(|kernel| match wanted {
            Wanted::Line(line) => line_of(kernel) == Some(line),
            Wanted::Newest => true,
        })
        .filter_map(|kernel| {
            let split = ["binary", "modules"].map(|part| format!("linux-{part}-{kernel}"));
            let packages = match split.iter().filter(|name| has(name)).count() {
                0 => vec![format!("linux-image-{kernel}")],
                2 => split.to_vec(),
                _ => return None,
            };
            Some((kernel.to_owned(), packages))
        })
        .max_by_key(|(kernel, _)| numbers(kernel))
}

fn line_of(kernel: &str) -> Option<Line> {
    match numbers(kernel).as_slice() {
        [major, minor, _, ..] => Some(Line(*major, *minor)),
        _ => None,
    }
}

/// `6.12.117+deb13-cloud-amd64` is 6, 12, 117, 13: newer kernels have greater ones.
fn numbers(kernel: &str) -> Vec<u32> {
    let version = kernel.trim_end_matches("-cloud-amd64");
    version
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|number| number.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{Line, Wanted, resolve};

    fn newest(names: &[&str], wanted: Wanted) -> Option<(String, Vec<String>)> {
        let names: Vec<_> = names
            .iter()
            .map(|name| format!("linux-{name}-cloud-amd64"))
            .collect();
        resolve(&names, wanted)
    }

    #[test]
    fn the_newest_of_a_line_is_taken() {
        let names = [
            "image-6.1.0-9",
            "image-6.1.0-56",
            "image-6.1.0-0.deb11.52",
            "image-6.12.95+deb12",
            "image-6.12",
        ];
        let (kernel, packages) = newest(&names, Wanted::Line(Line(6, 1))).unwrap();
        assert_eq!(kernel, "6.1.0-56-cloud-amd64");
        assert_eq!(packages, ["linux-image-6.1.0-56-cloud-amd64"]);
        let (kernel, _) = newest(&names, Wanted::Line(Line(6, 12))).unwrap();
        assert_eq!(kernel, "6.12.95+deb12-cloud-amd64");
        assert_eq!(newest(&names, Wanted::Line(Line(6, 6))), None);
    }

    #[test]
    fn a_kernel_in_two_packages_is_taken_whole_or_not_at_all() {
        let names = [
            "image-7.3.4+deb13",
            "binary-7.3.4+deb13",
            "modules-7.3.4+deb13",
            "image-7.4.1+deb13",
            "binary-7.4.1+deb13",
        ];
        let (kernel, packages) = newest(&names, Wanted::Newest).unwrap();
        assert_eq!(kernel, "7.3.4+deb13-cloud-amd64");
        assert_eq!(
            packages,
            [
                "linux-binary-7.3.4+deb13-cloud-amd64",
                "linux-modules-7.3.4+deb13-cloud-amd64"
            ]
        );
    }
}
