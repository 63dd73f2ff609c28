//! The table of what is done of Gloo's fields: what it says works is taken, what it says is an error is
//! refused by name, what it says has no effect is warned of.

use limiter_daemon::policy::{self, Type};

use super::tables::{plain, tables};

/// What the structs take and the table says otherwise of, because of what is checked after them.
const CHECKED_LATER: [(&str, &str); 8] = [
    ("ssl", "of a TCP gateway it changes nothing"),
    (
        "options",
        "of a Gateway it changes nothing but for its own fields",
    ),
    (
        "sslConfig.sniDomains",
        "of an HTTP virtual service it changes nothing",
    ),
    (".stripQuery", "only `true` is an error"),
    (
        "outlierDetection.enforcingSuccessRate",
        "only another value than 0 is an error",
    ),
    ("raw.rateLimits[].limit", "it is an unknown field there"),
    (
        "metadata",
        "an action that is an error without a default value",
    ),
    ("enforcing…", "several"),
];

/// Names in the table that are no fields.
const NO_FIELDS: [&str; 3] = ["VirtualService", "gateway.solo.io", "ca.crt"];

#[test]
fn what_the_table_of_gloo_says_is_so() {
    let kinds = policy::fields();
    let fields: Vec<(String, Type)> = kinds
        .into_iter()
        .filter(|kind| kind.group.ends_with("solo.io"))
        .flat_map(|kind| kind.fields)
        .map(|field| (plain(&field.path), field.holds))
        .collect();
    let mut wrong = Vec::new();
    let mut looked_at = 0;
    for table in tables().iter().filter(|table| table.kind == "Gloo") {
        for row in &table.rows {
            let mark = row[2].text.chars().next().unwrap_or_default();
            for code in &row[1].codes {
                let name = code.split(':').next().unwrap_or(code);
                let later = CHECKED_LATER.iter().any(|(later, _)| *later == name);
                if later || NO_FIELDS.contains(&name) {
                    continue;
                }
                looked_at += 1;
                let suffix = format!(".{}", plain(name.trim_start_matches('.')));
                let named = fields
                    .iter()
                    .filter(|(path, _)| format!(".{path}").ends_with(&suffix));
                let is_so = named.map(|(_, holds)| match holds {
                    Type::Unsupported => mark == '✕',
                    Type::Unheeded => mark == '–',
                    // That it is there may mean something.
                    Type::Ignored => mark == '–' || mark == '●',
                    _ => mark == '●' || mark == '◐',
                });
                if !is_so.into_iter().any(|is_so| is_so) {
                    wrong.push(format!("{}: {mark} `{code}`", table.place));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "not so:\n{}", wrong.join("\n"));
    assert!(looked_at > 150, "{looked_at}");
}
