//! The terminal: looks come from one thread, keys from the terminal, and both end up on the screen.

use std::io::IsTerminal as _;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, bail};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyEventKind};

use super::board::{self, Board};
use super::draw::{Drawing, draw};
use super::fetch::fetch;
use super::view::{View, Wish};
use crate::cli::client::Admin;
use crate::cli::paint::Paint;
use crate::l7::clock::Clock;

/// How soon a new look is on the screen.
const POLL: Duration = Duration::from_millis(100);

type Heard = anyhow::Result<board::Look>;

/// What is on the screen.
#[derive(Debug, Default)]
struct State {
    before: Option<board::Look>,
    board: Option<Board>,
    trouble: Option<String>,
}

/// Draws until somebody presses `q`.
pub(super) fn run(
    admin: Admin,
    clock: Clock,
    interval: Duration,
    mut view: View,
    paint: Paint,
) -> anyhow::Result<()> {
    if !std::io::stdin().is_terminal() || !std::io::stdout().is_terminal() {
        bail!("there is no terminal to draw on; --once prints one screen, --json as JSON");
    }
    // The first look before the screen is taken: who cannot reach the daemon is told so in plain text.
    let first = fetch(&admin, clock)?;
    let (sender, heard) = sync_channel(1);
    thread::Builder::new()
        .name("looks".to_owned())
        .spawn(move || looks(&admin, clock, interval, &sender))?;
    let mut terminal = ratatui::try_init().context("the terminal cannot be drawn on")?;
    let mut state = State::default();
    state.hear(Ok(first), &mut view);
    let result = show(&mut terminal, &heard, &mut state, &mut view, paint);
    ratatui::try_restore()?;
    result
}

/// Looks at the daemon over and over, until nobody listens. While the screen is paused it waits.
fn looks(admin: &Admin, clock: Clock, interval: Duration, sender: &SyncSender<Heard>) {
    loop {
        thread::sleep(interval);
        if sender.send(fetch(admin, clock)).is_err() {
            return;
        }
    }
}

fn show(
    terminal: &mut DefaultTerminal,
    heard: &Receiver<Heard>,
    state: &mut State,
    view: &mut View,
    paint: Paint,
) -> anyhow::Result<()> {
    loop {
        let look = Drawing {
            view,
            paint,
            trouble: state.trouble.as_deref(),
            keys: true,
        };
        terminal.draw(|frame| {
            let area = frame.area();
            draw(state.board.as_ref(), look, area, frame.buffer_mut());
        })?;
        if event::poll(POLL)? {
            // A resize needs no more than the next drawing.
            if let Event::Key(key) = event::read()?
                && key.kind != KeyEventKind::Release
                && view.press(key, state.board.as_ref()) == Wish::Quit
            {
                return Ok(());
            }
        }
        if !view.paused
            && let Ok(next) = heard.try_recv()
        {
            state.hear(next, view);
        }
    }
}

impl State {
    fn hear(&mut self, heard: Heard, view: &mut View) {
        match heard {
            Ok(look) => {
                self.board = Some(Board::of(self.before.as_ref(), &look));
                self.before = Some(look);
                self.trouble = None;
                view.bound(self.board.as_ref());
            }
            Err(error) => self.trouble = Some(format!("{error:#}")),
        }
    }
}
