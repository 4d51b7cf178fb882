//! Deciding again where somebody else was faster. What was decided on the state of before is refused by a
//! constraint, by `product_unchanged`, or as a deadlock: then nothing has happened, and it is decided on the
//! state of now. Each refusal means that somebody else got on, so that this ends.

use sqlx::error::DatabaseError;

use crate::error::Error;

/// How often something may still be decided again.
#[derive(Debug)]
pub(super) struct Attempts {
    left: u32,
}

impl Attempts {
    /// So many in all.
    pub(super) fn new(attempts_max: u32) -> Self {
        Self {
            left: attempts_max.saturating_sub(1),
        }
    }

    /// After a failure: `Ok` to go on, or what the caller is told.
    pub(super) fn after(&mut self, error: Error) -> Result<(), Error> {
        if !is_conflict(&error) {
            return Err(error);
        }
        match (self.left.checked_sub(1), error) {
            (Some(left), _) => {
                self.left = left;
                Ok(())
            }
            (None, Error::Storage(cause)) => Err(Error::StorageBusy(cause)),
            (None, error) => Err(error),
        }
    }
}

/// <https://www.postgresql.org/docs/current/errcodes-appendix.html>
fn is_conflict(error: &Error) -> bool {
    let code = database_error(error).and_then(DatabaseError::code);
    match code.as_deref() {
        Some("40001" | "40P01" | "23505") => true, // Serialization, deadlock, a key taken meanwhile.
        // Stock that is no longer there.
        Some("23514") => {
            database_error(error).is_some_and(|e| e.constraint() == Some("stock_covers"))
        }
        _ => false,
    }
}

/// What the server said, where it said something: then everything was rolled back.
pub(super) fn database_error(error: &Error) -> Option<&dyn DatabaseError> {
    let (Error::Storage(cause) | Error::StorageBusy(cause)) = error else {
        return None;
    };
    cause
        .downcast_ref::<sqlx::Error>()
        .and_then(sqlx::Error::as_database_error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_conflicts_are_tried_again() {
        let mut attempts = Attempts::new(3);
        let refused = attempts.after(Error::InFlight);
        assert!(matches!(refused, Err(Error::InFlight)));
        let lost: Error = sqlx::Error::WorkerCrashed.into();
        assert!(matches!(attempts.after(lost), Err(Error::StorageBusy(_))));
    }
}
