//! How many files and sockets a process may have open.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Raises the soft limit of open files to the hard one, as Go's runtime does: a shell's soft limit (often 1024, for programs
/// that use `select`) is far below the connections that a server takes. What cannot be raised stays as it is.
pub fn raise() {
    let mut limit = getrlimit(Resource::Nofile);
    let was = limit.current;
    if was == limit.maximum {
        return;
    }
    limit.current = limit.maximum;
    match setrlimit(Resource::Nofile, limit) {
        Ok(()) => tracing::debug!(from = was, to = limit.maximum, "open files"),
        Err(error) => tracing::warn!(%error, limit = was, "the limit of open files stays"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        raise();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
    }
}
