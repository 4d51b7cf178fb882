//! Ends a process between any two of its steps: from the chosen moment on, nothing that it awaits
//! ever answers again, as if it had been killed.

use async_trait::async_trait;
use http::HeaderMap;
use kernel::{Currency, DisputeId, PaymentId, RefundId};
use mesh_store::idempotency::{Claim, Key};
use payment::catalogue::{Catalogue, QuoteError};
use payment::dispute::{Evidence, SeenDispute};
use payment::error::Error;
use payment::payment::{Item, Payment};
use payment::provider::{
    AcceptDispute, Authorize, Capabilities, Capture, ChargeOutcome, Provider, ProviderError,
    Refund, Settlement, SettlementPage, SubmitEvidence, TransactionPage, Void, WebhookError,
    WebhookEvent,
};
use payment::record::{ReserveAnswer, StockAnswer};
use payment::sales::{SalesQuery, SalesRow};
use payment::store::{
    Advanced, Change, Decide, DisputesQuery, LeaseWish, LedgerAccount, LedgerEntry, ListedDispute,
    Make, Opened, PaymentsQuery, Recorded, Retention, Revisions, Store, Viewer,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::{Notify, Semaphore};

/// Counts what a process awaits, before and after each effect.
pub(crate) struct Fuse {
    passed: AtomicUsize,
    blows_at: usize,
    blown: Notify,
    gate: Option<Semaphore>,
}

impl Fuse {
    /// Blows when the `blows_at`th moment is reached; the first is 1.
    pub(crate) fn at(blows_at: usize) -> Arc<Self> {
        Self::with(blows_at, None)
    }

    /// Holds the process up at that moment until it is opened.
    pub(crate) fn gate(blows_at: usize) -> Arc<Self> {
        Self::with(blows_at, Some(Semaphore::new(0)))
    }

    fn with(blows_at: usize, gate: Option<Semaphore>) -> Arc<Self> {
        Arc::new(Self {
            passed: AtomicUsize::new(0),
            blows_at,
            blown: Notify::new(),
            gate,
        })
    }

    /// Lets the process that was held up go on.
    pub(crate) fn open(&self) {
        self.gate
            .as_ref()
            .unwrap()
            .add_permits(Semaphore::MAX_PERMITS);
    }

    pub(crate) fn never() -> Arc<Self> {
        Self::at(usize::MAX)
    }

    /// Resolves when it has blown.
    pub(crate) async fn blown(&self) {
        self.blown.notified().await;
    }

    async fn moment(&self) {
        let passed = self.passed.fetch_add(1, Ordering::SeqCst) + 1;
        if passed >= self.blows_at {
            self.blown.notify_one();
            match &self.gate {
                None => std::future::pending::<()>().await,
                Some(gate) => drop(gate.acquire().await),
            }
        }
    }

    async fn around<T>(&self, effect: impl Future<Output = T>) -> T {
        self.moment().await;
        let answer = effect.await;
        self.moment().await;
        answer
    }

    pub(crate) fn store(self: &Arc<Self>, inner: Arc<dyn Store>) -> Arc<dyn Store> {
        Arc::new(Fused {
            fuse: self.clone(),
            inner,
        })
    }

    pub(crate) fn catalogue(self: &Arc<Self>, inner: Arc<dyn Catalogue>) -> Arc<dyn Catalogue> {
        Arc::new(Fused {
            fuse: self.clone(),
            inner,
        })
    }

    pub(crate) fn provider(self: &Arc<Self>, inner: Arc<dyn Provider>) -> Arc<dyn Provider> {
        Arc::new(Fused {
            fuse: self.clone(),
            inner,
        })
    }
}

struct Fused<T: ?Sized> {
    fuse: Arc<Fuse>,
    inner: Arc<T>,
}

#[async_trait]
impl Catalogue for Fused<dyn Catalogue> {
    async fn quote(
        &self,
        lines: &[(String, i32)],
        currency: Currency,
    ) -> Result<Vec<Item>, QuoteError> {
        self.fuse.around(self.inner.quote(lines, currency)).await
    }

    async fn reserve(
        &self,
        request_id: &str,
        reference: &str,
        lines: &[(String, i32)],
        currency: Currency,
        hold_us: i64,
    ) -> ReserveAnswer {
        let effect = self
            .inner
            .reserve(request_id, reference, lines, currency, hold_us);
        self.fuse.around(effect).await
    }

    async fn extend(&self, request_id: &str, reservation: &str, hold_us: i64) -> StockAnswer {
        self.fuse
            .around(self.inner.extend(request_id, reservation, hold_us))
            .await
    }

    async fn commit(
        &self,
        request_id: &str,
        reservation: &str,
        lines: &[(String, i32)],
    ) -> StockAnswer {
        self.fuse
            .around(self.inner.commit(request_id, reservation, lines))
            .await
    }

    async fn release(&self, request_id: &str, reservation: &str) -> StockAnswer {
        self.fuse
            .around(self.inner.release(request_id, reservation))
            .await
    }

    async fn restock(
        &self,
        request_id: &str,
        reservation: &str,
        lines: &[(String, i32)],
    ) -> StockAnswer {
        self.fuse
            .around(self.inner.restock(request_id, reservation, lines))
            .await
    }
}

#[async_trait]
impl Provider for Fused<dyn Provider> {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn authorize(&self, request: &Authorize) -> Result<ChargeOutcome, ProviderError> {
        self.fuse.around(self.inner.authorize(request)).await
    }

    async fn capture(&self, request: &Capture) -> Result<Settlement, ProviderError> {
        self.fuse.around(self.inner.capture(request)).await
    }

    async fn void(&self, request: &Void) -> Result<Settlement, ProviderError> {
        self.fuse.around(self.inner.void(request)).await
    }

    async fn refund(&self, request: &Refund) -> Result<Settlement, ProviderError> {
        self.fuse.around(self.inner.refund(request)).await
    }

    async fn look_up_charge(
        &self,
        reference: &str,
    ) -> Result<Option<ChargeOutcome>, ProviderError> {
        self.fuse.around(self.inner.look_up_charge(reference)).await
    }

    async fn look_up_settlement(
        &self,
        reference: &str,
    ) -> Result<Option<Settlement>, ProviderError> {
        self.fuse
            .around(self.inner.look_up_settlement(reference))
            .await
    }

    async fn look_up_disputes(
        &self,
        charge_reference: &str,
    ) -> Result<Vec<SeenDispute>, ProviderError> {
        self.fuse
            .around(self.inner.look_up_disputes(charge_reference))
            .await
    }

    async fn submit_evidence(
        &self,
        request: &SubmitEvidence,
    ) -> Result<SeenDispute, ProviderError> {
        self.fuse.around(self.inner.submit_evidence(request)).await
    }

    async fn accept_dispute(&self, request: &AcceptDispute) -> Result<SeenDispute, ProviderError> {
        self.fuse.around(self.inner.accept_dispute(request)).await
    }

    async fn reference_of(&self, charge_ref: &str) -> Result<Option<String>, ProviderError> {
        self.inner.reference_of(charge_ref).await
    }

    fn verify_webhook(
        &self,
        headers: &HeaderMap,
        body: &[u8],
        now_us: i64,
    ) -> Result<WebhookEvent, WebhookError> {
        self.inner.verify_webhook(headers, body, now_us)
    }

    async fn transactions(&self, from: Option<&str>) -> Result<TransactionPage, ProviderError> {
        self.fuse.around(self.inner.transactions(from)).await
    }

    async fn settlements(&self, from: Option<&str>) -> Result<SettlementPage, ProviderError> {
        self.fuse.around(self.inner.settlements(from)).await
    }

    fn since(&self, at_us: i64) -> String {
        self.inner.since(at_us)
    }
}

#[async_trait]
impl Store for Fused<dyn Store> {
    async fn find(&self, key: &Key) -> Result<Option<Claim>, Error> {
        self.fuse.around(self.inner.find(key)).await
    }

    async fn create(
        &self,
        key: Option<&Key>,
        lease: &LeaseWish,
        make: Make<'_>,
    ) -> Result<Opened, Error> {
        self.fuse.around(self.inner.create(key, lease, make)).await
    }

    async fn command(
        &self,
        key: Option<&Key>,
        payment: PaymentId,
        viewer: &Viewer,
        lease: &LeaseWish,
        decide: Decide<'_>,
    ) -> Result<Opened, Error> {
        self.fuse
            .around(self.inner.command(key, payment, viewer, lease, decide))
            .await
    }

    async fn take(
        &self,
        payment: PaymentId,
        lease: &LeaseWish,
        decide: Decide<'_>,
    ) -> Result<Advanced, Error> {
        self.fuse
            .around(self.inner.take(payment, lease, decide))
            .await
    }

    async fn advance(
        &self,
        payment: PaymentId,
        lease: &LeaseWish,
        decide: Decide<'_>,
    ) -> Result<Advanced, Error> {
        self.fuse
            .around(self.inner.advance(payment, lease, decide))
            .await
    }

    async fn due(&self, now_us: i64, limit: u32) -> Result<Vec<PaymentId>, Error> {
        self.fuse.around(self.inner.due(now_us, limit)).await
    }

    async fn webhook(
        &self,
        provider: &str,
        event_id: &str,
        reference: &str,
        lease: &LeaseWish,
        decide: Decide<'_>,
    ) -> Result<Option<Recorded>, Error> {
        let effect = self
            .inner
            .webhook(provider, event_id, reference, lease, decide);
        self.fuse.around(effect).await
    }

    async fn payment(&self, id: PaymentId) -> Result<Option<Payment>, Error> {
        self.inner.payment(id).await
    }

    async fn payment_of_refund(&self, id: RefundId) -> Result<Option<Payment>, Error> {
        self.inner.payment_of_refund(id).await
    }

    async fn payment_of_dispute(&self, id: DisputeId) -> Result<Option<Payment>, Error> {
        self.inner.payment_of_dispute(id).await
    }

    async fn disputes(&self, query: &DisputesQuery) -> Result<Vec<ListedDispute>, Error> {
        self.inner.disputes(query).await
    }

    async fn evidence(&self, id: DisputeId) -> Result<Evidence, Error> {
        self.fuse.around(self.inner.evidence(id)).await
    }

    async fn payments(&self, query: &PaymentsQuery) -> Result<Vec<Payment>, Error> {
        self.inner.payments(query).await
    }

    async fn sales(&self, query: &SalesQuery) -> Result<Vec<SalesRow>, Error> {
        self.inner.sales(query).await
    }

    async fn accounts(&self, currency: Option<Currency>) -> Result<Vec<LedgerAccount>, Error> {
        self.inner.accounts(currency).await
    }

    async fn entries(
        &self,
        payment: Option<PaymentId>,
        after: Option<(i64, String)>,
        limit: i64,
    ) -> Result<Vec<LedgerEntry>, Error> {
        self.inner.entries(payment, after, limit).await
    }

    async fn revisions(&self) -> Result<Revisions, Error> {
        self.inner.revisions().await
    }

    async fn changes(
        &self,
        viewer: &Viewer,
        after: i64,
        limit: i64,
    ) -> Result<(Vec<Change>, i64), Error> {
        self.inner.changes(viewer, after, limit).await
    }

    async fn sweep(&self, retention: Retention) -> Result<u64, Error> {
        self.inner.sweep(retention).await
    }
}
