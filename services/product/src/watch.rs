//! Changes of products as they happen. A watcher reads the log at its own pace, a bounded batch at a
//! time: one that is slow holds up nobody and nothing is queued for it, and one that falls behind
//! what is kept is told so.

use std::{collections::VecDeque, pin::Pin, sync::Arc, time::Duration};

use futures_util::{Stream, stream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    config::WatchConfig,
    error::Error,
    store::{Change, Store},
};

/// Changes, one at a time.
pub type Changes = Pin<Box<dyn Stream<Item = Result<Change, Error>> + Send>>;

/// Lets a limited number of watchers in.
pub struct Watchers {
    store: Arc<dyn Store>,
    config: WatchConfig,
    places: Arc<Semaphore>,
    shutdown: CancellationToken,
}

impl Watchers {
    /// Watchers of a store, until `shutdown`.
    pub fn new(store: Arc<dyn Store>, config: WatchConfig, shutdown: CancellationToken) -> Self {
        let places = Arc::new(Semaphore::new(config.watchers_max));
        Self {
            store,
            config,
            places,
            shutdown,
        }
    }

    /// Changes after a revision; `None`: from now on.
    pub async fn watch(&self, after: Option<i64>) -> Result<Changes, Error> {
        let full = Error::TooManyWatchers {
            watchers_max: self.config.watchers_max,
        };
        let place = self.places.clone().try_acquire_owned().map_err(|_| full)?;
        let revisions = self.store.revisions(); // Before the first look, so that nothing falls between.
        let after = match after {
            Some(after) => after,
            None => self.store.revision().await?,
        };
        let mut watcher = Watcher {
            store: self.store.clone(),
            revisions,
            read: VecDeque::new(),
            after,
            batch_max: self.config.batch_max,
            poll: Duration::from_millis(self.config.poll_ms.max(1)),
            shutdown: self.shutdown.clone(),
            _place: place,
        };
        watcher.read().await?; // A revision that is not kept is refused before the stream begins.
        Ok(Box::pin(stream::try_unfold(
            watcher,
            |mut watcher| async move {
                let change = watcher.next().await?;
                Ok(Some((change, watcher)))
            },
        )))
    }
}

struct Watcher {
    store: Arc<dyn Store>,
    revisions: watch::Receiver<i64>,
    read: VecDeque<Change>,
    after: i64,
    batch_max: usize,
    poll: Duration,
    shutdown: CancellationToken,
    _place: OwnedSemaphorePermit,
}

impl Watcher {
    async fn next(&mut self) -> Result<Change, Error> {
        loop {
            if self.shutdown.is_cancelled() {
                return Err(Error::ShuttingDown);
            }
            if let Some(change) = self.read.pop_front() {
                self.after = change.revision;
                return Ok(change);
            }
            self.read().await?;
            if self.read.is_empty() {
                self.wait().await;
            }
        }
    }

    async fn read(&mut self) -> Result<(), Error> {
        self.revisions.mark_unchanged();
        self.read = self.store.changes(self.after, self.batch_max).await?.into();
        Ok(())
    }

    /// Until there is news, or it is time to look whether another process has written some.
    async fn wait(&mut self) {
        tokio::select! {
            () = self.shutdown.cancelled() => {}
            _ = self.revisions.changed() => {}
            () = tokio::time::sleep(self.poll) => {}
        }
    }
}
