//! Keeping the mirror true.

use std::sync::Arc;

use super::Mirror;
use crate::{
    clock::TimeKeeper,
    store::{self, Cursor, Store},
};

/// Reads the log from where it was last read.
pub struct Follower {
    store: Arc<dyn Store>,
    mirror: Arc<Mirror>,
    time: Arc<TimeKeeper>,
    cursor: Option<Cursor>,
}

impl Follower {
    /// A follower that has read nothing.
    pub fn new(store: Arc<dyn Store>, mirror: Arc<Mirror>, time: Arc<TimeKeeper>) -> Self {
        Self { store, mirror, time, cursor: None }
    }

    /// Reads what was added, all of it the first time, and confirms the mirror; unless
    /// `others_hold` is false, when something else that tokens rest on could not be read.
    ///
    /// # Errors
    /// When the store does not answer; the mirror is then as old as it was.
    pub async fn poll(&mut self, others_hold: bool) -> store::Result<()> {
        // Read before the question is sent: what commits while it is under way is not in the answer.
        let asked = self.time.now();
        let batch = self.store.log_since(self.cursor.as_ref()).await?;
        for entry in &batch.entries {
            self.mirror.apply(entry);
        }
        if let Some(database_now) = batch.database_now {
            self.time.observe_database(database_now, asked.boot);
        }
        self.cursor = Some(batch.cursor);
        if others_hold {
            self.mirror.confirm(asked);
        }
        Ok(())
    }
}
