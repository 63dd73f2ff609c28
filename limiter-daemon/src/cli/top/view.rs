//! What somebody wants to see: a section, its order, a filter; and what the keys change of it. Pure.

use std::collections::HashMap;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::board::Board;
use super::table::{Section, Sort};

/// Rows that a page of the keyboard goes.
const PAGE: usize = 10;
/// Characters of a filter at most.
const MAX_FILTER: usize = 80;

/// What is shown of a board.
#[derive(Clone, Debug, Default)]
pub(super) struct View {
    /// `None`: all sections, the top of each.
    pub section: Option<Section>,
    pub filter: String,
    /// Whether the keys go into the filter.
    pub typing: bool,
    /// The board stays as it is.
    pub paused: bool,
    /// Rows above the first one that is shown.
    pub offset: usize,
    sorts: HashMap<Section, Sort>,
}

/// What a key asks of who reads them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Go,
    Quit,
}

impl View {
    /// The order of a section.
    #[must_use]
    pub(super) fn sort(&self, section: Section) -> Sort {
        let chosen = self.sorts.get(&section).copied();
        chosen.unwrap_or_else(|| section.sort())
    }

    /// Orders a section so.
    pub(super) fn order(&mut self, section: Section, sort: Sort) {
        self.sorts.insert(section, sort);
    }

    /// Does what a key is for.
    pub(super) fn press(&mut self, key: KeyEvent, board: Option<&Board>) -> Wish {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        if control && key.code == KeyCode::Char('c') {
            return Wish::Quit;
        }
        if self.typing {
            self.write(key.code, control);
            return Wish::Go;
        }
        match key.code {
            KeyCode::Char('q') => return Wish::Quit,
            KeyCode::Esc if !self.filter.is_empty() => self.filter.clear(),
            KeyCode::Esc => self.go(None),
            KeyCode::Char('0') => self.go(None),
            KeyCode::Char(digit @ '1'..='9') => {
                let index = usize::try_from(u32::from(digit) - u32::from('1')).unwrap_or_default();
                if let Some(section) = Section::ALL.get(index) {
                    self.go(Some(*section));
                }
            }
            KeyCode::Tab | KeyCode::Right => self.step(1),
            KeyCode::BackTab | KeyCode::Left => self.step(Section::ALL.len()),
            KeyCode::Char('/') => self.typing = true,
            KeyCode::Char(' ' | 'p') => self.paused = !self.paused,
            KeyCode::Char('s' | '>') => self.turn(1),
            KeyCode::Char('S' | '<') => self.turn(-1),
            KeyCode::Char('r') => self.reverse(),
            KeyCode::Down | KeyCode::Char('j') => self.offset = self.offset.saturating_add(1),
            KeyCode::Up | KeyCode::Char('k') => self.offset = self.offset.saturating_sub(1),
            KeyCode::PageDown => self.offset = self.offset.saturating_add(PAGE),
            KeyCode::PageUp => self.offset = self.offset.saturating_sub(PAGE),
            KeyCode::Home | KeyCode::Char('g') => self.offset = 0,
            KeyCode::End | KeyCode::Char('G') => self.offset = usize::MAX,
            _ => {}
        }
        self.bound(board);
        Wish::Go
    }

    /// Keeps the last row on the screen.
    pub(super) fn bound(&mut self, board: Option<&Board>) {
        let table = self
            .section
            .and_then(|section| board.and_then(|board| board.table(section)));
        let rows = table.map_or(0, |table| {
            table.shown(&self.filter, self.sort(table.section)).len()
        });
        self.offset = self.offset.min(rows.saturating_sub(1));
    }

    fn write(&mut self, code: KeyCode, control: bool) {
        match code {
            KeyCode::Enter => self.typing = false,
            KeyCode::Esc => {
                self.typing = false;
                self.filter.clear();
            }
            KeyCode::Backspace => drop(self.filter.pop()),
            KeyCode::Char('u') if control => self.filter.clear(),
            KeyCode::Char(letter) if !control && self.filter.chars().count() < MAX_FILTER => {
                self.filter.push(letter);
            }
            _ => {}
        }
        self.offset = 0;
    }

    fn go(&mut self, section: Option<Section>) {
        self.section = section;
        self.offset = 0;
    }

    /// `by` places on, all sections together being the first place.
    fn step(&mut self, by: usize) {
        let places = Section::ALL.len() + 1;
        let of = |section| Section::ALL.iter().position(|one| *one == section);
        let here = self.section.and_then(of).map_or(0, |index| index + 1);
        let next = (here + by) % places;
        self.go(next
            .checked_sub(1)
            .and_then(|at| Section::ALL.get(at))
            .copied());
    }

    fn turn(&mut self, by: isize) {
        let Some(section) = self.section else { return };
        let columns = section.columns().len();
        let here = self.sort(section).column;
        let next = (here + columns).saturating_add_signed(by) % columns;
        self.order(section, Sort::by(section, next));
        self.offset = 0;
    }

    fn reverse(&mut self) {
        let Some(section) = self.section else { return };
        let sort = self.sort(section);
        let descending = !sort.descending;
        self.order(section, Sort { descending, ..sort });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn press(view: &mut View, keys: &str) {
        for letter in keys.chars() {
            let code = match letter {
                '\n' => KeyCode::Enter,
                '\t' => KeyCode::Tab,
                '\u{1b}' => KeyCode::Esc,
                other => KeyCode::Char(other),
            };
            assert_eq!(view.press(KeyEvent::from(code), None), Wish::Go);
        }
    }

    #[test]
    fn keys_choose_a_section_and_its_order() {
        let mut view = View::default();
        press(&mut view, "3");
        assert_eq!(view.section, Some(Section::Sources));
        let first = view.sort(Section::Sources);
        press(&mut view, "s");
        assert_eq!(view.sort(Section::Sources).column, first.column + 1);
        press(&mut view, "Sr");
        let reversed = view.sort(Section::Sources);
        assert_eq!(reversed.column, first.column);
        assert_ne!(reversed.descending, first.descending);
        // Each section keeps its own.
        press(&mut view, "\t");
        assert_eq!(view.section, Some(Section::Routes));
        assert_eq!(view.sort(Section::Routes), Section::Routes.sort());
        press(&mut view, "0S");
        assert_eq!(view.section, None);
    }

    #[test]
    fn tabs_go_round() {
        let mut view = View::default();
        for section in Section::ALL {
            press(&mut view, "\t");
            assert_eq!(view.section, Some(section));
        }
        press(&mut view, "\t");
        assert_eq!(view.section, None);
        view.press(KeyEvent::from(KeyCode::BackTab), None);
        assert_eq!(view.section, Some(Section::Blocks));
    }

    #[test]
    fn what_is_typed_into_the_filter_is_no_command() {
        let mut view = View::default();
        press(&mut view, "1/q s\n");
        assert_eq!((view.filter.as_str(), view.typing), ("q s", false));
        press(&mut view, "/x");
        view.press(KeyEvent::from(KeyCode::Backspace), None);
        assert_eq!(view.filter, "q s");
        press(&mut view, "\u{1b}");
        assert_eq!((view.filter.as_str(), view.typing), ("", false));
        press(&mut view, &format!("/{}", "x".repeat(2 * MAX_FILTER)));
        assert_eq!(view.filter.len(), MAX_FILTER);
        let end = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(view.press(end, None), Wish::Quit);
    }

    #[test]
    fn the_last_row_stays_on_the_screen() {
        let mut view = View::default();
        press(&mut view, "1G");
        assert_eq!(view.offset, 0, "there is no row");
        press(&mut view, " ");
        assert!(view.paused);
    }
}
