//! Turns of the parts of a batch that are written at once: places are taken in the order of the parts.

use std::time::Duration;

use tokio::sync::watch;

use super::session::Fault;

/// How long a part that holds locks waits for its turn: whoever asks for a stronger one stands between it and those before it,
/// and the server, which does not know of turns, sees no deadlock.
const PATIENCE: Duration = Duration::from_secs(1);

/// How many parts have been written.
pub struct Turns(watch::Sender<usize>);

impl Turns {
    pub fn new() -> Self {
        Self(watch::Sender::new(0))
    }

    /// The turn of the part at this index.
    pub fn of(&self, index: usize) -> Turn<'_> {
        Turn(Some((self, index)))
    }

    /// The part whose turn it was has been written.
    pub fn next(&self) {
        self.0.send_modify(|written| *written += 1);
    }
}

/// When a part may take its places.
#[derive(Clone, Copy)]
pub struct Turn<'a>(Option<(&'a Turns, usize)>);

impl Turn<'_> {
    /// That of a batch which is written alone.
    pub const NOW: Turn<'static> = Turn(None);

    /// Waits until all parts before it have been written. Never ends if one of them fails.
    pub async fn comes(self) {
        if let Some((turns, index)) = self.0 {
            // The sender lives as long as the turns.
            let _ = turns.0.subscribe().wait_for(|written| *written == index).await;
        }
    }

    /// The same, or [`Fault::Overtaken`] where that takes long.
    pub async fn comes_soon(self) -> Result<(), Fault> {
        tokio::time::timeout(PATIENCE, self.comes()).await.map_err(|_| Fault::Overtaken)
    }
}
