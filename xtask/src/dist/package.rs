//! The Debian package, by cargo-deb and what limiter-daemon/Cargo.toml says, looked at by lintian.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use xshell::cmd;

use super::{Dist, licences};
use crate::setup;

/// Debian's own changes to a version; there are none.
pub(super) const REVISION: &str = "1";

/// The package, without a fault that lintian finds.
pub(super) fn build(dist: &Dist<'_>) -> Result<PathBuf> {
    let file = build_as(dist, &format!("{}-{REVISION}", dist.version), &[])?;
    let sh = &dist.workspace.sh;
    cmd!(sh, "lintian --fail-on error,warning --allow-root {file}").run()?;
    Ok(file)
}

/// The package under this version of Debian's kind, by cargo-deb with `options`.
pub(super) fn build_as(dist: &Dist<'_>, version: &str, options: &[&str]) -> Result<PathBuf> {
    let workspace = dist.workspace;
    setup::setup_package(workspace)?;
    stage(dist, version)?;
    let (sh, into) = (&workspace.sh, &dist.into);
    let made = cmd!(
        sh,
        "cargo deb --package limiter-daemon --no-build --deb-version {version} --output {into} {options...}"
    )
    .env("SOURCE_DATE_EPOCH", &dist.epoch)
    .read()?;
    let file = made
        .lines()
        .next_back()
        .context("cargo deb names no file")?;
    Ok(PathBuf::from(file))
}

/// What the package has besides the executable, where Cargo.toml takes it from.
fn stage(dist: &Dist<'_>, version: &str) -> Result<()> {
    let sh = &dist.workspace.sh;
    let stage = dist.workspace.root.join("target/package");
    if stage.exists() {
        fs::remove_dir_all(&stage)?;
    }
    let limiterd = &dist.limiterd;
    cmd!(sh, "{limiterd} manual --into {stage}").run()?;
    let at = cmd!(sh, "git log -1 --format=%cD").quiet().read()?;
    fs::copy(dist.stripped()?, stage.join("limiterd"))?;
    fs::write(stage.join("changelog"), changelog(version, &at))?;
    fs::write(stage.join("third-party.txt"), licences::text(dist)?)?;
    Ok(())
}

/// In Debian's format; what has changed is in the project's own.
fn changelog(version: &str, at: &str) -> String {
    format!(
        "\
limiterd ({version}) unstable; urgency=medium

  * Version {version}; the changes are in CHANGELOG.md.

 -- limiterd maintainers <maintainers@limiterd.invalid>  {at}
"
    )
}

#[cfg(test)]
mod tests {
    use super::changelog;

    #[test]
    fn the_changelog_is_in_the_format_of_debian() {
        let text = changelog("1.2.3-1", "Wed, 25 Nov 2026 22:00:00 +0000");
        assert!(text.starts_with("limiterd (1.2.3-1) unstable; urgency="));
        assert!(text.ends_with(">  Wed, 25 Nov 2026 22:00:00 +0000\n"));
    }
}
