//! Tables of fields that are written by hand, each under a comment `<!-- fields: KIND PREFIX -->`:
//! every row is about fields that there are; of limiterd's own kinds every field has a row, the
//! default is what leaving the field out comes to, and values are taken and refused as the range says.
//!
//! A name that is not there under the prefix goes on from the row before it, as one that begins with a point
//! always does. A field that is told of at one place (a bucket's `maxTokens`) is told of where it stands
//! again. What is done of Gloo's fields is a table of its own (`gloo.rs`). A table of other fields than those of
//! files says so: `<!-- fields of something else -->`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use limiter_daemon::policy::{self, Field, Severity, Type};
use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};
use regex::Regex;
use serde_json::{Value, json};

use super::docs;

/// Kinds of which every field is told in a table.
const COMPLETE: [&str; 2] = ["LimiterConfig", "NetworkRateLimitPolicy"];

/// What such tables leave to the text.
const ELSEWHERE: [(&str, &str); 1] = [("LimiterConfig", "spec.runtime.*")];

/// Of these defaults and ranges are not tried.
const UNTRIED: [(&str, &str); 1] = [(
    "spec.rls.tls.clientValidation.optional",
    "needs certificates",
)];

/// A table of fields.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) place: String,
    pub(super) kind: String,
    prefix: String,
    columns: Vec<String>,
    pub(super) rows: Vec<Vec<Cell>>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Cell {
    pub(super) text: String,
    /// What stands in code.
    pub(super) codes: Vec<String>,
}

impl Table {
    fn column<'a>(&self, row: &'a [Cell], name: &str) -> Option<&'a Cell> {
        let at = self.columns.iter().position(|column| column == name)?;
        row.get(at)
    }
}

/// The tables whose first column is called `field`, of all documents but those that are generated.
pub(super) fn tables() -> Vec<Table> {
    let mut found = Vec::new();
    let mut names: Vec<_> = docs()
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .collect();
    names.sort();
    for path in names {
        tables_of(&path, &mut found);
    }
    found
}

fn tables_of(path: &Path, found: &mut Vec<Table>) {
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    let text = std::fs::read_to_string(path).unwrap();
    let (mut comment, mut rows, mut row, mut cell) =
        (String::new(), Vec::new(), Vec::new(), Cell::default());
    for (event, range) in Parser::new_ext(&text, Options::ENABLE_TABLES).into_offset_iter() {
        match event {
            Event::Html(html) => comment = html.trim().to_owned(),
            Event::Start(Tag::Table(_)) => rows = Vec::new(),
            Event::Start(Tag::TableHead | Tag::TableRow) => row = Vec::new(),
            Event::Start(Tag::TableCell) => cell = Cell::default(),
            Event::Text(part) => cell.text.push_str(&part),
            Event::Code(code) => {
                cell.text.push_str(&code);
                cell.codes.push(code.to_string());
            }
            Event::End(TagEnd::TableCell) => row.push(std::mem::take(&mut cell)),
            Event::End(TagEnd::TableHead | TagEnd::TableRow) => {
                rows.push(std::mem::take(&mut row));
            }
            Event::End(TagEnd::Table) => {
                let line = 1 + text[..range.start].matches('\n').count();
                let place = format!("docs/{name}:{line}");
                let comment = std::mem::take(&mut comment);
                let rows = std::mem::take(&mut rows);
                let words = comment
                    .strip_prefix("<!-- fields: ")
                    .and_then(|rest| rest.strip_suffix(" -->"));
                let Some(words) = words else {
                    let of_others = comment == "<!-- fields of something else -->";
                    let asks = rows[0][0].text.starts_with("field") && !of_others;
                    assert!(!asks, "{place}: which fields are these?");
                    continue;
                };
                let (kind, prefix) = words.split_once(' ').unwrap_or((words, ""));
                found.push(Table {
                    place,
                    kind: kind.to_owned(),
                    prefix: prefix.to_owned(),
                    columns: rows[0].iter().map(|cell| cell.text.clone()).collect(),
                    rows: rows[1..].to_vec(),
                });
            }
            Event::Start(Tag::Heading { .. } | Tag::Paragraph) => comment.clear(),
            _ => {}
        }
    }
}

fn joined(parent: &str, name: &str) -> String {
    let name = name.trim_start_matches('.');
    match (parent, name) {
        (parent, "") => parent.to_owned(),
        ("", name) => name.to_owned(),
        (parent, name) => format!("{parent}.{name}"),
    }
}

/// Paths with and without the marks of lists are the same here, but not those of list and item.
pub(super) fn plain(path: &str) -> String {
    path.replace("[]", "")
}

fn parents(path: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(path);
    std::iter::from_fn(move || {
        let this = rest?;
        rest = this.rfind('.').map(|dot| &this[..dot]);
        Some(this)
    })
}

/// The fields of a kind by their plain paths; of what contains itself, through two rounds.
fn by_path() -> BTreeMap<String, BTreeMap<String, Field>> {
    let mut kinds = BTreeMap::new();
    for kind in policy::fields() {
        let mut paths = BTreeMap::new();
        for field in kind.fields {
            for other in &field.also {
                let (parent, _) = field.path.rsplit_once('.').unwrap_or_default();
                paths.insert(plain(&joined(parent, other)), field.clone());
            }
            paths.entry(plain(&field.path)).or_insert(field);
        }
        kinds.insert(kind.kind.to_owned(), paths);
    }
    kinds
}

/// The plain paths that the first cell of a row names.
fn named(
    table: &Table,
    cell: &Cell,
    last: &mut String,
    fields: &BTreeMap<String, Field>,
) -> Result<Vec<String>, String> {
    let prefix = plain(&table.prefix);
    let mut paths = Vec::new();
    for code in &cell.codes {
        // A value may be named with the field.
        let code = plain(code.split(':').next().unwrap_or(code).trim());
        let nearer = parents(last).map(|parent| joined(parent, &code));
        let top = (!code.starts_with('.')).then(|| joined(&prefix, &code));
        let path = top
            .into_iter()
            .chain(nearer)
            .find(|path| fields.contains_key(path));
        let Some(path) = path else {
            return Err(format!(
                "{}: {} has no field `{code}`",
                table.place, table.kind
            ));
        };
        last.clone_from(&path);
        paths.push(path);
    }
    Ok(paths)
}

#[test]
fn every_row_is_about_a_field_and_every_field_of_our_own_has_a_row() {
    let kinds = by_path();
    let mut wrong = Vec::new();
    let mut told: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    let tables = tables();
    for table in tables.iter().filter(|table| table.kind != "Gloo") {
        let Some(fields) = kinds.get(&table.kind) else {
            wrong.push(format!("{}: there is no kind {}", table.place, table.kind));
            continue;
        };
        let told = told.entry(&table.kind).or_default();
        let mut last = plain(&table.prefix);
        for row in &table.rows {
            match named(table, &row[0], &mut last, fields) {
                Err(none) => wrong.push(none),
                Ok(paths) => {
                    // What a row says of the fields in its field stands beside it.
                    let beside = row[1..].iter().flat_map(|cell| &cell.codes);
                    for code in beside {
                        for path in &paths {
                            told.insert(joined(path, &plain(code)));
                        }
                    }
                    told.extend(paths);
                }
            }
        }
    }
    for kind in COMPLETE {
        let told = &told[kind];
        for (path, field) in &kinds[kind] {
            if path == "spec" || plain(&field.path) != *path {
                continue;
            }
            let leaf = path.rsplit('.').next().unwrap_or(path);
            let told = told
                .iter()
                .any(|other| other.split('.').any(|part| part == leaf));
            let elsewhere = ELSEWHERE.contains(&(kind, path));
            if !told && !elsewhere {
                wrong.push(format!("no table tells of {kind} {path}"));
            }
        }
    }
    assert!(tables.len() > 10, "{}", tables.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A document with `value` at `path`, and beside it what it cannot be without.
fn document(kind: &str, path: &str, value: Option<&Value>) -> Value {
    let mut spec = match kind {
        "LimiterConfig" => json!({}),
        _ => json!({"ports": [{"protocol": "TCP", "port": 80}], "packets": {"maxTokens": 10_000}}),
    };
    let beside = [
        ("interfaces", "spec.interfaces[]", json!({"name": "eth0"})),
        (
            "accessLog",
            "spec.accessLog",
            json!({"path": "/dev/stdout"}),
        ),
        ("rls", "spec.rls", json!({"listen": "127.0.0.1:8081"})),
        (
            "rateLimit",
            "spec.rateLimit",
            json!({"backend": {"type": "Redis", "redis": {"url": "127.0.0.1:6379"}}}),
        ),
        (
            "tracing",
            "spec.tracing",
            json!({"otlp": {"endpoint": "http://127.0.0.1:4317"}}),
        ),
        (
            "escalation",
            "spec.escalation",
            json!({"events": [{"type": "RateLimited"}], "threshold": {"maxTokens": 10}}),
        ),
        (
            "rules",
            "spec.rules[]",
            json!({"sourceCIDRs": ["192.0.2.0/24"], "packets": {"maxTokens": 10}}),
        ),
    ];
    for (name, parent, needed) in beside {
        let list = parent.ends_with("[]");
        if plain(path).starts_with(&plain(parent)) && plain(path) != plain(parent) {
            spec[name] = if list { json!([needed]) } else { needed };
        }
    }
    if path == "spec.kernel.daemonLostAfter" {
        spec["kernel"] = json!({"onDaemonLost": "Pass"});
    }
    if path.starts_with("spec.connections.") {
        spec["connections"] = json!({"maxTokens": 10_000});
    }
    let mut document = json!({
        "apiVersion": "limiterd.io/v1alpha1", "kind": kind, "metadata": {"name": "x"}, "spec": spec
    });
    let mut at = &mut document;
    let mut parts = path.split('.').peekable();
    while let Some(part) = parts.next() {
        let list = part.strip_suffix("[]");
        let name = list.unwrap_or(part);
        if parts.peek().is_none() {
            match value {
                Some(value) => at[name] = value.clone(),
                None => drop(at.as_object_mut().map(|fields| fields.remove(name))),
            }
            break;
        }
        at = &mut at[name];
        if at.is_null() {
            *at = if list.is_some() {
                json!([{}])
            } else {
                json!({})
            };
        }
        if list.is_some() {
            at = &mut at[0];
        }
    }
    document
}

/// The plan of it, or its first error.
fn plan_of(document: &Value) -> Result<String, String> {
    let text = document.to_string();
    // Another document makes it a plan: one with settings alone is none.
    let other = if document["kind"] == "LimiterConfig" {
        r#"{"apiVersion":"limiterd.io/v1alpha1","kind":"NetworkRateLimitPolicy","metadata":{"name":"y"},"spec":{"ports":[{"protocol":"TCP","port":80}],"packets":{"maxTokens":1}}}"#
    } else {
        r#"{"apiVersion":"limiterd.io/v1alpha1","kind":"LimiterConfig","metadata":{"name":"y"},"spec":{"interfaces":[{"name":"eth0"}]}}"#
    };
    let scratch = super::Scratch::new();
    std::fs::write(scratch.0.join("a.yaml"), text).unwrap();
    std::fs::write(scratch.0.join("b.yaml"), other).unwrap();
    let outcome = policy::load(&scratch.0);
    let mut errors = outcome.diagnostics.iter();
    if let Some(error) = errors.find(|found| found.severity == Severity::Error) {
        return Err(error.to_string());
    }
    let plan = format!("{:?}", outcome.plan.ok_or("no plan")?);
    // Where it is written is not what it says.
    let column = Regex::new("column: [0-9]+").unwrap();
    Ok(column
        .replace_all(&plan, "")
        .replace(&*scratch.0.to_string_lossy(), ""))
}

/// A value as a table writes it: a number, `true`, or a text. `None`: it is told in words.
fn literal(cell: &Cell, holds: &Type) -> Option<Value> {
    let text = match &cell.codes[..] {
        [code] if *code == cell.text => code.trim_matches('"'),
        [] if cell.text.parse::<f64>().is_ok() || cell.text == "false" => &cell.text,
        _ => return None,
    };
    value(text, holds)
}

fn value(text: &str, holds: &Type) -> Option<Value> {
    match holds {
        Type::Whole(..) => text.parse::<u64>().ok().map(Value::from),
        Type::NumberOrText => Some(
            text.parse::<u64>()
                .map_or_else(|_text| text.into(), Value::from),
        ),
        Type::Number => text.parse::<f64>().ok().map(Value::from),
        Type::Boolean => text.parse::<bool>().ok().map(Value::from),
        Type::Text | Type::OneOf(_) => Some(text.into()),
        _ => None,
    }
}

/// Values of which the first two are the ends of the range, and others that are beyond it.
fn ends(range: &Cell, holds: &Type) -> Option<(Vec<Value>, Vec<Value>)> {
    let words = Regex::new(r"^(?:from )?(\S+)(?: to (\S+))?$").unwrap();
    let found = words.captures(&range.text)?;
    let (low, high) = (
        found.get(1)?.as_str(),
        found.get(2).map(|high| high.as_str()),
    );
    if high.is_none() && !range.text.starts_with("from ") {
        return None;
    }
    let mut good = vec![value(low, holds)?];
    let mut bad = Vec::new();
    good.extend(high.and_then(|high| value(high, holds)));
    let beyond = |text: &str, up: bool| -> Option<Value> {
        match holds {
            Type::Whole(..) | Type::NumberOrText => {
                let number: u64 = text.parse().ok()?;
                if up {
                    number.checked_add(1)
                } else {
                    number.checked_sub(1)
                }
                .map(Value::from)
            }
            Type::Text => {
                let time = humantime::parse_duration(text).ok()?;
                let step = std::time::Duration::from_millis(1);
                let time = if up {
                    time.checked_add(step)
                } else {
                    time.checked_sub(step)
                }?;
                Some(format!("{}ms", time.as_millis()).into())
            }
            Type::Number => {
                let number: f64 = text.parse().ok()?;
                Some((if up { number + 0.1 } else { number - 0.1 }).into())
            }
            _ => None,
        }
    };
    bad.extend(beyond(low, false));
    bad.extend(high.and_then(|high| beyond(high, true)));
    Some((good, bad))
}

#[test]
fn defaults_and_ranges_are_as_the_tables_say() {
    let kinds = by_path();
    let (mut defaults, mut ranges, mut wrong) = (0, 0, Vec::new());
    for table in tables() {
        if !["LimiterConfig", "NetworkRateLimitPolicy"].contains(&table.kind.as_str()) {
            continue;
        }
        let fields = &kinds[&table.kind];
        let mut last = plain(&table.prefix);
        for row in &table.rows {
            let Ok(paths) = named(&table, &row[0], &mut last, fields) else {
                continue;
            };
            let [path] = &paths[..] else { continue };
            if UNTRIED.iter().any(|(untried, _)| untried == path) {
                continue;
            }
            let field = &fields[path];
            let with = |value: Option<&Value>| plan_of(&document(&table.kind, &field.path, value));
            let mut fail = |what: String| wrong.push(format!("{}: {path}: {what}", table.place));
            if let Some(cell) = table.column(row, "default") {
                if cell.text == "required" {
                    defaults += 1;
                    if with(None).is_ok() {
                        fail("it is not required".to_owned());
                    }
                } else if let Some(value) = literal(cell, &field.holds) {
                    defaults += 1;
                    match (with(None), with(Some(&value))) {
                        (Ok(without), Ok(with)) if without == with => {}
                        (Ok(_), Ok(_)) => fail(format!("{value} is not the default")),
                        (Err(error), _) | (_, Err(error)) => fail(error),
                    }
                }
            }
            let Some(range) = table.column(row, "range") else {
                continue;
            };
            if let Type::OneOf(names) = field.holds
                && !range.codes.is_empty()
            {
                ranges += 1;
                let told: BTreeSet<&str> = range.codes.iter().map(String::as_str).collect();
                if told != names.iter().copied().collect() {
                    fail(format!("it may be {names:?}"));
                }
            } else if let Some((good, bad)) = ends(range, &field.holds) {
                ranges += 1;
                for value in good {
                    if let Err(error) = with(Some(&value)) {
                        fail(format!("{value}: {error}"));
                    }
                }
                for value in bad {
                    if with(Some(&value)).is_ok() {
                        fail(format!("{value} is taken"));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(
        defaults > 40 && ranges > 15,
        "{defaults} defaults, {ranges} ranges"
    );
}
