//! Watches the peer of a live connection: a certificate that was good at the handshake may expire or be
//! revoked while the connection lives.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use rustls_pki_types::{CertificateDer, UnixTime};
use tokio::{sync::watch, time::sleep};

use crate::{
    Identity, PeerIdentity, Refusal,
    material::Snapshot,
    trust::{Role, Trust},
};

/// The longest sleep: the time of day may be set while we sleep.
const SLEEP_MAX: Duration = Duration::from_mins(1);
/// The shortest: certificates end at whole seconds.
const SLEEP_MIN: Duration = Duration::from_secs(1);
/// The part of the time left at the handshake, in percent, after which a connection should be replaced;
/// random within it, so that connections made together do not all end together.
const DRAIN_PERCENT: std::ops::Range<u64> = 85..95;

/// Watches the peer of one connection. On a plaintext connection there is nothing to watch, and it waits
/// for ever.
#[derive(Debug, Default)]
pub struct PeerGuard {
    watched: Option<Box<Watched>>,
}

/// What a connection has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GuardEvent {
    /// A certificate of either end expires before long: drain, and let a new connection take over. Told
    /// once, when 85 to 95 % of the time that was left at the handshake are over.
    Expiring,
    /// The peer is not trusted any more: cut the connection now. It has been logged.
    Invalid(Refusal),
}

#[derive(Debug)]
struct Watched {
    identity: Identity,
    changes: watch::Receiver<Arc<Snapshot>>,
    address: Option<SocketAddr>,
    peer: PeerIdentity,
    chain: Vec<CertificateDer<'static>>,
    role: Role,
    /// By what the chain was last found good.
    trust: Arc<Trust>,
    /// `None`: told already.
    drain_at: Option<UnixTime>,
}

impl PeerGuard {
    pub(crate) fn new(
        identity: Identity,
        address: Option<SocketAddr>,
        peer: PeerIdentity,
        chain: Vec<CertificateDer<'static>>,
        role: Role,
        trust: Arc<Trust>,
    ) -> Self {
        let now = identity.now().as_secs();
        let own = identity.snapshot().svid.leaf.not_after;
        let left = own.min(peer.not_after).as_secs().saturating_sub(now);
        let percent = rand::random_range(DRAIN_PERCENT);
        let drain_at = UnixTime::since_unix_epoch(Duration::from_secs(now + left * percent / 100));
        Self {
            watched: Some(Box::new(Watched {
                changes: identity.watch(),
                identity,
                address,
                peer,
                chain,
                role,
                trust,
                drain_at: Some(drain_at),
            })),
        }
    }

    /// Waits for the next thing that the connection has to do. Safe to cancel and to call again.
    pub async fn event(&mut self) -> GuardEvent {
        match &mut self.watched {
            Some(watched) => watched.event().await,
            None => std::future::pending().await,
        }
    }
}

impl Watched {
    async fn event(&mut self) -> GuardEvent {
        loop {
            let trust = self.changes.borrow_and_update().trust.clone();
            let now = self.identity.now();
            if !Arc::ptr_eq(&trust, &self.trust) || now > self.peer.not_after {
                if let Err(refusal) = trust.verify(&self.chain, self.role, now) {
                    tracing::warn!(
                        peer = self.address.map(tracing::field::display),
                        spiffe.id = %self.peer.id,
                        serial = self.peer.serial,
                        reason = refusal.reason(),
                        "connection ends: {refusal}"
                    );
                    return GuardEvent::Invalid(refusal);
                }
                self.trust = trust;
            }
            if self.drain_at.is_some_and(|drain_at| now >= drain_at) {
                self.drain_at = None;
                return GuardEvent::Expiring;
            }
            let due = self.until_due(now);
            tokio::select! {
                // Its sender lives in the identity that is held here.
                _ = self.changes.changed() => {}
                () = sleep(due) => {}
            }
        }
    }

    fn until_due(&self, now: UnixTime) -> Duration {
        let ends = self.peer.not_after.as_secs() + 1; // Its last second is still good.
        let due = self
            .drain_at
            .map_or(ends, |drain_at| drain_at.as_secs().min(ends));
        let left = Duration::from_secs(due.saturating_sub(now.as_secs()));
        left.clamp(SLEEP_MIN, SLEEP_MAX)
    }
}
