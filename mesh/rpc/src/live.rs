//! The configuration in effect: read anew by every call, replaced as a whole.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};

use crate::Config;

/// A handle to the configuration in effect. Cheap to clone, and cheap to read.
#[derive(Clone)]
pub(crate) struct Live(Arc<ArcSwap<Config>>);

impl Live {
    /// `config` has to be valid.
    pub(crate) fn new(config: Config) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(config)))
    }

    /// For as long as a layer decides; whoever keeps it over an await takes [`Live::whole`].
    pub(crate) fn load(&self) -> Guard<Arc<Config>> {
        self.0.load()
    }

    pub(crate) fn whole(&self) -> Arc<Config> {
        self.0.load_full()
    }

    /// Everybody reads `config` from now on, which has to be valid; gives back what was read so far.
    pub(crate) fn replace(&self, config: Config) -> Arc<Config> {
        self.0.swap(Arc::new(config))
    }
}
