//! An apt of our own: lists, state and cache under `target/vm`, the machine's stay as they are.
//!
//! The suites are Debian's; which mirrors serve them is taken from the machine's own apt.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use xshell::{Cmd, cmd};

use crate::cmd::Workspace;

/// Suites with kernels, oldest first. Security suites are on a mirror of their own.
const SUITES: &[&str] = &[
    "bullseye-security",
    "bookworm-security",
    "bookworm-backports",
    "trixie-security",
    "trixie-backports",
    "sid",
];
/// Codenames that tell Debian's suites from those of other repositories.
const CODENAMES: &[&str] = &[
    "bullseye", "bookworm", "trixie", "forky", "sid", "stable", "testing", "unstable",
];
/// Where the machine's apt does not tell: the mirror of the suites, and that of the security ones.
const MIRROR: &str = "VM_MIRROR";
const SECURITY_MIRROR: &str = "VM_SECURITY_MIRROR";

/// Package lists are good for a day.
const FRESH: Duration = Duration::from_secs(24 * 3600);

/// apt with a configuration of its own.
pub(super) struct Apt {
    config: PathBuf,
    directory: PathBuf,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mirrors {
    pub(super) main: String,
    pub(super) security: String,
}

impl Apt {
    /// Writes the configuration, and fetches the lists unless they are fresh.
    pub(super) fn open(workspace: &Workspace, directory: &Path) -> Result<Self> {
        let directory = std::path::absolute(directory.join("apt"))?;
        for sub in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(directory.join(sub))?;
        }
        let mirrors = mirrors(workspace)?;
        fs::write(directory.join("status"), "")?;
        fs::write(directory.join("sources.list"), sources(&mirrors))?;
        let config = directory.join("apt.conf");
        fs::write(&config, configuration(&directory))?;
        let apt = Self { config, directory };
        apt.update(workspace)?;
        Ok(apt)
    }

    /// Names of packages that match a regular expression.
    pub(super) fn names(&self, workspace: &Workspace, pattern: &str) -> Result<Vec<String>> {
        let config = &self.config;
        let found = cmd!(
            workspace.sh,
            "apt-cache --config-file {config} search --names-only {pattern}"
        )
        .quiet()
        .read()?;
        let names = found.lines().filter_map(|line| line.split(' ').next());
        Ok(names.map(str::to_owned).collect())
    }

    /// Downloads packages into `into`; the files, in the order of the names.
    pub(super) fn download(
        &self,
        workspace: &Workspace,
        packages: &[String],
        into: &Path,
    ) -> Result<Vec<PathBuf>> {
        fs::create_dir_all(into)?;
        let _back = workspace.sh.push_dir(into);
        let config = &self.config;
        self.quiet(cmd!(
            workspace.sh,
            "apt-get --config-file {config} --quiet download {packages...}"
        ))?;
        packages.iter().map(|package| deb(into, package)).collect()
    }

    fn update(&self, workspace: &Workspace) -> Result<()> {
        // Written after an update that went well; for other suites the lists are others.
        let stamp = self.directory.join("fetched");
        let sources = fs::read_to_string(self.directory.join("sources.list"))?;
        if fs::read_to_string(&stamp).is_ok_and(|fetched| fetched == sources) && is_fresh(&stamp) {
            return Ok(());
        }
        let config = &self.config;
        let updated = self.quiet(cmd!(
            workspace.sh,
            "apt-get --config-file {config} --quiet update"
        ));
        match updated {
            Ok(()) => fs::write(stamp, sources)?,
            // A suite may be gone; whether the others have the kernels shows.
            Err(error) => println!("vm-test: the package lists may be old: {error:#}"),
        }
        Ok(())
    }

    fn quiet(&self, command: Cmd<'_>) -> Result<()> {
        command
            .env("LC_ALL", "C")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .ignore_stdout()
            .run()?;
        Ok(())
    }
}

/// Whether a file is less than a day old.
#[expect(
    clippy::disallowed_methods,
    reason = "the age of a file, which decides about fetching lists and nothing else"
)]
pub(super) fn is_fresh(stamp: &Path) -> bool {
    let modified = fs::metadata(stamp).and_then(|metadata| metadata.modified());
    modified.is_ok_and(|modified| {
        std::time::SystemTime::now()
            .duration_since(modified)
            .is_ok_and(|age| age < FRESH)
    })
}

/// The package's file; apt writes its version behind the name.
fn deb(directory: &Path, package: &str) -> Result<PathBuf> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry
            .file_name()
            .to_str()
            .is_some_and(|name| name.starts_with(&format!("{package}_")))
        {
            return Ok(entry.path());
        }
    }
    bail!("apt-get downloaded {package}, and there is no such file")
}

/// `--config-file` is read after the machine's files, so it has the last word; the machine's
/// hooks are for the machine's lists.
fn configuration(directory: &Path) -> String {
    let directory = directory.display();
    format!(
        "\
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear Acquire::IndexTargets;
Acquire::IndexTargets::deb::Packages {{
  MetaKey \"$(COMPONENT)/binary-$(ARCHITECTURE)/Packages\";
  flatMetaKey \"Packages\";
  ShortDescription \"Packages\";
  Description \"$(RELEASE)/$(COMPONENT) $(ARCHITECTURE) Packages\";
  Optional \"no\";
}};
Acquire::Languages \"none\";
APT::Architecture \"amd64\";
APT::Architectures {{ \"amd64\"; }};
APT::Sandbox::User \"root\";
Dir::State::Lists \"{directory}/lists\";
Dir::State::status \"{directory}/status\";
Dir::Cache \"{directory}/cache\";
Dir::Etc::SourceList \"{directory}/sources.list\";
Dir::Etc::SourceParts \"/dev/null\";
Dir::Etc::Preferences \"/dev/null\";
Dir::Etc::PreferencesParts \"/dev/null\";
"
    )
}

fn sources(mirrors: &Mirrors) -> String {
    SUITES
        .iter()
        .map(|suite| {
            let mirror = if is_security(suite) {
                &mirrors.security
            } else {
                &mirrors.main
            };
            format!("deb {mirror} {suite} main\n")
        })
        .collect()
}

/// Where this machine has Debian's suites from.
pub(super) fn mirrors(workspace: &Workspace) -> Result<Mirrors> {
    if let (Ok(main), Ok(security)) = (workspace.sh.var(MIRROR), workspace.sh.var(SECURITY_MIRROR))
    {
        return Ok(Mirrors { main, security });
    }
    let format = "$(REPO_URI) $(RELEASE) $(ORIGIN)";
    let targets = cmd!(
        workspace.sh,
        "apt-get indextargets --format {format} 'Created-By: Packages'"
    )
    .quiet()
    .read()?;
    let found = mirrors_in(&targets).with_context(|| {
        format!(
            "the kernels are Debian's, and this machine's apt knows no mirror of Debian; \
             set {MIRROR} and {SECURITY_MIRROR}"
        )
    })?;
    ensure!(
        !found.main.is_empty() && !found.security.is_empty(),
        "the machine's apt told a mirror without an address"
    );
    Ok(found)
}

/// Debian's mirrors among apt's targets: address, suite and origin, which is not known before the
/// machine has fetched its lists.
fn mirrors_in(targets: &str) -> Option<Mirrors> {
    let debian = || {
        targets.lines().filter_map(|line| {
            let mut words = line.split_whitespace();
            let (address, suite) = (words.next()?, words.next()?);
            let origin = words.next().unwrap_or("$(ORIGIN)");
            let codename = suite.split('-').next()?;
            let is_debian =
                CODENAMES.contains(&codename) && (origin == "Debian" || origin.starts_with("$("));
            is_debian.then_some((address, suite))
        })
    };
    let first = |security: bool| {
        debian()
            .find(|(_, suite)| is_security(suite) == security)
            .map(|(address, _)| address.to_owned())
    };
    Some(Mirrors {
        main: first(false)?,
        security: first(true)?,
    })
}

fn is_security(suite: &str) -> bool {
    suite.ends_with("-security")
}

#[cfg(test)]
mod tests {
    use super::{Mirrors, mirrors_in, sources};

    const TARGETS: &str = "\
http://other.example/debian/ nodistro Other
http://third.example/linux/ bookworm Third
http://mirror.example/debian/ bookworm Debian
http://mirror.example/debian/ bookworm-updates Debian
http://mirror.example/security/ bookworm-security Debian
";

    #[test]
    fn mirrors_are_those_of_the_machine() {
        let mirrors = mirrors_in(TARGETS).unwrap();
        assert_eq!(mirrors.main, "http://mirror.example/debian/");
        assert_eq!(mirrors.security, "http://mirror.example/security/");
        assert_eq!(mirrors_in("http://other.example/ jammy Other\n"), None);
    }

    #[test]
    fn security_suites_have_a_mirror_of_their_own() {
        let text = sources(&Mirrors {
            main: "main:".to_owned(),
            security: "security:".to_owned(),
        });
        assert!(text.contains("deb security: bookworm-security main\n"));
        assert!(text.contains("deb main: trixie-backports main\n"));
    }
}
