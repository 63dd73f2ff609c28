//! Colours, where somebody is there to see them.

use std::ffi::OsStr;
use std::fmt;
use std::io::{IsTerminal, stdout};

/// Whether text is coloured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Paint {
    #[default]
    Plain,
    Coloured,
}

/// A colour or weight (SGR of ECMA-48).
#[derive(Clone, Copy, Debug)]
pub enum Style {
    Bold,
    Red,
    Yellow,
    Green,
    Blue,
    Dim,
}

impl Paint {
    /// Coloured if standard output is a terminal that can, and `NO_COLOR` is not set
    /// (no-color.org).
    #[must_use]
    pub fn of_stdout() -> Self {
        let var = |name| std::env::var_os(name);
        Self::choose(
            stdout().is_terminal(),
            var("NO_COLOR").as_deref(),
            var("TERM").as_deref(),
        )
    }

    fn choose(terminal: bool, no_color: Option<&OsStr>, term: Option<&OsStr>) -> Self {
        let refused = no_color.is_some_and(|value| !value.is_empty());
        let dumb = term.is_some_and(|term| term == "dumb");
        if terminal && !refused && !dumb {
            Self::Coloured
        } else {
            Self::Plain
        }
    }

    /// `text`, in `style` if it is coloured.
    #[must_use]
    pub fn paint<T: fmt::Display>(self, style: Style, text: T) -> Painted<T> {
        let style = (self == Self::Coloured).then_some(style);
        Painted { style, text }
    }
}

/// Text in a style, or as it is.
#[derive(Clone, Copy, Debug)]
pub struct Painted<T> {
    style: Option<Style>,
    text: T,
}

impl<T: fmt::Display> fmt::Display for Painted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(style) = self.style else {
            return self.text.fmt(f);
        };
        let code = match style {
            Style::Bold => "1",
            Style::Red => "1;31",
            Style::Yellow => "1;33",
            Style::Green => "1;32",
            Style::Blue => "1;34",
            Style::Dim => "2",
        };
        write!(f, "\x1b[{code}m")?;
        self.text.fmt(f)?;
        f.write_str("\x1b[0m")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_for_terminals_that_want_them() {
        let choose = |terminal, no_color: Option<&str>, term: Option<&str>| {
            Paint::choose(terminal, no_color.map(OsStr::new), term.map(OsStr::new))
        };
        assert_eq!(choose(true, None, Some("xterm")), Paint::Coloured);
        assert_eq!(choose(true, Some(""), None), Paint::Coloured);
        assert_eq!(choose(true, Some("1"), Some("xterm")), Paint::Plain);
        assert_eq!(choose(true, None, Some("dumb")), Paint::Plain);
        assert_eq!(choose(false, None, Some("xterm")), Paint::Plain);
    }

    #[test]
    fn plain_text_is_left_alone() {
        assert_eq!(Paint::Plain.paint(Style::Red, "a").to_string(), "a");
        let red = Paint::Coloured.paint(Style::Red, "a").to_string();
        assert_eq!(red, "\x1b[1;31ma\x1b[0m");
    }
}
