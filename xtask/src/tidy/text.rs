//! Rules on the text of one file.

use super::Offence;

const MAX_LINES: usize = 500;
const MAX_TEST_LINES: usize = 800;

/// Where `unsafe` may be written.
const UNSAFE_PLACES: &[&str] = &[
    "limiter-common/src/",
    "limiter-ebpf/",
    "limiter-daemon/src/l4",
    "limiter-daemon/src/engine/buckets/",
    "limiter-daemon/src/app/sockets.rs",
    "tests/",
];

/// A file that one can read in a sitting.
pub(super) fn length(path: &str, text: &str) -> Option<Offence> {
    let (limit, what) = if is_test(path) {
        (MAX_TEST_LINES, "a test file")
    } else {
        (MAX_LINES, "a file")
    };
    let lines = text.lines().count();
    (lines > limit).then(|| {
        Offence::whole(format!(
            "{lines} lines; {what} has at most {limit}: split it"
        ))
    })
}

fn is_test(path: &str) -> bool {
    path.starts_with("tests/") || path.contains("/tests/") || path.ends_with("tests.rs")
}

/// Every module says what it is for.
pub(super) fn module_doc(path: &str, text: &str) -> Option<Offence> {
    let in_src = path.split('/').any(|part| part == "src");
    (in_src && !text.trim_start().starts_with("//!"))
        .then(|| Offence::whole("does not begin with a `//!` doc that says what the module is for"))
}

/// Nothing is left for later in code, and no test is switched off.
pub(super) fn unfinished(text: &str) -> Vec<Offence> {
    let forbidden = [
        (concat!("todo", "!("), "finish it, or leave it out"),
        (concat!("unimplemented", "!("), "finish it, or leave it out"),
        (concat!("#[", "ignore"), "a test runs or is not there"),
    ];
    let mut offences = Vec::new();
    for (number, line) in numbered_code(text) {
        for (word, remedy) in &forbidden {
            if line.contains(word) {
                offences.push(Offence::at(number, format!("`{word}`: {remedy}")));
            }
        }
    }
    offences
}

/// `unsafe` is written in few places.
pub(super) fn unsafe_places(path: &str, text: &str) -> Vec<Offence> {
    if UNSAFE_PLACES.iter().any(|place| path.starts_with(place)) {
        return Vec::new();
    }
    let starts = [
        concat!("unsafe", " {"),
        concat!("unsafe", " fn"),
        concat!("unsafe", " impl"),
    ];
    numbered_code(text)
        .filter(|(_, line)| starts.iter().any(|start| line.contains(start)))
        .map(|(number, _)| {
            Offence::at(
                number,
                format!("unsafe code belongs in {}", UNSAFE_PLACES.join(", ")),
            )
        })
        .collect()
}

/// No path of somebody's machine.
pub(super) fn machine_paths(text: &str) -> Vec<Offence> {
    let paths = [
        concat!("/", "home/"),
        concat!("/", "root/"),
        concat!("/", "work/"),
    ];
    let mut offences = Vec::new();
    for (number, line) in numbered(text) {
        if let Some(path) = paths.iter().find(|path| holds_absolute(line, path)) {
            offences.push(Offence::at(
                number,
                format!("`{path}` is there on one machine only"),
            ));
        }
    }
    offences
}

/// Whether `path` occurs in `line` as the beginning of a path.
fn holds_absolute(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let before = line.get(..at).and_then(|before| before.chars().next_back());
        !before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | '}' | ')'))
    })
}

/// Every crate takes the lints of the workspace.
pub(super) fn workspace_lints(manifest: &str) -> Option<Offence> {
    let mut lines = manifest.lines().map(str::trim);
    if !lines.clone().any(|line| line == "[package]") {
        return None;
    }
    let inherits = lines.any(|line| line == "[lints]")
        && lines
            .take_while(|line| !line.starts_with('['))
            .any(|line| line == "workspace = true");
    (!inherits).then(|| Offence::whole("lacks `[lints]` with `workspace = true`"))
}

/// Lines and their numbers, from 1.
pub(super) fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line))
}

/// The same, without what stands after `//`.
pub(super) fn numbered_code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    numbered(text).map(|(number, line)| (number, line.split("//").next().unwrap_or_default()))
}
