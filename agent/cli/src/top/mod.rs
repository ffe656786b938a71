//! `holm top`: the node, live. On a terminal a screen that is redrawn in place; elsewhere one line now and then.
//!
//! The terminal is given back as it was however this ends: by a key, a signal, a failure or a panic.

mod draw;
mod figures;
mod sample;

use std::time::Duration;

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::client::Client;
use crate::failure::Failure;
use crate::screen::Screen;
pub(crate) use draw::Paint;
use figures::Figures;
use sample::{Sample, Watch};

/// How long a look for a key may hold up the end.
const KEY: Duration = Duration::from_millis(200);

/// See `holm top --help`.
#[derive(clap::Args)]
pub(crate) struct Top {
    /// Seconds between two looks [default: 1 on a terminal, else 5]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    every: Option<u64>,
    /// One JSON object a line, instead of a screen
    #[arg(long)]
    json: bool,
    /// End after so many looks
    #[arg(short = 'n', long, value_name = "N")]
    count: Option<u64>,
}

impl Top {
    pub(crate) async fn run(&self, client: &Client, screen: &mut Screen) -> Result<(), Failure> {
        let live = screen.tty && !self.json;
        let every = Duration::from_secs(self.every.unwrap_or(if live { 1 } else { 5 }));
        if !live {
            return self.lines(client, screen, every).await;
        }
        let cannot = |error: std::io::Error| Failure::new(format!("cannot draw on this terminal: {error}"));
        // Before the screen is taken: that no node answers is better read on the ordinary one.
        let first = Watch::default().look(client).await?;
        let mut terminal = ratatui::try_init().map_err(cannot)?;
        let ended = self.live(client, screen, every, first, &mut terminal).await;
        let restored = ratatui::try_restore().map_err(cannot);
        ended.and(restored)
    }

    async fn live(
        &self,
        client: &Client,
        screen: &Screen,
        every: Duration,
        first: Sample,
        terminal: &mut ratatui::DefaultTerminal,
    ) -> Result<(), Failure> {
        let mut terminate =
            signal(SignalKind::terminate()).map_err(|error| Failure::new(format!("cannot await SIGTERM: {error}")))?;
        let mut watch = Watch::default();
        let mut before = first;
        let mut figures = Figures::of(&before, &before);
        let mut lost: Option<Failure> = None;
        let mut key = press();
        let mut looks = 0;
        let mut next = Instant::now();
        loop {
            let told = lost.as_ref().map(|failure| failure.render(&screen.look));
            terminal
                .draw(|frame| draw::draw(frame, &figures, &before, told.as_deref(), &screen.look))
                .map_err(|error| Failure::new(format!("cannot draw on this terminal: {error}")))?;
            if self.count.is_some_and(|count| looks >= count) {
                return Ok(());
            }
            next += every;
            tokio::select! {
                _ = terminate.recv() => return Ok(()),
                pressed = &mut key => {
                    if matches!(pressed, Ok(Some(pressed)) if leaves(pressed)) {
                        return Ok(());
                    }
                    key = press();
                    next -= every;
                }
                () = tokio::time::sleep_until(next) => {
                    looks += 1;
                    match watch.look(client).await {
                        Ok(sample) => {
                            figures = Figures::of(&before, &sample);
                            before = sample;
                            lost = None;
                        }
                        // The last figures stay, and say that they are old: the node may come back.
                        Err(failure) => lost = Some(failure),
                    }
                    // A look that took long is not made up for.
                    next = next.max(Instant::now());
                }
            }
        }
    }

    async fn lines(&self, client: &Client, screen: &mut Screen, every: Duration) -> Result<(), Failure> {
        let mut watch = Watch::default();
        let mut before = watch.look(client).await?;
        let mut looks = 0;
        while self.count.is_none_or(|count| looks < count) {
            tokio::time::sleep(every).await;
            let sample = watch.look(client).await?;
            let figures = Figures::of(&before, &sample);
            match self.json {
                true => screen.json(&serde_json::json!(figures))?,
                false => screen.line(draw::line(&figures))?,
            }
            before = sample;
            looks += 1;
        }
        Ok(())
    }
}

/// Waits a moment for a key, on a thread that may block.
pub(crate) fn press() -> JoinHandle<Option<KeyEvent>> {
    tokio::task::spawn_blocking(|| match event::poll(KEY) {
        Ok(true) => match event::read() {
            Ok(Event::Key(key)) if key.kind == KeyEventKind::Press => Some(key),
            _ => None,
        },
        Ok(false) => None,
        // No terminal any more: not in a busy loop, please.
        Err(_) => {
            std::thread::sleep(KEY);
            None
        }
    })
}

fn leaves(key: KeyEvent) -> bool {
    let interrupt = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    interrupt || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc)
}
