//! A volume of ConfigMaps, written as the kubelet writes it.
//!
//! Its files are links to `..data/NAME`, and `..data` is a link to a directory of the version in force. The
//! steps of a change are, in this order: the directory of the new version with all its files; links for
//! files that are new; a link `..data_tmp` to the directory; its renaming to `..data`, by which all files
//! change at once; the removal of links to files that are gone; the removal of the old directory.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use anyhow::Result;
use tempfile::TempDir;

const DATA: &str = "..data";
const NEXT: &str = "..data_tmp";

/// A mounted volume.
#[derive(Debug)]
pub struct Volume {
    dir: TempDir,
    files: BTreeMap<String, String>,
    /// The directory of the version in force.
    version: Option<PathBuf>,
    versions: u32,
}

impl Volume {
    /// One with these files, by name.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn new(files: BTreeMap<String, String>) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        fs::set_permissions(dir.path(), Permissions::from_mode(0o777))?;
        let mut volume = Self {
            dir,
            files: BTreeMap::new(),
            version: None,
            versions: 0,
        };
        volume.write(files)?;
        Ok(volume)
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The files in force.
    #[must_use]
    pub fn files(&self) -> &BTreeMap<String, String> {
        &self.files
    }

    /// Puts `files` in place of those in force, step by step.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&mut self, files: BTreeMap<String, String>) -> Result<()> {
        if self.version.is_some() && files == self.files {
            return Ok(());
        }
        self.versions += 1;
        let name = format!("..2026_11_25_22_50_00.{:09}", self.versions);
        let version = self.path().join(&name);
        fs::create_dir(&version)?;
        fs::set_permissions(&version, Permissions::from_mode(0o755))?;
        for (file, text) in &files {
            let path = version.join(file);
            fs::write(&path, text)?;
            fs::set_permissions(&path, Permissions::from_mode(0o644))?;
        }
        for file in files.keys() {
            let link = self.path().join(file);
            if !link.is_symlink() {
                symlink(Path::new(DATA).join(file), link)?;
            }
        }
        let next = self.path().join(NEXT);
        symlink(&name, &next)?;
        fs::rename(&next, self.path().join(DATA))?;
        for file in self.files.keys().filter(|file| !files.contains_key(*file)) {
            fs::remove_file(self.path().join(file))?;
        }
        if let Some(old) = self.version.replace(version) {
            fs::remove_dir_all(old)?;
        }
        self.files = files;
        Ok(())
    }

    /// Replaces `old` by `new` in the file of this name.
    ///
    /// # Errors
    /// When it cannot be written, or the file has no `old`.
    pub fn edit(&mut self, file: &str, old: &str, new: &str) -> Result<()> {
        let mut files = self.files.clone();
        let text = files.get_mut(file);
        let text = text.filter(|text| text.contains(old));
        let text = text.ok_or_else(|| anyhow::anyhow!("{file} has no {old:?}"))?;
        *text = text.replace(old, new);
        self.write(files)
    }
}
