//! `allowFile` and `denyFile`: one CIDR a line.

use crate::policy::decode::At;
use crate::policy::findings::{Mark, Origin, Scope};
use crate::policy::resource::Meta;
use crate::policy::source;

/// Gives each entry of the file to `take`, with its place and a scope for findings in that file.
///
/// The path is relative to the directory of the policy file. `#` begins a comment.
pub(super) fn read(
    file: &At<String>,
    meta: &Meta,
    scope: &mut Scope<'_>,
    mut take: impl FnMut(&str, &Mark, &mut Scope<'_>),
) {
    if file.is_empty() {
        scope.error(
            &file.mark,
            "no file is named",
            "write its path, relative to this file's directory",
        );
        return;
    }
    let path = meta.origin.file.with_file_name(&file.value);
    let origin = Origin {
        file: path.clone(),
        resource: meta.origin.resource.clone(),
    };
    let text = match source::read_text(&path) {
        Ok(text) => text,
        Err(unreadable) if unreadable.mark == Mark::none() => {
            let message = format!("`{}`: {}", path.display(), unreadable.message);
            scope.error(&file.mark, message, unreadable.remedy);
            return;
        }
        Err(unreadable) => {
            let mut scope = scope.elsewhere(&origin);
            scope.error(&unreadable.mark, unreadable.message, unreadable.remedy);
            return;
        }
    };
    let mut scope = scope.elsewhere(&origin);
    let mut mark = Mark {
        field: file.mark.field.clone(),
        ..Mark::none()
    };
    for line in text.lines() {
        mark.line += 1;
        let entry = line.split('#').next().unwrap_or_default();
        let start = entry.trim_start();
        mark.column = entry.chars().count().saturating_sub(start.chars().count()) as u64 + 1;
        let entry = start.trim_end();
        if !entry.is_empty() {
            take(entry, &mark, &mut scope);
        }
    }
}
