//! Links in Markdown that point into the repository point to something.

use std::path::Path;

use super::Offence;
use super::text::numbered;

pub(super) fn check(root: &Path, path: &str, text: &str) -> Vec<Offence> {
    let folder = Path::new(path).parent().unwrap_or_else(|| Path::new(""));
    let mut offences = Vec::new();
    let mut fenced = false;
    for (number, line) in numbered(text) {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced {
            continue;
        }
        for target in local_targets(line) {
            let file = match target.strip_prefix('/') {
                Some(from_root) => root.join(from_root),
                None => root.join(folder).join(target),
            };
            if !file.exists() {
                offences.push(Offence::at(
                    number,
                    format!("the link to `{target}` leads nowhere"),
                ));
            }
        }
    }
    offences
}

/// Files that the links of a line point to, without anchors.
pub(super) fn local_targets(line: &str) -> Vec<&str> {
    let mut targets = Vec::new();
    for (at, mark) in line.match_indices("](") {
        let rest = line.get(at + mark.len()..).unwrap_or_default();
        // A title may follow the target.
        let Some(target) = rest.split([')', ' ']).next() else {
            continue;
        };
        let file = target.split('#').next().unwrap_or_default();
        if !file.is_empty() && !is_remote(target) {
            targets.push(file);
        }
    }
    targets
}

fn is_remote(target: &str) -> bool {
    target.contains("://") || target.starts_with("mailto:")
}
