//! Inside the daemon, imports point one way:
//! `policy → engine → traces → {l4, l7, global, rls} → simulate → {app, admin, cli}`.
//!
//! What decides (`policy`, `engine`) names no runtime, no socket and no clock, and what carries
//! decisions out on one layer does not know the other.

use super::Offence;
use super::text::numbered_code;

const DAEMON: &str = "limiter-daemon/src/";
/// Crates and clocks that deciding code does without.
const IMPURE: &[&str] = &[
    "tokio",
    "hyper",
    "hyper_util",
    "aya",
    "Instant",
    "SystemTime",
];

/// A module of the daemon, and what it may not name.
struct Layer {
    name: &'static str,
    above: &'static [&'static str],
    words: &'static [&'static str],
}

const LAYERS: &[Layer] = &[
    Layer {
        name: "names",
        above: &[
            "policy", "engine", "l4", "l7", "global", "rls", "simulate", "app", "admin", "cli",
        ],
        words: &["aya", "hyper", "hyper_util"],
    },
    Layer {
        name: "policy",
        above: &[
            "engine", "traces", "l4", "l7", "global", "rls", "simulate", "app", "admin", "cli",
        ],
        words: IMPURE,
    },
    Layer {
        name: "engine",
        above: &[
            "traces", "l4", "l7", "global", "rls", "simulate", "app", "admin", "cli",
        ],
        words: IMPURE,
    },
    Layer {
        name: "traces",
        above: &[
            "engine", "l4", "l7", "global", "rls", "simulate", "app", "admin", "cli",
        ],
        words: &["aya", "Instant", "SystemTime"],
    },
    Layer {
        name: "l4",
        above: &["l7", "global", "rls", "simulate", "app", "admin", "cli"],
        words: &["hyper", "hyper_util"],
    },
    Layer {
        name: "l7",
        above: &["l4", "global", "rls", "simulate", "app", "admin", "cli"],
        words: &["aya"],
    },
    Layer {
        name: "rls",
        above: &["l4", "l7", "global", "simulate", "app", "admin", "cli"],
        words: &["aya"],
    },
    Layer {
        name: "global",
        above: &["l4", "l7", "rls", "simulate", "app", "admin", "cli"],
        words: &["aya", "hyper", "hyper_util"],
    },
    Layer {
        name: "simulate",
        above: &["global", "rls", "app", "admin", "cli"],
        words: IMPURE,
    },
];

/// Imports of the daemon's file at `path` that point the wrong way.
pub(super) fn check(path: &str, text: &str) -> Vec<Offence> {
    let Some(layer) = layer_of(path) else {
        return Vec::new();
    };
    let mut offences = Vec::new();
    for (number, line) in numbered_code(text) {
        for module in named_modules(line) {
            if layer.above.contains(&module) {
                let message = format!("`{}` does not know `{module}`", layer.name);
                offences.push(Offence::at(number, message));
            }
        }
        for word in words(line).filter(|word| layer.words.contains(word)) {
            let message = format!("`{}` does without `{word}`", layer.name);
            offences.push(Offence::at(number, message));
        }
    }
    offences
}

fn layer_of(path: &str) -> Option<&'static Layer> {
    let inside = path.strip_prefix(DAEMON)?;
    let module = inside.split('/').next()?.trim_end_matches(".rs");
    LAYERS.iter().find(|layer| layer.name == module)
}

/// Modules of the crate's root that `line` names: `crate::a::B`, `super::a`, `crate::{a::B, c}`.
fn named_modules(line: &str) -> Vec<&str> {
    let mut modules = Vec::new();
    for root in ["crate::", "super::"] {
        for (at, _) in line.match_indices(root) {
            let rest = line.get(at + root.len()..).unwrap_or_default();
            match rest.strip_prefix('{') {
                Some(group) => modules.extend(heads(group)),
                None => modules.extend(words(rest).next()),
            }
        }
    }
    modules
}

/// First names of the paths in a group of imports, nested groups passed over.
fn heads(group: &str) -> Vec<&str> {
    let mut depth = 0_usize;
    let mut heads = Vec::new();
    let mut start = 0;
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                heads.extend(group.get(start..at).and_then(|path| words(path).next()));
                return heads;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                heads.extend(group.get(start..at).and_then(|path| words(path).next()));
                start = at + 1;
            }
            _ => {}
        }
    }
    heads.extend(group.get(start..).and_then(|path| words(path).next()));
    heads
}

/// Identifiers of a line.
fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !c.is_alphanumeric() && c != '_')
        .filter(|word| !word.is_empty())
}
