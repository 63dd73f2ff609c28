//! A table of the screen: columns, rows, their order, and which of them are shown.

use std::cmp::Ordering;

use serde_json::{Map, Value, json};

/// A column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Column {
    pub title: &'static str,
    /// The name of the value in JSON.
    pub key: &'static str,
    pub kind: Kind,
}

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    /// A whole number.
    Number,
    /// A number a second.
    Rate,
    /// A share of a whole, drawn as a bar.
    Share,
    /// A time in seconds.
    Time,
}

impl Kind {
    /// Columns of the terminal that its values need; texts take what is left.
    #[must_use]
    pub(super) const fn width(self) -> Option<u16> {
        match self {
            Self::Text => None,
            Self::Number | Self::Rate => Some(10),
            Self::Share => Some(15),
            Self::Time => Some(10),
        }
    }
}

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Cell {
    Text(String),
    Number(u64),
    /// `None`: it is not known yet, as of what was looked at once only.
    Rate(Option<f64>),
    /// From 0 to 1. `None`: of nothing.
    Share(Option<f64>),
    Time(u64),
}

impl Cell {
    /// As it is written; of a share the percentage.
    #[must_use]
    pub(super) fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Number(number) => number.to_string(),
            Self::Rate(rate) => rate.map_or_else(|| "-".to_owned(), si),
            Self::Share(share) => {
                share.map_or_else(|| "-".to_owned(), |share| format!("{:.0} %", share * 100.0))
            }
            Self::Time(seconds) => time(*seconds),
        }
    }

    fn json(&self) -> Value {
        match self {
            Self::Text(text) => json!(text),
            Self::Number(number) | Self::Time(number) => json!(number),
            Self::Rate(number) | Self::Share(number) => json!(number),
        }
    }

    /// Texts by their letters, numbers by their size; what is not known is least.
    fn order(&self, other: &Self) -> Ordering {
        let number = |cell: &Self| match cell {
            Self::Text(_) => None,
            Self::Number(number) | Self::Time(number) => Some(*number as f64),
            Self::Rate(number) | Self::Share(number) => *number,
        };
        match (self, other) {
            (Self::Text(one), Self::Text(two)) => one.cmp(two),
            _ => number(self)
                .partial_cmp(&number(other))
                .unwrap_or(Ordering::Equal),
        }
    }
}

/// A row.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    /// One for each column.
    pub cells: Vec<Cell>,
    pub mood: Mood,
}

/// How a row looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Mood {
    #[default]
    Well,
    /// Something is being limited.
    Busy,
    /// Something is wrong.
    Bad,
}

/// A table.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Table {
    pub section: Section,
    pub rows: Vec<Row>,
}

/// How the rows of a table are ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sort {
    /// Index of the column.
    pub column: usize,
    pub descending: bool,
}

impl Sort {
    /// By this column, from the end that matters: numbers from the largest.
    #[must_use]
    pub(super) fn by(section: Section, column: usize) -> Self {
        let kind = section.columns().get(column).map(|column| column.kind);
        Self {
            column,
            descending: kind.is_some_and(|kind| kind != Kind::Text),
        }
    }
}

impl Table {
    /// The rows that have every word of `filter` somewhere, in capitals or not, in this order. Equal
    /// ones are in the order of their texts, so that they do not jump about.
    #[must_use]
    pub(super) fn shown(&self, filter: &str, sort: Sort) -> Vec<&Row> {
        let words: Vec<String> = filter.split_whitespace().map(str::to_lowercase).collect();
        let mut rows: Vec<&Row> = self.rows.iter().filter(|row| row.has(&words)).collect();
        rows.sort_by(|one, two| {
            let wanted = match (one.cells.get(sort.column), two.cells.get(sort.column)) {
                (Some(one), Some(two)) => one.order(two),
                _ => Ordering::Equal,
            };
            let wanted = if sort.descending {
                wanted.reverse()
            } else {
                wanted
            };
            wanted.then_with(|| one.texts().cmp(two.texts()))
        });
        rows
    }

    /// The rows as objects, by the names of the columns.
    #[must_use]
    pub(super) fn json(&self, filter: &str, sort: Sort) -> Value {
        let columns = self.section.columns();
        let rows = self.shown(filter, sort).into_iter().map(|row| {
            let cells = columns.iter().zip(&row.cells);
            let object: Map<String, Value> = cells
                .map(|(column, cell)| (column.key.to_owned(), cell.json()))
                .collect();
            Value::Object(object)
        });
        Value::Array(rows.collect())
    }
}

impl Row {
    fn texts(&self) -> impl Iterator<Item = &str> {
        self.cells.iter().filter_map(|cell| match cell {
            Cell::Text(text) => Some(text.as_str()),
            _ => None,
        })
    }

    fn has(&self, words: &[String]) -> bool {
        let texts: Vec<String> = self.texts().map(str::to_lowercase).collect();
        words
            .iter()
            .all(|word| texts.iter().any(|text| text.contains(word)))
    }
}

/// The parts of the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Section {
    Limits,
    Kernel,
    Sources,
    Routes,
    Upstreams,
    Store,
    Nodes,
    Blocks,
}

const fn column(title: &'static str, key: &'static str, kind: Kind) -> Column {
    Column { title, key, kind }
}

impl Section {
    pub(super) const ALL: [Self; 8] = [
        Self::Limits,
        Self::Kernel,
        Self::Sources,
        Self::Routes,
        Self::Upstreams,
        Self::Store,
        Self::Nodes,
        Self::Blocks,
    ];

    /// As `--section` and JSON have it.
    #[must_use]
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Limits => "limits",
            Self::Kernel => "kernel",
            Self::Sources => "sources",
            Self::Routes => "routes",
            Self::Upstreams => "upstreams",
            Self::Store => "store",
            Self::Nodes => "nodes",
            Self::Blocks => "blocks",
        }
    }

    /// The column that its rows go by unless somebody says otherwise.
    #[must_use]
    pub(super) fn sort(self) -> Sort {
        let column = match self {
            Self::Limits => 4,
            Self::Kernel => 2,
            Self::Sources => 1,
            Self::Routes => 1,
            Self::Upstreams => 2,
            Self::Store | Self::Nodes => 0,
            // The latest first; times are RFC 3339.
            Self::Blocks => {
                return Sort {
                    column: 3,
                    descending: true,
                };
            }
        };
        Sort::by(self, column)
    }

    #[must_use]
    pub(super) const fn columns(self) -> &'static [Column] {
        match self {
            Self::Limits => {
                const {
                    &[
                        column("RULE", "rule", Kind::Text),
                        column("ROUTE", "route", Kind::Text),
                        column("LIMIT", "limit", Kind::Text),
                        column("OK/S", "ok_per_second", Kind::Rate),
                        column("LIMITED/S", "limited_per_second", Kind::Rate),
                        column("SHADOW/S", "shadow_per_second", Kind::Rate),
                        column("SHARE LIMITED", "share_limited", Kind::Share),
                        column("LIMITED", "limited", Kind::Number),
                    ]
                }
            }
            Self::Kernel => {
                const {
                    &[
                        column("POLICY", "policy", Kind::Text),
                        column("PASSED/S", "passed_per_second", Kind::Rate),
                        column("DROPPED/S", "dropped_per_second", Kind::Rate),
                        column("SHADOW/S", "shadow_per_second", Kind::Rate),
                        column("SHARE DROPPED", "share_dropped", Kind::Share),
                        column("DROPPED", "dropped", Kind::Number),
                        column("MOST FOR", "reason", Kind::Text),
                    ]
                }
            }
            Self::Sources => {
                const {
                    &[
                        column("SOURCE", "source", Kind::Text),
                        column("DENIED/S", "denied_per_second", Kind::Rate),
                        column("STATE", "state", Kind::Text),
                        column("TOKENS LEFT", "tokens_left", Kind::Share),
                        column("PORT", "port", Kind::Number),
                        column("LAST", "seconds_ago", Kind::Time),
                        column("POLICY OR RULE", "policy", Kind::Text),
                    ]
                }
            }
            Self::Routes => {
                const {
                    &[
                        column("ROUTE", "route", Kind::Text),
                        column("RQ/S", "requests_per_second", Kind::Rate),
                        column("2XX/S", "2xx_per_second", Kind::Rate),
                        column("4XX/S", "4xx_per_second", Kind::Rate),
                        column("5XX/S", "5xx_per_second", Kind::Rate),
                        column("SHARE FAILED", "share_failed", Kind::Share),
                    ]
                }
            }
            Self::Upstreams => {
                const {
                    &[
                        column("BACKEND", "backend", Kind::Text),
                        column("STATE", "state", Kind::Text),
                        column("RQ/S", "requests_per_second", Kind::Rate),
                        column("ACTIVE", "active", Kind::Number),
                        column("WAITING", "waiting", Kind::Number),
                        column("REFUSED/S", "refused_per_second", Kind::Rate),
                        column("RETRIES/S", "retries_per_second", Kind::Rate),
                        column("ENDPOINTS UP", "share_healthy", Kind::Share),
                        column("POLICY", "policy", Kind::Text),
                    ]
                }
            }
            Self::Store => {
                const {
                    &[
                        column("STORE", "store", Kind::Text),
                        column("STATE", "state", Kind::Text),
                        column("ASKED/S", "asked_per_second", Kind::Rate),
                        column("FAILED/S", "failed_per_second", Kind::Rate),
                        column("SHARE FAILED", "share_failed", Kind::Share),
                        column("CONNS", "connections", Kind::Number),
                    ]
                }
            }
            Self::Nodes => {
                const {
                    &[
                        column("NODE", "node", Kind::Text),
                        column("ADDRESS", "address", Kind::Text),
                        column("VERSION", "version", Kind::Text),
                        column("STATE", "state", Kind::Text),
                        column("BEAT", "seconds_since_beat", Kind::Time),
                        column("BLOCKS", "blocks", Kind::Number),
                    ]
                }
            }
            Self::Blocks => {
                const {
                    &[
                        column("NETWORK", "network", Kind::Text),
                        column("SCOPE", "scope", Kind::Text),
                        column("LEFT", "seconds_left", Kind::Time),
                        column("SINCE", "since", Kind::Text),
                        column("BY", "by", Kind::Text),
                        column("RULE", "rule", Kind::Text),
                        column("WHY", "why", Kind::Text),
                    ]
                }
            }
        }
    }
}

/// A number in at most seven letters, with a unit's prefix from 10,000 on.
#[must_use]
pub(in crate::cli) fn si(number: f64) -> String {
    match number {
        n if n < 10.0 && n > 0.0 => format!("{n:.1}"),
        n if n < 10_000.0 => format!("{n:.0}"),
        n if n < 1e6 => format!("{:.1} k", n / 1e3),
        n if n < 1e9 => format!("{:.1} M", n / 1e6),
        n => format!("{:.1} G", n / 1e9),
    }
}

/// The two largest units of a time.
#[must_use]
pub(in crate::cli) fn time(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{}m {:02}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h {:02}m", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{}d {:02}h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(rows: &[(&str, Option<f64>)]) -> Table {
        let row = |(name, rate): &(&str, Option<f64>)| Row {
            cells: vec![
                Cell::Text((*name).to_owned()),
                Cell::Rate(*rate),
                Cell::Rate(None),
                Cell::Rate(None),
                Cell::Rate(None),
                Cell::Share(None),
            ],
            mood: Mood::Well,
        };
        Table {
            section: Section::Routes,
            rows: rows.iter().map(row).collect(),
        }
    }

    fn names(table: &Table, filter: &str, sort: Sort) -> Vec<String> {
        let shown = table.shown(filter, sort);
        shown.iter().map(|row| row.cells[0].text()).collect()
    }

    #[test]
    fn rows_are_ordered_and_filtered() {
        let table = routes(&[
            ("shop/b", Some(1.0)),
            ("shop/a", Some(1.0)),
            ("Blog/c", Some(7.0)),
            ("shop/new", None),
        ]);
        let rate = Sort::by(Section::Routes, 1);
        assert!(rate.descending);
        assert_eq!(
            names(&table, "", rate),
            ["Blog/c", "shop/a", "shop/b", "shop/new"]
        );
        let up = Sort {
            descending: false,
            ..rate
        };
        assert_eq!(
            names(&table, "", up),
            ["shop/new", "shop/a", "shop/b", "Blog/c"]
        );
        let name = Sort::by(Section::Routes, 0);
        assert_eq!(names(&table, "SHOP  b", name), ["shop/b"]);
        assert_eq!(names(&table, "blog", name), ["Blog/c"]);
        assert!(names(&table, "shop blog", name).is_empty());
    }

    #[test]
    fn json_has_the_values_by_name() {
        let table = routes(&[("shop/a", Some(2.5))]);
        let json = table.json("", Section::Routes.sort());
        assert_eq!(json[0]["route"], "shop/a");
        assert_eq!(json[0]["requests_per_second"], 2.5);
        assert_eq!(json[0]["2xx_per_second"], Value::Null);
    }

    #[test]
    fn sections_order_by_a_column_they_have() {
        for section in Section::ALL {
            assert!(
                section.sort().column < section.columns().len(),
                "{section:?}"
            );
        }
    }

    #[test]
    fn numbers_are_short() {
        let written = [
            (0.0, "0"),
            (0.25, "0.2"),
            (12.6, "13"),
            (9_999.0, "9999"),
            (12_345.0, "12.3 k"),
            (7_900_000.0, "7.9 M"),
            (3.2e10, "32.0 G"),
        ];
        for (number, wanted) in written {
            assert_eq!(si(number), wanted);
        }
        assert_eq!(time(59), "59 s");
        assert_eq!(time(61), "1m 01s");
        assert_eq!(time(7_260), "2h 01m");
        assert_eq!(time(90_000), "1d 01h");
    }
}
