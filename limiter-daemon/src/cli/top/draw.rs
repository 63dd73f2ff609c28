//! Drawing a board into a buffer of any size.

use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Row as Drawn, Table as Grid, Widget as _};

use super::board::{Board, Heading};
use super::table::{Cell, Kind, Mood, Row, Section, Table, si};
use super::view::View;
use crate::cli::paint::Paint;

/// Columns of a bar.
const BAR: u16 = 9;
/// Eighths of a block, from one to seven.
const EIGHTHS: [&str; 7] = ["▏", "▎", "▍", "▌", "▋", "▊", "▉"];
/// Narrowest useful column of text.
const TEXT: u16 = 8;

/// How it is drawn.
#[derive(Clone, Copy, Debug)]
pub(super) struct Drawing<'a> {
    pub view: &'a View,
    pub paint: Paint,
    /// What went wrong when the daemon was asked last; the board is then an older one.
    pub trouble: Option<&'a str>,
    /// Whether somebody can press keys.
    pub keys: bool,
}

impl Drawing<'_> {
    fn colour(&self, colour: Color, more: Modifier) -> Style {
        let style = Style::default().add_modifier(more);
        match self.paint {
            Paint::Plain => style,
            Paint::Coloured => style.fg(colour),
        }
    }

    fn mood(&self, mood: Mood) -> Style {
        match mood {
            Mood::Well => Style::default(),
            Mood::Busy => self.colour(Color::Yellow, Modifier::empty()),
            Mood::Bad => self.colour(Color::Red, Modifier::BOLD),
        }
    }
}

/// Lines that the whole board takes, with all its rows.
#[must_use]
pub(super) fn height(board: &Board, view: &View) -> u16 {
    let tables = wanted(board, view);
    let rows: usize = tables.iter().map(|table| rows_of(table, view) + 3).sum();
    u16::try_from(rows + usize::from(heading_height(board)) + 1).unwrap_or(u16::MAX)
}

/// Lines of the heading, with a free one below it.
fn heading_height(board: &Board) -> u16 {
    if board.heading.report.len() > 1 { 4 } else { 3 }
}

/// Draws `board`; `None`: nothing has been heard yet.
pub(super) fn draw(board: Option<&Board>, look: Drawing<'_>, area: Rect, buffer: &mut Buffer) {
    let foot = u16::from(look.keys || look.trouble.is_some());
    let [head, body, foot] = Layout::vertical([
        Constraint::Length(board.map_or(1, heading_height)),
        Constraint::Fill(1),
        Constraint::Length(foot),
    ])
    .areas(area);
    footer(look, foot, buffer);
    let Some(board) = board else {
        Line::raw("asking limiterd ...").render(head, buffer);
        return;
    };
    heading(&board.heading, look, head, buffer);
    match look.view.section {
        None => overview(board, look, body, buffer),
        Some(section) => match board.table(section) {
            Some(it) => table(it, look, look.view.offset, body, buffer),
            None => Line::styled(
                nothing(section),
                look.colour(Color::DarkGray, Modifier::DIM),
            )
            .render(body, buffer),
        },
    }
}

/// Why a section is empty.
const fn nothing(section: Section) -> &'static str {
    match section {
        Section::Limits => "no limit is in force",
        Section::Kernel => "there is no kernel half: no interface is configured",
        Section::Sources => "no source was dropped by the kernel lately",
        Section::Routes => "there is no route",
        Section::Upstreams => "there is no backend",
        Section::Store | Section::Nodes => "no store is shared: each node counts for itself",
        Section::Blocks => "nobody is blocked",
    }
}

fn heading(heading: &Heading, look: Drawing<'_>, area: Rect, buffer: &mut Buffer) {
    let rate = |what: &str, rate: Option<f64>| match rate {
        Some(rate) => format!("{} {what}/s", si(rate)),
        None => format!("- {what}/s"),
    };
    let (ready, colour) = if heading.ready {
        ("ready", Color::Green)
    } else {
        ("NOT READY", Color::Red)
    };
    let first = Line::from(vec![
        Span::styled(
            format!("{}, limiterd {}: ", heading.name, heading.version),
            look.colour(Color::Reset, Modifier::BOLD),
        ),
        Span::styled(ready, look.colour(colour, Modifier::BOLD)),
        Span::raw(format!(
            "; policy {} since {}",
            heading.policy, heading.policy_since
        )),
        Span::raw(match &heading.store {
            Some(store) => format!("; store {store}"),
            None => String::new(),
        }),
    ]);
    let mut numbers = vec![
        rate("requests", heading.requests_per_second),
        rate("limited", heading.limited_per_second),
        rate("refused by breakers", heading.refused_per_second),
        format!("{} connections", heading.connections),
    ];
    if heading.packets_per_second.is_some() {
        numbers.push(rate("packets", heading.packets_per_second));
        numbers.push(rate("dropped", heading.dropped_per_second));
    }
    let more = heading.report.get(1..).unwrap_or_default().join("; ");
    let lines = [first, Line::raw(numbers.join("   ")), Line::raw(more)];
    for (line, row) in lines.into_iter().zip(area.rows()) {
        line.render(row, buffer);
    }
}

fn footer(look: Drawing<'_>, area: Rect, buffer: &mut Buffer) {
    let view = look.view;
    let line = if let Some(trouble) = look.trouble {
        Line::styled(
            format!("{trouble}; this is what was last heard"),
            look.colour(Color::Red, Modifier::BOLD),
        )
    } else if view.typing {
        Line::raw(format!(
            "filter: {}_  (Enter keeps it, Esc drops it)",
            view.filter
        ))
    } else {
        let paused = if view.paused { "PAUSED  " } else { "" };
        let filter = if view.filter.is_empty() {
            String::new()
        } else {
            format!("filter: {}  ", view.filter)
        };
        let keys = "0-8 Tab sections  / filter  s S sort  r reverse  space pause  q quit";
        Line::styled(
            format!("{paused}{filter}{keys}"),
            look.colour(Color::DarkGray, Modifier::DIM),
        )
    };
    line.render(area, buffer);
}

/// The tables that a view shows.
fn wanted<'a>(board: &'a Board, view: &View) -> Vec<&'a Table> {
    let all = board.tables.iter();
    all.filter(|table| view.section.is_none_or(|one| one == table.section))
        .filter(|table| view.filter.is_empty() || rows_of(table, view) > 0)
        .collect()
}

fn rows_of(table: &Table, view: &View) -> usize {
    table.shown(&view.filter, view.sort(table.section)).len()
}

/// The top of each table: as much of it as is fair.
fn overview(board: &Board, look: Drawing<'_>, area: Rect, buffer: &mut Buffer) {
    let tables = wanted(board, look.view);
    // A title, the names of the columns, the rows, and a line between.
    let wants: Vec<u16> = tables
        .iter()
        .map(|table| u16::try_from(rows_of(table, look.view) + 3).unwrap_or(u16::MAX))
        .collect();
    let heights = divide(area.height, &wants);
    let areas = Layout::vertical(heights.iter().map(|one| Constraint::Length(*one))).split(area);
    for (it, area) in tables.into_iter().zip(areas.iter()) {
        if area.height > 2 {
            table(it, look, 0, *area, buffer);
        }
    }
}

/// Shares `all` among those that want so much: nobody gets more than that, and what one leaves goes to
/// the others. Who would get less than a title, a head and a row gets nothing.
fn divide(all: u16, wants: &[u16]) -> Vec<u16> {
    const LEAST: u16 = 3;
    let fitting = wants.len().min(usize::from(all / LEAST));
    let mut given = vec![0; wants.len()];
    let mut left = all;
    while left > 0 {
        let hungry: Vec<usize> = (0..fitting).filter(|at| given[*at] < wants[*at]).collect();
        if hungry.is_empty() {
            break;
        }
        let each = (left / u16::try_from(hungry.len()).unwrap_or(u16::MAX)).max(1);
        for at in hungry {
            let more = each.min(wants[at] - given[at]).min(left);
            given[at] += more;
            left -= more;
        }
    }
    given
}

/// A table with its title. With as much room as it wants, the last line is left free.
fn table(table: &Table, look: Drawing<'_>, offset: usize, area: Rect, buffer: &mut Buffer) {
    let view = look.view;
    let sort = view.sort(table.section);
    let rows = table.shown(&view.filter, sort);
    let [title, grid] = Layout::vertical([Constraint::Length(1), Constraint::Fill(1)]).areas(area);
    let room = usize::from(grid.height.saturating_sub(1));
    let offset = offset.min(rows.len().saturating_sub(1));
    let end = rows.len().min(offset + room);
    let mut words = table.section.name().to_uppercase();
    if offset > 0 || end < rows.len() {
        words += &format!(" ({} to {end} of {})", offset + 1, rows.len());
    }
    Line::styled(words, look.colour(Color::Cyan, Modifier::BOLD)).render(title, buffer);
    let columns = table.section.columns();
    let widths = widths(table.section, &rows, grid.width);
    let head = columns
        .iter()
        .enumerate()
        .zip(&widths)
        .map(|((at, column), width)| {
            let mark = match (at == sort.column, sort.descending) {
                (true, true) => "▼",
                (true, false) => "▲",
                (false, _) => "",
            };
            aligned(&format!("{}{mark}", column.title), column.kind, *width)
        });
    let head = Drawn::new(head).style(look.colour(Color::DarkGray, Modifier::DIM));
    let drawn = rows.get(offset..end).unwrap_or_default().iter().map(|row| {
        let cells = columns.iter().zip(&row.cells).zip(&widths);
        let cells = cells.map(|((column, cell), width)| cell_line(cell, column.kind, *width));
        Drawn::new(cells).style(look.mood(row.mood))
    });
    let constraints = widths.iter().map(|width| Constraint::Length(*width));
    Grid::new(drawn, constraints)
        .header(head)
        .column_spacing(1)
        .render(grid, buffer);
}

/// The columns' widths: what numbers need, and for texts what is left, the shorter ones first served.
fn widths(section: Section, rows: &[&Row], all: u16) -> Vec<u16> {
    let columns = section.columns();
    let gaps = u16::try_from(columns.len().saturating_sub(1)).unwrap_or(u16::MAX);
    let fixed: u16 = columns.iter().filter_map(|one| one.kind.width()).sum();
    let longest = |at: usize| {
        let texts = rows.iter().filter_map(|row| row.cells.get(at));
        let cells = texts.map(|cell| cell.text().chars().count());
        // The head may have a mark.
        cells.chain([columns[at].title.chars().count() + 1]).max()
    };
    let texts: Vec<usize> = (0..columns.len())
        .filter(|at| columns[*at].kind == Kind::Text)
        .collect();
    let wants: Vec<u16> = texts
        .iter()
        .map(|at| u16::try_from(longest(*at).unwrap_or_default()).unwrap_or(u16::MAX))
        .map(|width| width.max(TEXT))
        .collect();
    let given = fill(all.saturating_sub(fixed + gaps), &wants);
    let mut given = given.into_iter();
    columns
        .iter()
        .map(|column| {
            let text = || given.next().unwrap_or(TEXT);
            column.kind.width().unwrap_or_else(text)
        })
        .collect()
}

/// Shares `all`: each gets what it wants, or an equal part of what the more modest ones leave.
fn fill(all: u16, wants: &[u16]) -> Vec<u16> {
    let mut order: Vec<usize> = (0..wants.len()).collect();
    order.sort_by_key(|at| wants[*at]);
    let mut given = vec![0; wants.len()];
    let mut left = all;
    for (done, at) in order.iter().enumerate() {
        let others = u16::try_from(wants.len() - done).unwrap_or(u16::MAX);
        given[*at] = wants[*at].min(left / others);
        left -= given[*at];
    }
    given
}

fn cell_line(cell: &Cell, kind: Kind, width: u16) -> Line<'static> {
    match cell {
        Cell::Share(Some(share)) => {
            let percent = format!("{:>4}%", (share * 100.0).round());
            Line::raw(format!("{} {percent}", bar(*share)))
        }
        other => aligned(&other.text(), kind, width),
    }
}

/// Texts to the left, cut at their end; numbers to the right.
fn aligned(text: &str, kind: Kind, width: u16) -> Line<'static> {
    let line = Line::raw(text.to_owned());
    match kind {
        Kind::Text if text.chars().count() > usize::from(width) => {
            let most = usize::from(width.saturating_sub(1));
            let cut: String = text.chars().take(most).collect();
            Line::raw(format!("{cut}…"))
        }
        Kind::Text => line,
        Kind::Share if text != "-" => line,
        _ => line.right_aligned(),
    }
}

/// A bar of [`BAR`] columns, to an eighth of one. What is more than nothing is seen.
fn bar(share: f64) -> String {
    let eighths = f64::from(BAR) * 8.0;
    let wanted = (share.clamp(0.0, 1.0) * eighths).round();
    let wanted = if share > 0.0 { wanted.max(1.0) } else { wanted };
    let steps = (0..BAR).map(|column| {
        let here = wanted - f64::from(column) * 8.0;
        let eighth = EIGHTHS
            .iter()
            .zip(1u32..)
            .find(|(_, n)| f64::from(*n) >= here);
        match eighth {
            _ if here <= 0.0 => " ",
            _ if here >= 8.0 => "█",
            Some((eighth, _)) => eighth,
            None => "█",
        }
    });
    steps.collect()
}

#[cfg(test)]
mod tests;
