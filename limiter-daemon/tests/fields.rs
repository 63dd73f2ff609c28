//! Tables of fields, held to the decoder of the files: `docs/fields/` is made of it, and of each table
//! in the other documents every row is a field, and every field has a row.
//!
//! `BLESS=1 cargo test -p limiter-daemon --test fields` writes `docs/fields/` anew.

#![expect(clippy::unwrap_used, reason = "a helper that fails, fails the test")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use limiter_daemon::policy::{Field, KindFields, Type, fields};

#[path = "fields/gloo.rs"]
mod gloo;
#[path = "fields/tables.rs"]
mod tables;

/// The pages: file, title, groups of the kinds in it, and what is to be said first.
const PAGES: [(&str, &str, &[&str], &str); 5] = [
    (
        "limiterd",
        "Fields of limiterd's own kinds",
        &["limiterd.io"],
        "What they mean, their defaults and ranges: [limiterd's own resources](../policy.md), \
         [asking a rate limit service](../ratelimit-filter.md), [sentences](../escalation.md), \
         [global limits](../global-limits.md), [the rate limit service](../ratelimit-service.md).",
    ),
    (
        "gateway-api",
        "Fields of Gateway API and Kubernetes",
        &["gateway.networking.k8s.io", "", "discovery.k8s.io"],
        "What they mean: [Envoy Gateway's files](../envoy-gateway.md).",
    ),
    (
        "envoy-gateway",
        "Fields of Envoy Gateway's kinds",
        &["gateway.envoyproxy.io"],
        "What they mean, and what limiterd adds: [Envoy Gateway's files](../envoy-gateway.md).",
    ),
    (
        "gloo",
        "Fields of Gloo's kinds",
        &["gateway.solo.io", "gloo.solo.io", "ratelimit.solo.io"],
        "What they mean: [Gloo's files](../gloo.md).",
    ),
    (
        "ratelimit-service",
        "Fields of the rate limit service's files",
        &[],
        "They have no kind. What they mean: [Envoy's rate limit service](../ratelimit-service.md).",
    ),
];

const INTRODUCTION: &str = "\
Made of the code that reads the files: what is not here is an unknown field, and an error. *Needed* is what
nothing can be read without; `limiterd check` says what else is, which may follow from other fields.
";

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs")
}

fn of_page<'a>(groups: &[&str], all: &'a [KindFields]) -> Vec<&'a KindFields> {
    let kinds = all.iter().filter(|one| match groups {
        [] => one.kind == "Domain",
        groups => groups.contains(&one.group) && one.kind != "Domain",
    });
    kinds.collect()
}

/// Whether `path` lies in `parent`.
fn is_in(path: &str, parent: &str) -> bool {
    path.strip_prefix(parent)
        .is_some_and(|rest| rest.starts_with(['.', '[']))
}

/// What may be written for the field at `path`.
fn holds(path: &str, fields: &BTreeMap<&str, &Field>) -> String {
    let Some(field) = fields.get(path) else {
        return "nothing".to_owned();
    };
    let inner = |path: &str| match fields.get(path) {
        Some(_) => holds(path, fields),
        None => "anything".to_owned(),
    };
    match &field.holds {
        Type::Text => "text".to_owned(),
        Type::Whole(..) => "whole number".to_owned(),
        Type::Number => "number".to_owned(),
        Type::Boolean => "`true`, `false`".to_owned(),
        Type::OneOf(names) => {
            let names: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
            names.join(", ")
        }
        Type::List => format!("list of: {}", inner(&format!("{path}[]"))),
        Type::Map => format!(
            "names of your own, each with: {}",
            inner(&format!("{path}.*"))
        ),
        Type::Mapping => "mapping".to_owned(),
        Type::Again(of) => format!("mapping, as `{of}` is"),
        Type::NumberOrText => "whole number, or text".to_owned(),
        Type::Code => "status, or `{code: STATUS}`".to_owned(),
        Type::Anything => "anything".to_owned(),
        Type::Unsupported => "**not supported**: an error".to_owned(),
        Type::Unheeded => "*no effect*: a warning".to_owned(),
        Type::Ignored => "anything: what it holds is not looked at".to_owned(),
    }
}

/// What is in a mapping, without the way there.
fn content(parent: &str, fields: &[Field]) -> Vec<(String, Type, bool)> {
    let inside = fields.iter().filter(|field| is_in(&field.path, parent));
    inside
        .map(|field| {
            let holds = match &field.holds {
                Type::Again(of) => Type::Again(of.strip_prefix(parent).unwrap_or(of).to_owned()),
                other => other.clone(),
            };
            (field.path[parent.len()..].to_owned(), holds, field.required)
        })
        .collect()
}

type Told = BTreeMap<Vec<(String, Type, bool)>, (String, String)>;

/// The table of a kind. What has been told of another field, with the same fields below it, is referred to.
fn table(kind: &KindFields, told: &mut Told) -> String {
    let by_path: BTreeMap<&str, &Field> = kind
        .fields
        .iter()
        .map(|field| (field.path.as_str(), field))
        .collect();
    let mut text = "| field | holds | needed |\n|---|---|---|\n".to_owned();
    let mut elsewhere: Vec<&str> = Vec::new();
    for field in &kind.fields {
        let path = field.path.as_str();
        if elsewhere.iter().any(|parent| is_in(path, parent)) {
            continue;
        }
        let mut as_there = String::new();
        if field.holds == Type::Mapping {
            let content = content(path, &kind.fields);
            if content.len() > 3 {
                if let Some((of, there)) = told.get(&content) {
                    as_there = if of == kind.kind {
                        format!(", as `{there}`")
                    } else {
                        format!(", as `{there}` of {of}")
                    };
                    elsewhere.push(path);
                } else {
                    told.insert(content, (kind.kind.to_owned(), path.to_owned()));
                }
            }
        }
        // Items stand in the row of their list.
        let is_item = path.ends_with("[]") || path.ends_with(".*");
        if is_item && as_there.is_empty() {
            continue;
        }
        let needed = if field.required { "yes" } else { "" };
        let also: String = field
            .also
            .iter()
            .map(|name| format!(", also `{name}`"))
            .collect();
        let holds = holds(path, &by_path);
        writeln!(text, "| `{path}`{also} | {holds}{as_there} | {needed} |").unwrap();
    }
    text
}

fn page((_, title, groups, about): (&str, &str, &[&str], &str), all: &[KindFields]) -> String {
    let mut text = format!("# {title}\n\n{INTRODUCTION}{about}\n");
    let mut told = Told::new();
    for kind in of_page(groups, all) {
        let (name, group) = (kind.kind, kind.group);
        write!(text, "\n## {name}\n\n").unwrap();
        if !groups.is_empty() {
            let group = if group.is_empty() { "core" } else { group };
            write!(text, "Of the group `{group}`.\n\n").unwrap();
        }
        if kind.fields.is_empty() {
            text.push_str("Nothing but its name and labels.\n");
        } else {
            text.push_str(&table(kind, &mut told));
        }
    }
    text
}

#[test]
fn the_pages_say_what_the_decoder_takes() {
    let all = fields();
    let on_pages: usize = PAGES.iter().map(|page| of_page(page.2, &all).len()).sum();
    assert_eq!(on_pages, all.len(), "each kind is on one page");
    for one in PAGES {
        let path = docs().join(format!("fields/{}.md", one.0));
        let expected = page(one, &all);
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(&path, &expected).unwrap();
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            found == expected,
            "{}: BLESS=1 writes it anew",
            path.display()
        );
    }
}

/// A directory of its own in the target directory, removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("fields-{}-{number}", std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}
