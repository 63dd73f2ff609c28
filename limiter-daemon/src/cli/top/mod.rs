//! `limiterd top`: what the daemon does, drawn anew every second: limits, kernel drops, sources,
//! backends, the store and the fleet, blocks. `--once` prints it for scripts.
//!
//! Three parts that do not know each other: `fetch` asks the admin listener, `board` makes tables of
//! two answers and the time between them, `draw` puts them on a screen of any size.

mod board;
mod draw;
mod fetch;
pub(in crate::cli) mod page;
pub(in crate::cli) mod rates;
mod screen;
mod table;
mod view;

use std::io::Write;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, bail};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use board::Board;
pub(in crate::cli) use board::whole;
use draw::Drawing;
use table::{Section, Sort};
pub(in crate::cli) use table::{si, time};
use view::View;

use super::client::Admin;
use super::paint::Paint;
use crate::l7::clock::Clock;

/// Columns of a printed screen, unless somebody says otherwise.
const WIDTH: u16 = 140;
/// Shortest time between two looks.
const SHORTEST: Duration = Duration::from_millis(100);

/// What `limiterd top` takes.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Print one screen, with rates over the interval, and end.
    #[arg(long)]
    once: bool,
    /// The same as JSON: all rows of each section, rates a second.
    #[arg(long)]
    json: bool,
    /// Time between two looks at the daemon, and what rates are over; from 100ms.
    #[arg(long, value_name = "TIME", default_value = "1s")]
    interval: humantime::Duration,
    /// One section only: limits, kernel, sources, routes, upstreams, store, nodes or blocks.
    #[arg(long, value_name = "NAME", value_parser = section)]
    section: Option<Section>,
    /// Rows that have these words, in capitals or not.
    #[arg(long, value_name = "WORDS", default_value = "")]
    filter: String,
    /// The column that rows of the section go by, as JSON names it; with a minus before it from the
    /// other end.
    #[arg(
        long,
        value_name = "COLUMN",
        requires = "section",
        allow_hyphen_values = true
    )]
    sort: Option<String>,
    /// Columns of a printed screen.
    #[arg(long, value_name = "COLUMNS", default_value_t = WIDTH)]
    width: u16,
    #[command(flatten)]
    admin: Admin,
}

/// Draws the daemon's doings until somebody has seen enough, or prints them once.
///
/// # Errors
/// When the daemon cannot be asked, or there is no terminal.
pub fn run(args: &Args, paint: Paint, out: &mut impl Write) -> anyhow::Result<()> {
    let interval = *args.interval;
    if interval < SHORTEST {
        bail!("--interval: at least {SHORTEST:?}");
    }
    let view = view(args)?;
    let clock = Clock::start();
    if !args.once && !args.json {
        return screen::run(args.admin, clock, interval, view, paint);
    }
    let before = fetch::fetch(args.admin, clock)?;
    thread::sleep(interval);
    let after = fetch::fetch(args.admin, clock)?;
    let board = Board::of(Some(&before), &after);
    if args.json {
        let sections = view
            .section
            .map_or_else(|| Section::ALL.to_vec(), |one| vec![one]);
        let sort = |section| view.sort(section);
        serde_json::to_writer_pretty(&mut *out, &board.json(&sections, &view.filter, sort))?;
        return Ok(writeln!(out)?);
    }
    Ok(out.write_all(print(&board, &view, args.width).as_bytes())?)
}

fn section(name: &str) -> Result<Section, String> {
    let found = Section::ALL.into_iter().find(|one| one.name() == name);
    found.ok_or_else(|| {
        let names = Section::ALL.map(Section::name).join(", ");
        format!("there is no section {name:?}; there are {names}")
    })
}

fn view(args: &Args) -> anyhow::Result<View> {
    let mut view = View::default();
    view.section = args.section;
    view.filter.clone_from(&args.filter);
    if let (Some(section), Some(wanted)) = (args.section, &args.sort) {
        let (key, other_end) = match wanted.strip_prefix('-') {
            Some(key) => (key, true),
            None => (wanted.as_str(), false),
        };
        let columns = section.columns();
        let column = columns.iter().position(|column| column.key == key);
        let column = column.with_context(|| {
            let keys: Vec<_> = columns.iter().map(|column| column.key).collect();
            format!(
                "--sort: {} has no column {key:?}; it has {}",
                section.name(),
                keys.join(", ")
            )
        })?;
        let sort = Sort::by(section, column);
        view.order(
            section,
            Sort {
                descending: sort.descending != other_end,
                ..sort
            },
        );
    }
    Ok(view)
}

/// The board as plain text, as many lines as it takes.
fn print(board: &Board, view: &View, width: u16) -> String {
    let area = Rect::new(0, 0, width, draw::height(board, view));
    let mut buffer = Buffer::empty(area);
    let look = Drawing {
        view,
        paint: Paint::Plain,
        trouble: None,
        keys: false,
    };
    draw::draw(Some(board), look, area, &mut buffer);
    let mut text = String::new();
    for row in area.rows() {
        let cells = row.columns().map(|cell| buffer[(cell.x, cell.y)].symbol());
        text += cells.collect::<String>().trim_end();
        text.push('\n');
    }
    // The last table leaves a line free below it.
    format!("{}\n", text.trim_end())
}
