//! The identity of this process, which is always the newest, and what keeps it so.

use std::{fmt, sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use rustls::{
    crypto::{CryptoProvider, aws_lc_rs},
    time_provider::{DefaultTimeProvider, TimeProvider},
};
use rustls_pki_types::UnixTime;
use tokio::{sync::watch, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    Material, MaterialError, Refusal, Source, SourceError, SpiffeId, Status, material::Snapshot,
};

/// The part of its life, in percent, after which a certificate should have been renewed. SPIRE does it at
/// half, cert-manager at two thirds.
const OVERDUE_PERCENT: u64 = 80;
/// How often that is looked at.
const SLEEP_MAX: Duration = Duration::from_mins(1);

/// The identity of this process. Cheap to clone; the clones are one identity.
#[derive(Clone)]
pub struct Identity {
    shared: Arc<Shared>,
}

struct Shared {
    snapshot: watch::Sender<Arc<Snapshot>>,
    /// Why what was delivered since is not in use.
    trouble: ArcSwapOption<String>,
    provider: Arc<CryptoProvider>,
    clock: Arc<dyn TimeProvider>,
}

/// Takes over what the source delivers; nothing changes unless it runs.
pub struct Reload {
    identity: Identity,
    source: Box<dyn Source>,
}

/// Why there is no identity to begin with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The source delivers nothing.
    #[error("no identity from {name}")]
    Source {
        /// What delivers, and from where.
        name: String,
        /// Why not.
        source: SourceError,
    },
    /// What it delivers is of no use.
    #[error("the identity from {name} is refused")]
    Material {
        /// What delivers, and from where.
        name: String,
        /// Why.
        source: MaterialError,
    },
}

impl Identity {
    /// Waits for the first identity of the source and judges it. The clock is the machine's.
    pub async fn start(source: impl Source + 'static) -> Result<(Self, Reload), IdentityError> {
        Self::start_at(source, Arc::new(DefaultTimeProvider)).await
    }

    /// The same by another clock.
    pub async fn start_at(
        source: impl Source + 'static,
        clock: Arc<dyn TimeProvider>,
    ) -> Result<(Self, Reload), IdentityError> {
        let mut source: Box<dyn Source> = Box::new(source);
        let name = source.name();
        let refused = |source| IdentityError::Material {
            name: name.clone(),
            source,
        };
        let material = source
            .next()
            .await
            .map_err(|source| IdentityError::Source {
                name: name.clone(),
                source,
            })?;
        // Named and not the process's default: whoever else uses TLS has no say in this.
        let provider = Arc::new(aws_lc_rs::default_provider());
        let now = now(&*clock);
        let snapshot = Snapshot::build(material, &provider, now, None).map_err(refused)?;
        if let Some(refusal) = out_of_time(&snapshot, now) {
            return Err(refused(MaterialError::Own(refusal)));
        }
        report(&snapshot, "identity is loaded");
        let shared = Shared {
            snapshot: watch::Sender::new(Arc::new(snapshot)),
            trouble: ArcSwapOption::empty(),
            provider,
            clock,
        };
        let identity = Self {
            shared: Arc::new(shared),
        };
        let reload = Reload {
            identity: identity.clone(),
            source,
        };
        Ok((identity, reload))
    }

    /// The own SPIFFE ID.
    pub fn id(&self) -> SpiffeId {
        self.snapshot().svid.leaf.id.clone()
    }

    /// What an operator wants to know.
    pub fn status(&self) -> Status {
        let snapshot = self.snapshot();
        let leaf = &snapshot.svid.leaf;
        Status {
            id: leaf.id.clone(),
            serial: leaf.serial.clone(),
            issuer: leaf.issuer.clone(),
            not_before: leaf.not_before,
            not_after: leaf.not_after,
            revoked: snapshot.own_revoked,
            crls: snapshot.crls,
            loaded_at: snapshot.loaded_at,
            reload_trouble: self.shared.trouble.load().as_deref().cloned(),
            authorities: snapshot.trust.authorities().to_vec(),
        }
    }

    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.shared.snapshot.borrow().clone()
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.shared.snapshot.subscribe()
    }

    pub(crate) fn provider(&self) -> &Arc<CryptoProvider> {
        &self.shared.provider
    }

    pub(crate) fn clock(&self) -> &Arc<dyn TimeProvider> {
        &self.shared.clock
    }

    pub(crate) fn now(&self) -> UnixTime {
        now(&*self.shared.clock)
    }

    fn replace(&self, material: Material) -> Result<(), MaterialError> {
        let before = self.snapshot();
        let now = self.now();
        let snapshot = Snapshot::build(material, &self.shared.provider, now, Some(&before))?;
        if let Some(refusal) = out_of_time(&snapshot, now) {
            tracing::error!(spiffe.id = %snapshot.svid.leaf.id, %refusal, "peers will refuse the own certificate");
        }
        report(&snapshot, "identity is replaced");
        self.shared.snapshot.send_replace(Arc::new(snapshot));
        Ok(())
    }
}

impl Reload {
    /// Runs until `shutdown`. A set that is refused is reported, once, and the old one stays; so is an
    /// own certificate that nobody renews.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut overdue = None;
        loop {
            let next = timeout(SLEEP_MAX, self.source.next());
            let Some(next) = shutdown.run_until_cancelled(next).await else {
                return;
            };
            if let Ok(delivered) = next {
                let taken = self.take(delivered);
                self.complain(taken.err());
            }
            self.warn_of_end(&mut overdue);
        }
    }

    fn take(&self, delivered: Result<Material, SourceError>) -> Result<(), String> {
        let material = delivered.map_err(|error| error.to_string())?;
        let taken = self.identity.replace(material);
        taken.map_err(|error| error.to_string())
    }

    /// Keeps what is wrong with the newest set, if anything, and reports it, once.
    fn complain(&self, trouble: Option<String>) {
        let kept = trouble.clone().map(Arc::new);
        let before = self.identity.shared.trouble.swap(kept);
        if let Some(reason) = trouble
            && before.as_deref() != Some(&reason)
        {
            let name = self.source.name();
            tracing::error!("identity stays as it was; {name}: {reason}");
        }
    }

    /// Warns once of each certificate that is near its end: `overdue` is the last one's serial number.
    fn warn_of_end(&self, overdue: &mut Option<String>) {
        let snapshot = self.identity.snapshot();
        let leaf = &snapshot.svid.leaf;
        let (begin, end) = (leaf.not_before.as_secs(), leaf.not_after.as_secs());
        let due = begin + end.saturating_sub(begin) * OVERDUE_PERCENT / 100;
        if self.identity.now().as_secs() < due || overdue.as_ref() == Some(&leaf.serial) {
            return;
        }
        *overdue = Some(leaf.serial.clone());
        tracing::warn!(
            spiffe.id = %leaf.id,
            serial = leaf.serial,
            not_after = end,
            "the own certificate is near its end and was not renewed"
        );
    }
}

/// The epoch where there is no clock: everything is then not yet valid, and refused.
fn now(clock: &dyn TimeProvider) -> UnixTime {
    let epoch = UnixTime::since_unix_epoch(Duration::ZERO);
    clock.current_time().unwrap_or(epoch)
}

fn out_of_time(snapshot: &Snapshot, now: UnixTime) -> Option<Refusal> {
    let leaf = &snapshot.svid.leaf;
    let apart = |a: UnixTime, b: UnixTime| Duration::from_secs(a.as_secs() - b.as_secs());
    if now > leaf.not_after {
        Some(Refusal::Expired(apart(now, leaf.not_after)))
    } else if now < leaf.not_before {
        Some(Refusal::NotYetValid(apart(leaf.not_before, now)))
    } else {
        None
    }
}

fn report(snapshot: &Snapshot, what: &'static str) {
    let leaf = &snapshot.svid.leaf;
    let not_after = leaf.not_after.as_secs();
    tracing::info!(spiffe.id = %leaf.id, serial = leaf.serial, not_after, "{what}");
    if snapshot.own_revoked {
        tracing::error!(spiffe.id = %leaf.id, serial = leaf.serial, "the own certificate is revoked");
    }
    if snapshot.crls_stale > 0 {
        tracing::warn!(
            lists = snapshot.crls_stale,
            "revocation lists are past their next update and still in use"
        );
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Identity").field(&self.id()).finish()
    }
}

impl fmt::Debug for Reload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Reload").field(&self.source.name()).finish()
    }
}
