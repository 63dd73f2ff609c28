//! The policy directory: which files it has, and which documents they hold.
//!
//! Documents are separated here, by text, and parsed each on its own, so that one that is not even
//! YAML does not hide what is wrong in the next. That is exact: YAML forbids `---` at the start of a
//! line in any content.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::findings::{Findings, Mark, Origin};

/// The largest file that is read.
const MAX_FILE_BYTES: u64 = 32 << 20;

/// The most files of one directory.
const MAX_FILES: usize = 1024;

/// A policy file's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    pub path: PathBuf,
    pub text: String,
}

/// One document of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Document<'a> {
    pub(crate) text: &'a str,
    /// Lines of the file before it.
    pub(crate) lines_before: u64,
}

/// What was read of a directory.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    /// In order of name.
    pub(crate) files: Vec<SourceFile>,
    /// Files that are there and cannot be read.
    pub(crate) lost: Vec<PathBuf>,
    /// Not even their names are known.
    pub(crate) all_lost: bool,
}

/// Reads every `*.yaml` and `*.yml` of `dir` in order of name; or, if it is one, the file `dir`.
///
/// Hidden entries are passed over: a mounted ConfigMap keeps its versions in `..data` and shows
/// each file as a symlink, which is followed.
pub(crate) fn read(dir: &Path, findings: &mut Findings) -> Sources {
    let mut sources = Sources::default();
    let origin = Origin::file(dir);
    let paths = match list(dir) {
        Ok(paths) if paths.is_empty() => Err((
            "no *.yaml or *.yml file in it, so nothing would be limited".to_owned(),
            "name a directory that holds policy files".to_owned(),
        )),
        Ok(paths) if paths.len() > MAX_FILES => Err((
            format!("{} policy files", paths.len()),
            format!("at most {MAX_FILES} are read"),
        )),
        Ok(paths) => Ok(paths),
        Err(error) => Err((format!("cannot be read: {error}"), String::new())),
    };
    let paths = match paths {
        Ok(paths) => paths,
        Err((message, remedy)) => {
            findings.at(&origin).error(&Mark::none(), message, remedy);
            sources.all_lost = true;
            return sources;
        }
    };
    for path in paths {
        match read_file(&path, findings) {
            Some(text) => sources.files.push(SourceFile { path, text }),
            None => sources.lost.push(path),
        }
    }
    sources
}

fn list(dir: &Path) -> io::Result<Vec<PathBuf>> {
    if dir.is_file() {
        return Ok(vec![dir.to_path_buf()]);
    }
    let mut paths = Vec::new();
    for entry in dir.read_dir()? {
        let path = entry?.path();
        let hidden = path
            .file_name()
            .is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        let yaml = path
            .extension()
            .is_some_and(|extension| extension == "yaml" || extension == "yml");
        if yaml && !hidden {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn read_file(path: &Path, findings: &mut Findings) -> Option<String> {
    let origin = Origin::file(path);
    read_text(path)
        .map_err(|unreadable| {
            let Unreadable {
                mark,
                message,
                remedy,
            } = unreadable;
            findings.at(&origin).error(&mark, message, remedy);
        })
        .ok()
}

/// Why a file cannot be read, and where in it.
#[derive(Debug)]
pub(crate) struct Unreadable {
    pub(crate) mark: Mark,
    pub(crate) message: String,
    pub(crate) remedy: String,
}

/// The text of a file of bounded size.
pub(crate) fn read_text(path: &Path) -> Result<String, Unreadable> {
    let whole = |message: String, remedy: String| Unreadable {
        mark: Mark::none(),
        message,
        remedy,
    };
    match read_bounded(path) {
        Err(error) => Err(whole(format!("cannot be read: {error}"), String::new())),
        Ok(None) => Err(whole(
            "the file is too large".to_owned(),
            format!("at most {} MiB are read: split it", MAX_FILE_BYTES >> 20),
        )),
        Ok(Some(bytes)) => String::from_utf8(bytes).map_err(|error| {
            let valid = error
                .as_bytes()
                .get(..error.utf8_error().valid_up_to())
                .unwrap_or_default();
            Unreadable {
                mark: end_of(valid),
                message: "this is not UTF-8".to_owned(),
                remedy: "save the file as UTF-8".to_owned(),
            }
        }),
    }
}

/// `None`: too large. What is no regular file is not opened: a pipe would wait for ever.
fn read_bounded(path: &Path) -> io::Result<Option<Vec<u8>>> {
    if !path.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?
        .take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= MAX_FILE_BYTES).then_some(bytes))
}

/// Where text that is valid up to here stops.
fn end_of(valid: &[u8]) -> Mark {
    let text = String::from_utf8_lossy(valid);
    let last = text.rsplit('\n').next().unwrap_or_default();
    let line = text.matches('\n').count() as u64 + 1;
    Mark {
        line,
        column: last.chars().count() as u64 + 1,
        field: String::new(),
    }
}

/// The documents of a file. Comments, blank lines and directives above the first `---` belong to
/// the document after it.
pub(crate) fn documents(text: &str) -> Vec<Document<'_>> {
    let mut documents = Vec::new();
    let (mut start, mut start_line) = (0, 0);
    let mut begun = false;
    let mut offset = 0;
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let content = line.trim_end();
        let marker = content == "---" || line.starts_with("--- ") || line.starts_with("---\t");
        if marker && begun {
            documents.push(Document {
                text: &text[start..offset],
                lines_before: start_line,
            });
            (start, start_line) = (offset, number as u64);
        }
        begun |= marker || !(content.is_empty() || content.starts_with(['#', '%']));
        offset += line.len();
    }
    documents.push(Document {
        text: &text[start..],
        lines_before: start_line,
    });
    documents
}

#[cfg(test)]
mod tests {
    use super::{Document, documents};

    #[track_caller]
    fn splits(text: &str, expected: &[(&str, u64)]) {
        let expected: Vec<_> = expected
            .iter()
            .map(|&(text, lines_before)| Document { text, lines_before })
            .collect();
        assert_eq!(documents(text), expected);
    }

    #[test]
    fn documents_keep_their_place_in_the_file() {
        splits("a: 1\n", &[("a: 1\n", 0)]);
        splits(
            "# c\n---\na: 1\n---\nb: 2\n",
            &[("# c\n---\na: 1\n", 0), ("---\nb: 2\n", 3)],
        );
        splits("%YAML 1.2\n--- \na: 1", &[("%YAML 1.2\n--- \na: 1", 0)]);
        splits(
            "a: 1\r\n---\r\nb: 2\r\n",
            &[("a: 1\r\n", 0), ("---\r\nb: 2\r\n", 1)],
        );
        splits("a: |\n  ---\n----\n", &[("a: |\n  ---\n----\n", 0)]);
    }
}
