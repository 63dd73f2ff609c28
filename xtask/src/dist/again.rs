//! Whether the same comes out a second time: of the package, the image and the bill from the same
//! executable, and of the executable from the same commit in another directory.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use xshell::cmd;

use super::{Artefact, Dist};

/// Makes `artefacts` again from the executable that there is, and holds them beside those in `made`.
pub(super) fn packed(dist: &Dist<'_>, artefacts: &[Artefact], made: &[PathBuf]) -> Result<()> {
    let into = dist.workspace.root.join("target/dist-again");
    fs::create_dir_all(&into)?;
    let again = Dist {
        into,
        version: dist.version.clone(),
        epoch: dist.epoch.clone(),
        limiterd: dist.limiterd.clone(),
        workspace: dist.workspace,
    };
    let again = again.make(artefacts)?;
    ensure!(again.len() == made.len(), "{again:?} in place of {made:?}");
    for (one, other) in made.iter().zip(&again) {
        same(one, other)?;
    }
    println!("dist: {} files, and the same again", made.len());
    Ok(())
}

/// Builds the executable from the commit in a directory of its own; what is not committed is refused,
/// since it would be missing there.
pub(super) fn executable(dist: &Dist<'_>) -> Result<()> {
    let workspace = dist.workspace;
    let sh = &workspace.sh;
    let changed = cmd!(sh, "git status --porcelain").quiet().read()?;
    ensure!(changed.is_empty(), "not committed:\n{changed}");
    let directory = workspace.root.join("target/again");
    let source = directory.join("source");
    if source.exists() {
        fs::remove_dir_all(&source)?;
    }
    fs::create_dir_all(&source)?;
    let archive = directory.join("source.tar");
    cmd!(sh, "git archive --output {archive} HEAD").run()?;
    cmd!(sh, "tar --extract --file {archive} --directory {source}").run()?;
    // What is made on the way lies in there, too, as in the checkout.
    let file = super::executable_in(sh, &source, &source.join("target"))?;
    same(&dist.limiterd, &file)?;
    println!("dist: the executable is the same from another directory");
    Ok(())
}

fn same(one: &Path, other: &Path) -> Result<()> {
    let read = |file: &Path| fs::read(file).with_context(|| file.display().to_string());
    ensure!(
        read(one)? == read(other)?,
        "{} and {} differ; diffoscope says in what",
        one.display(),
        other.display()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::same;

    #[test]
    fn files_that_differ_are_told_apart() {
        let directory = std::env::temp_dir().join(format!("limiterd-same-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let [one, other] = ["one", "other"].map(|name| directory.join(name));
        std::fs::write(&one, "a").unwrap();
        std::fs::write(&other, "a").unwrap();
        assert!(same(&one, &other).is_ok());
        std::fs::write(&other, "b").unwrap();
        let error = same(&one, &other).unwrap_err().to_string();
        assert!(error.contains("differ"), "{error}");
        assert!(same(&one, &directory.join("absent")).is_err());
        std::fs::remove_dir_all(directory).unwrap();
    }
}
