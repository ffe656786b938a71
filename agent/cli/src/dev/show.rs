//! Where a run of `holm dev` is shown: on a terminal a screen that is redrawn in place, elsewhere plain lines.

use std::path::{Path, PathBuf};

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use serde_json::Value;
use tokio::task::JoinHandle;

use super::Swap;
use super::board::{Board, Build, Function};
use super::draw::draw;
use super::follow;
use crate::failure::Failure;
use crate::look::{self, Tone};
use crate::screen::Screen;
use crate::top::{Paint, press};

/// Where a run is shown.
pub(super) enum Show {
    /// One after the other, for pipes, files and people who like them.
    Lines {
        /// Invocations as JSON.
        json: bool,
    },
    /// In place.
    Live(Box<Live>),
}

/// The terminal, which is given back when this is dropped, whatever the reason.
pub(super) struct Live {
    terminal: ratatui::DefaultTerminal,
    board: Board,
    paint: Paint,
    held: bool,
    key: JoinHandle<Option<KeyEvent>>,
}

/// What somebody wants who has pressed a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// To end.
    End,
    /// To build everything again.
    Build,
    /// Nothing that concerns anybody but the screen.
    Nothing,
}

impl Show {
    /// The live screen for these folders.
    pub(super) fn live(dirs: &[PathBuf], head: Vec<String>, screen: &Screen) -> Result<Self, Failure> {
        let functions = dirs.iter().map(|dir| Function::new(dir)).collect();
        let board = Board { head, functions, ..Board::default() };
        let terminal = ratatui::try_init().map_err(|error| cannot(&error))?;
        let (paint, key) = (Paint::new(&screen.look), press());
        Ok(Self::Live(Box::new(Live { terminal, board, paint, held: false, key })))
    }

    /// Whether what compilers print must not reach the terminal by itself.
    pub(super) fn is_live(&self) -> bool {
        matches!(self, Self::Live(_))
    }

    /// Draws what there is. Plain lines are there already.
    pub(super) fn draw(&mut self) -> Result<(), Failure> {
        match self {
            Self::Live(live) if !live.held => live.draw(),
            _ => Ok(()),
        }
    }

    /// What the next key means; never, where there are no keys. Cancel safe.
    pub(super) async fn wish(&mut self) -> Wish {
        let Self::Live(live) = self else { return std::future::pending().await };
        let pressed = (&mut live.key).await;
        live.key = press();
        live.pressed(pressed.ok().flatten())
    }

    /// Something to know.
    pub(super) fn note(&mut self, screen: &Screen, text: &str) {
        match self {
            Self::Lines { .. } => screen.note(text),
            Self::Live(live) => live.board.logs.push(Tone::Dim, text),
        }
    }

    /// Something that went wrong.
    pub(super) fn complain(&mut self, screen: &Screen, failure: &Failure) {
        match self {
            Self::Lines { .. } => screen.complain(failure),
            Self::Live(live) => live.board.logs.push(Tone::Bad, &failure.words()),
        }
    }

    /// A function's build begins.
    pub(super) fn begins(&mut self, screen: &Screen, index: usize, dir: &Path, command: Option<&str>) {
        match self {
            Self::Lines { .. } => {
                if let Some(command) = command {
                    screen.note(format_args!("{}: {command}", dir.display()));
                }
            }
            Self::Live(live) => live.board.begins(index),
        }
    }

    /// A new version runs.
    pub(super) fn runs(&mut self, screen: &Screen, index: usize, swap: Swap) {
        let ms = |time: std::time::Duration| look::micros(time.as_secs_f64() * 1e6);
        match self {
            Self::Lines { .. } => screen.note(format_args!(
                "{} {} runs: {}, compiled in {}, swapped in {}",
                screen.errors.paint(Tone::Good, &swap.name),
                swap.version,
                look::bytes(swap.bytes),
                ms(swap.compiled),
                ms(swap.swapped)
            )),
            Self::Live(live) => {
                for (key, value) in &swap.state {
                    live.board.keep(&swap.name, key, Some(value));
                }
                if let Some(function) = live.board.functions.get_mut(index) {
                    let Swap { name, version, bytes, compiled, swapped, .. } = swap;
                    (function.name, function.version) = (name, version);
                    function.build = Build::Runs { bytes, compiled, swapped };
                }
            }
        }
    }

    /// A build has failed, or the node did not take it.
    pub(super) fn failed(&mut self, screen: &Screen, index: usize, failure: &Failure, over: bool) {
        match self {
            Self::Lines { .. } => {
                screen.complain(failure);
                if over {
                    screen.note("the last good build goes on running");
                }
            }
            Self::Live(live) => live.board.failed(index, &failure.words()),
        }
    }

    /// An invocation has ended.
    pub(super) fn take(&mut self, screen: &mut Screen, take: &Value) -> Result<(), Failure> {
        match self {
            Self::Lines { json: true } => screen.json(take),
            Self::Lines { json: false } => {
                let text = follow::render(take, &screen.look);
                screen.text(&text)
            }
            Self::Live(live) => {
                live.board.take(take, &screen.look);
                Ok(())
            }
        }
    }
}

impl Live {
    fn draw(&mut self) -> Result<(), Failure> {
        let Self { terminal, board, paint, held, .. } = self;
        terminal.draw(|frame| draw(frame, board, paint, *held)).map(drop).map_err(|error| cannot(&error))
    }

    fn pressed(&mut self, key: Option<KeyEvent>) -> Wish {
        let Some(key) = key else { return Wish::Nothing };
        match key.code {
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return Wish::End,
            KeyCode::Char('q') | KeyCode::Esc => return Wish::End,
            KeyCode::Char('b') => return Wish::Build,
            KeyCode::Char('c') => {
                self.board.events.clear();
                self.board.logs.clear();
            }
            KeyCode::Char(' ') => {
                self.held = !self.held;
                // That it is held is to be seen as well. If that fails, the next drawing says so.
                let _ = self.draw();
            }
            _ => {}
        }
        Wish::Nothing
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let _ = ratatui::try_restore();
    }
}

fn cannot(error: &std::io::Error) -> Failure {
    Failure::new(format!("cannot draw on this terminal: {error}")).next("add --plain for lines, one after the other")
}
