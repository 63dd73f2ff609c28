//! What the screen tells: two looks at the daemon and the time between them become a heading and
//! tables. Pure: nothing is asked and no clock is read here.

mod node;
mod sources;
mod traffic;

#[cfg(test)]
pub(in crate::cli::top) mod tests;

pub(in crate::cli) use traffic::whole;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::page::Page;
use super::rates::Between;
use super::table::{Section, Sort, Table};
use crate::admin::blocks::BlockView;
use crate::admin::l4::OffenderView;
use crate::admin::node::{FleetView, NodeView};
use crate::admin::offenders::OffendersView;

/// What the daemon said at one time.
#[derive(Debug)]
pub(super) struct Look {
    /// Nanoseconds, by a clock of who looks.
    pub at: u64,
    pub metrics: Page,
    pub node: NodeView,
    /// `None`: no store is shared.
    pub fleet: Option<FleetView>,
    /// `None`: there is no kernel half.
    pub offenders: Option<Vec<OffenderView>>,
    /// `None`: the daemon is of a version that does not tell.
    pub limited: Option<OffendersView>,
    /// `None`: nothing can be blocked.
    pub blocks: Option<Vec<BlockView>>,
}

/// All of it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Board {
    pub heading: Heading,
    /// Those that there is something to say of, in the order of [`Section::ALL`].
    pub tables: Vec<Table>,
}

/// How the node is, in few words and numbers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Heading {
    pub name: String,
    pub version: String,
    pub ready: bool,
    /// What `/ready` says, by line.
    pub report: Vec<String>,
    pub policy: String,
    pub policy_since: String,
    /// `None`: each node counts for itself.
    pub store: Option<String>,
    /// A second, as all that follow; `None`: not known yet.
    pub requests_per_second: Option<f64>,
    pub limited_per_second: Option<f64>,
    pub refused_per_second: Option<f64>,
    /// `None`, too: there is no kernel half.
    pub packets_per_second: Option<f64>,
    pub dropped_per_second: Option<f64>,
    /// Connections open.
    pub connections: u64,
}

impl Board {
    /// What `after` says, with rates since `before`.
    #[must_use]
    pub(super) fn of(before: Option<&Look>, after: &Look) -> Self {
        let elapsed = |look: &Look| after.at.saturating_sub(look.at) as f64 / 1e9;
        let between = Between {
            before: before.map(|look| (&look.metrics, elapsed(look))),
            after: &after.metrics,
        };
        let tables = Section::ALL.into_iter().filter_map(|section| {
            let rows = match section {
                Section::Limits => traffic::limits(between),
                Section::Kernel => traffic::kernel(between),
                Section::Routes => traffic::routes(between),
                Section::Upstreams => traffic::upstreams(between),
                Section::Store => node::stores(between),
                Section::Sources => {
                    let blocks = after.blocks.as_deref().unwrap_or_default();
                    let dropped = after.offenders.as_deref().unwrap_or_default();
                    let limited = after.limited.as_ref();
                    let limited = limited.map_or(&[][..], |told| &told.limited);
                    sources::sources(dropped, limited, blocks)
                }
                Section::Nodes => node::nodes(after.fleet.as_ref()),
                Section::Blocks => node::blocks(after.blocks.as_deref().unwrap_or_default()),
            };
            (!rows.is_empty()).then_some(Table { section, rows })
        });
        Self {
            heading: node::heading(between, after),
            tables: tables.collect(),
        }
    }

    /// The table of `section`, if there is anything to say of it.
    #[must_use]
    pub(super) fn table(&self, section: Section) -> Option<&Table> {
        self.tables.iter().find(|table| table.section == section)
    }

    /// As one document: `node`, and each section that is `wanted` by its name, empty ones too.
    #[must_use]
    pub(super) fn json(
        &self,
        wanted: &[Section],
        filter: &str,
        sort: impl Fn(Section) -> Sort,
    ) -> Value {
        let mut document = Map::new();
        document.insert("node".to_owned(), json!(self.heading));
        for section in wanted {
            let table = self.table(*section);
            let rows = table.map_or_else(|| json!([]), |it| it.json(filter, sort(*section)));
            document.insert(section.name().to_owned(), rows);
        }
        Value::Object(document)
    }
}
