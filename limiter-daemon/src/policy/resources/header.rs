//! What is needed of a document before its kind is known.

use crate::policy::findings::{Mark, Scope};
use crate::policy::resource::DEFAULT_NAMESPACE;
use crate::policy::yaml::{Node, Value};

/// A text of the header, its place, and its field.
pub(super) type Part<'a> = (&'a Node, &'a str, &'static str);

/// The header of a document.
pub(super) struct Header<'a> {
    pub(super) api_version: Part<'a>,
    pub(super) kind: Part<'a>,
    pub(super) namespace: &'a str,
    pub(super) name: &'a str,
}

impl<'a> Header<'a> {
    /// The header; `None` after an error.
    pub(super) fn of(node: &'a Node, scope: &mut Scope<'_>) -> Option<Self> {
        let mark = Mark {
            line: node.line,
            column: node.column,
            field: String::new(),
        };
        if !matches!(node.value, Value::Map(_)) {
            scope.error(
                &mark,
                "this is not a resource",
                "begin it with `apiVersion`, `kind` and `metadata`",
            );
            return None;
        }
        let mut part = |field: &'static str| -> Option<Part<'a>> {
            match node.get(field) {
                None => {
                    scope.error(
                        &mark,
                        format!("the field `{field}` is missing"),
                        "every resource has it",
                    );
                    None
                }
                Some(value) => {
                    let text = value.as_str();
                    if text.is_none() {
                        let mark = Mark {
                            line: value.line,
                            column: value.column,
                            field: field.to_owned(),
                        };
                        scope.error(&mark, "expected a string", "");
                    }
                    Some((value, text?, field))
                }
            }
        };
        let (api_version, kind) = (part("apiVersion"), part("kind"));
        let metadata = |field| {
            node.get("metadata")
                .and_then(|data| data.get(field))
                .and_then(Node::as_str)
        };
        Some(Self {
            api_version: api_version?,
            kind: kind?,
            namespace: metadata("namespace").unwrap_or(DEFAULT_NAMESPACE),
            name: metadata("name").unwrap_or_default(),
        })
    }

    /// `Kind namespace/name`.
    pub(super) fn label(&self) -> String {
        let kind = self.kind.1;
        if self.name.is_empty() {
            kind.to_owned()
        } else {
            format!("{kind} {}/{}", self.namespace, self.name)
        }
    }
}
