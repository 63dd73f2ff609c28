//! Boards on screens of several sizes.

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent};

use super::*;
use crate::cli::top::board::tests::{after, before};

fn drawn(view: &View, (width, height): (u16, u16), paint: Paint) -> Buffer {
    let board = Board::of(Some(&before()), &after());
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    let look = Drawing {
        view,
        paint,
        trouble: None,
        keys: true,
    };
    terminal
        .draw(|frame| {
            let area = frame.area();
            draw(Some(&board), look, area, frame.buffer_mut());
        })
        .unwrap();
    terminal.backend().buffer().clone()
}

fn lines(buffer: &Buffer) -> Vec<String> {
    let rows = buffer.area.rows();
    rows.map(|row| {
        let cells = row.columns().map(|cell| buffer[(cell.x, cell.y)].symbol());
        cells.collect::<String>().trim_end().to_owned()
    })
    .collect()
}

fn with<'a>(lines: &'a [String], text: &str) -> &'a str {
    lines
        .iter()
        .find(|line| line.contains(text))
        .unwrap_or_else(|| panic!("no {text:?} in\n{}", lines.join("\n")))
}

#[test]
fn all_sections_are_on_a_large_screen() {
    let lines = lines(&drawn(&View::default(), (160, 60), Paint::Plain));
    assert!(lines[0].starts_with("edge-1, limiterd 0.1.0: ready; policy 0123456789abcdef"));
    assert!(
        lines[1].contains("25 requests/s   5.0 limited/s"),
        "{}",
        lines[1]
    );
    assert!(lines[1].contains("150 dropped/s"), "{}", lines[1]);
    for section in Section::ALL {
        with(&lines, &section.name().to_uppercase());
    }
    let limit = with(&lines, "shop/p/rule/0 ");
    // A quarter of nine columns, to an eighth of one.
    assert!(limit.contains("██▎         25%"), "{limit}");
    with(&lines, "LIMITED/S▼");
    with(&lines, "0-8 Tab sections");
}

#[test]
fn every_size_is_drawn() {
    let mut view = View::default();
    for width in [0, 1, 7, 40, 79, 300] {
        for height in [0, 1, 2, 3, 4, 9, 24, 200] {
            drawn(&view, (width, height), Paint::Coloured);
        }
    }
    for section in Section::ALL {
        view.section = Some(section);
        for size in [(1, 1), (30, 5), (80, 24)] {
            drawn(&view, size, Paint::Coloured);
        }
    }
}

#[test]
fn a_section_scrolls_and_is_filtered() {
    let mut view = View::default();
    view.press(KeyEvent::from(KeyCode::Char('8')), None);
    let shown = lines(&drawn(&view, (120, 20), Paint::Plain));
    with(&shown, "203.0.113.0/24");
    view.offset = 1;
    let shown = lines(&drawn(&view, (120, 20), Paint::Plain));
    with(&shown, "BLOCKS (2 to 2 of 2)");
    view.offset = 0;
    view.filter = "198".to_owned();
    let shown = lines(&drawn(&view, (120, 20), Paint::Plain));
    assert!(!shown.join("\n").contains("203.0.113"), "{shown:?}");
    with(&shown, "filter: 198");
    view.section = None;
    view.filter = "nobody has this".to_owned();
    let shown = lines(&drawn(&view, (120, 20), Paint::Plain));
    assert_eq!(shown[3..19].join(""), "");
}

#[test]
fn colours_are_for_those_who_want_them() {
    let colours = |paint| {
        let buffer = drawn(&View::default(), (160, 60), paint);
        let coloured = |cell: &&ratatui::buffer::Cell| cell.fg != Color::Reset;
        buffer.content.iter().filter(coloured).count()
    };
    assert_eq!(colours(Paint::Plain), 0);
    assert!(colours(Paint::Coloured) > 100);
}

#[test]
fn trouble_is_told_and_the_board_stays() {
    let board = Board::of(None, &after());
    let view = View::default();
    let area = Rect::new(0, 0, 100, 30);
    let mut buffer = Buffer::empty(area);
    let look = Drawing {
        view: &view,
        paint: Paint::Plain,
        trouble: Some("cannot reach limiterd"),
        keys: true,
    };
    draw(Some(&board), look, area, &mut buffer);
    let lines = lines(&buffer);
    assert!(lines[29].starts_with("cannot reach limiterd; this is what was last heard"));
    assert!(lines[0].starts_with("edge-1"));
}

#[test]
fn room_is_shared() {
    assert_eq!(divide(30, &[5, 5]), [5, 5]);
    assert_eq!(divide(20, &[5, 40, 40]), [5, 8, 7]);
    // Not all of it fits: the first ones are shown.
    assert_eq!(divide(7, &[9, 9, 9]), [4, 3, 0]);
    assert_eq!(divide(2, &[9]), [0]);
    assert_eq!(divide(0, &[]), [0; 0]);
    assert_eq!(fill(30, &[10, 40, 5]), [10, 15, 5]);
    assert_eq!(fill(3, &[10, 40]), [1, 2]);
}

#[test]
fn bars_have_an_eighth_of_a_column() {
    assert_eq!(bar(0.0), " ".repeat(9));
    assert_eq!(bar(1.0), "█".repeat(9));
    assert_eq!(bar(0.000_1), format!("▏{}", " ".repeat(8)));
    assert_eq!(bar(0.5), "████▌    ");
}
