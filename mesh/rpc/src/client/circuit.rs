//! How many attempts to one destination may be in flight (gRFC A32): what is above is refused at once,
//! so that a destination that hangs does not take its callers' memory along.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

/// The limit of one destination.
#[derive(Debug)]
pub(crate) struct Circuit {
    in_flight: AtomicUsize,
    max: usize,
}

/// A place below the limit, for as long as it lives.
#[derive(Debug)]
pub(crate) struct Permit(Arc<Circuit>);

impl Circuit {
    pub(crate) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self {
            in_flight: AtomicUsize::new(0),
            max,
        })
    }

    /// `None`: the limit is reached.
    pub(crate) fn enter(self: &Arc<Self>) -> Option<Permit> {
        if self.in_flight.fetch_add(1, Relaxed) < self.max {
            return Some(Permit(self.clone()));
        }
        self.in_flight.fetch_sub(1, Relaxed);
        None
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Relaxed)
    }

    pub(crate) fn max(&self) -> usize {
        self.max
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_above_the_limit_is_refused_until_something_ends() {
        let circuit = Circuit::new(2);
        let first = circuit.enter().unwrap();
        let _second = circuit.enter().unwrap();
        assert!(circuit.enter().is_none());
        assert_eq!(circuit.in_flight(), 2);
        drop(first);
        assert!(circuit.enter().is_some());
    }
}
