//! What runs wrote last and go on from, so that no step of theirs loads what the step before has just written.
//!
//! A guess that may be wrong: every write compares how often the payment was written, and then it is loaded after all.
//! Only whoever holds the lease guesses, for nobody else's writes are to be expected meanwhile.

use super::rows::Loaded;
use kernel::PaymentId;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Payments that are kept at most; those of runs that ended halfway are among them.
const PAYMENTS_MAX: usize = 4_096;

/// Payments as they were last written here, with a lease that goes on.
#[derive(Debug, Default)]
pub(super) struct Recent {
    payments: Mutex<HashMap<PaymentId, Loaded>>,
}

impl Recent {
    /// Keeps a payment for the next step of its lease's owner.
    pub(super) fn keep(&self, loaded: Loaded) {
        let mut payments = self.payments();
        if payments.len() >= PAYMENTS_MAX {
            payments.clear(); // They are loaded instead.
        }
        payments.insert(loaded.payment.id, loaded);
    }

    /// What `owner` wrote last, once.
    pub(super) fn take(&self, payment: PaymentId, owner: &str) -> Option<Loaded> {
        let loaded = self.payments().remove(&payment)?;
        (loaded.lease_owner.as_deref() == Some(owner)).then_some(loaded)
    }

    fn payments(&self) -> MutexGuard<'_, HashMap<PaymentId, Loaded>> {
        self.payments.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
