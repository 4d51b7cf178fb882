//! A circuit before a provider: after several calls in a row without an answer it is asked nothing for a while,
//! then by one call as a probe.
//!
//! What the open circuit turns away was certainly not sent, so nothing is lost: the saga sends it later under the
//! same key, and new payments go to another provider where routing knows one. A refusal or a decline is an answer.

use super::{
    AcceptDispute, Authorize, Capabilities, Capture, ChargeOutcome, Provider, ProviderError,
    Refund, Settlement, SettlementPage, SubmitEvidence, TransactionPage, Void, WebhookError,
    WebhookEvent,
};
use crate::dispute::SeenDispute;
use async_trait::async_trait;
use http::HeaderMap;
use mesh_runtime::Clock;
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// When a provider is left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CircuitConfig {
    /// After how many calls in a row without an answer; 0: never.
    pub failures_max: u32,
    /// For how long, in milliseconds; then one call tries.
    pub open_ms: u32,
}

impl Default for CircuitConfig {
    fn default() -> Self {
        Self {
            failures_max: 10,
            open_ms: 5_000,
        }
    }
}

/// Where a circuit stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Calls pass; so many failed in a row.
    Closed { failures: u32 },
    /// None passes before this time, and then one.
    Open { until_us: i64 },
}

impl State {
    /// Whether a call may pass at this time, and where the circuit stands once it has begun. A probe that is lost
    /// with its caller is followed by another one after the same time.
    fn begin(self, config: CircuitConfig, now_us: i64) -> Option<Self> {
        match self {
            Self::Closed { .. } => Some(self),
            Self::Open { until_us } if now_us < until_us => None,
            Self::Open { .. } => Some(Self::open(config, now_us)),
        }
    }

    /// Where it stands after a call.
    fn end(self, config: CircuitConfig, now_us: i64, answered: bool) -> Self {
        if answered {
            return Self::Closed { failures: 0 };
        }
        match self {
            Self::Closed { failures } => {
                let failures = failures.saturating_add(1);
                if config.failures_max > 0 && failures >= config.failures_max {
                    Self::open(config, now_us)
                } else {
                    Self::Closed { failures }
                }
            }
            Self::Open { .. } => Self::open(config, now_us),
        }
    }

    fn open(config: CircuitConfig, now_us: i64) -> Self {
        Self::Open {
            until_us: now_us.saturating_add(i64::from(config.open_ms) * 1_000),
        }
    }
}

/// A provider behind a circuit of its own.
pub struct Guarded {
    inner: Arc<dyn Provider>,
    config: CircuitConfig,
    clock: Clock,
    state: Mutex<State>,
}

impl Guarded {
    /// Around a provider.
    pub fn new(inner: Arc<dyn Provider>, config: CircuitConfig, clock: Clock) -> Self {
        Self {
            inner,
            config,
            clock,
            state: Mutex::new(State::Closed { failures: 0 }),
        }
    }

    async fn call<T>(
        &self,
        call: impl Future<Output = Result<T, ProviderError>>,
    ) -> Result<T, ProviderError> {
        let now_us = self.clock.now_us();
        {
            let mut state = self.state();
            let Some(begun) = state.begin(self.config, now_us) else {
                let reason = format!(
                    "{} did not answer lately and is left alone",
                    self.inner.name()
                );
                return Err(ProviderError::Unavailable(reason));
            };
            *state = begun;
        }
        let mut unanswered = Unanswered {
            guarded: Some(self),
        };
        let answer = call.await;
        unanswered.guarded = None;
        let answered = matches!(answer, Ok(_) | Err(ProviderError::Refused { .. }));
        self.record(answered);
        answer
    }

    fn record(&self, answered: bool) {
        let mut state = self.state();
        let before = *state;
        *state = before.end(self.config, self.clock.now_us(), answered);
        match (before, *state) {
            (State::Closed { .. }, State::Open { .. }) => {
                tracing::warn!(provider = self.inner.name(), "circuit opened");
            }
            (State::Open { .. }, State::Closed { .. }) => {
                tracing::info!(provider = self.inner.name(), "circuit closed");
            }
            _ => {}
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A state is whole at any time.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts a call whose caller went away: the saga does that when its time is up.
struct Unanswered<'a> {
    guarded: Option<&'a Guarded>,
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if let Some(guarded) = self.guarded {
            guarded.record(false);
        }
    }
}

#[async_trait]
impl Provider for Guarded {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn is_available(&self) -> bool {
        let state = *self.state();
        state.begin(self.config, self.clock.now_us()).is_some() && self.inner.is_available()
    }

    async fn authorize(&self, request: &Authorize) -> Result<ChargeOutcome, ProviderError> {
        self.call(self.inner.authorize(request)).await
    }

    async fn capture(&self, request: &Capture) -> Result<Settlement, ProviderError> {
        self.call(self.inner.capture(request)).await
    }

    async fn void(&self, request: &Void) -> Result<Settlement, ProviderError> {
        self.call(self.inner.void(request)).await
    }

    async fn refund(&self, request: &Refund) -> Result<Settlement, ProviderError> {
        self.call(self.inner.refund(request)).await
    }

    async fn look_up_charge(
        &self,
        reference: &str,
    ) -> Result<Option<ChargeOutcome>, ProviderError> {
        self.call(self.inner.look_up_charge(reference)).await
    }

    async fn look_up_settlement(
        &self,
        reference: &str,
    ) -> Result<Option<Settlement>, ProviderError> {
        self.call(self.inner.look_up_settlement(reference)).await
    }

    async fn look_up_disputes(
        &self,
        charge_reference: &str,
    ) -> Result<Vec<SeenDispute>, ProviderError> {
        self.call(self.inner.look_up_disputes(charge_reference))
            .await
    }

    async fn submit_evidence(
        &self,
        request: &SubmitEvidence,
    ) -> Result<SeenDispute, ProviderError> {
        self.call(self.inner.submit_evidence(request)).await
    }

    async fn accept_dispute(&self, request: &AcceptDispute) -> Result<SeenDispute, ProviderError> {
        self.call(self.inner.accept_dispute(request)).await
    }

    async fn reference_of(&self, charge_ref: &str) -> Result<Option<String>, ProviderError> {
        self.call(self.inner.reference_of(charge_ref)).await
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
        self.call(self.inner.transactions(from)).await
    }

    async fn settlements(&self, from: Option<&str>) -> Result<SettlementPage, ProviderError> {
        self.call(self.inner.settlements(from)).await
    }

    fn since(&self, at_us: i64) -> String {
        self.inner.since(at_us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CONFIG: CircuitConfig = CircuitConfig {
        failures_max: 3,
        open_ms: 1_000,
    };

    fn after(failures: u32) -> State {
        (0..failures).fold(State::Closed { failures: 0 }, |state, _| {
            state.end(CONFIG, 0, false)
        })
    }

    #[test]
    fn it_opens_after_failures_in_a_row_and_lets_one_call_probe() {
        assert_eq!(after(2), State::Closed { failures: 2 });
        let open = after(3);
        assert_eq!(
            open,
            State::Open {
                until_us: 1_000_000
            }
        );
        assert_eq!(open.begin(CONFIG, 999_999), None);
        let probing = open.begin(CONFIG, 1_000_000).unwrap();
        assert_eq!(
            probing.begin(CONFIG, 1_000_001),
            None,
            "one probe at a time"
        );
        assert_eq!(
            probing.end(CONFIG, 1_000_002, true),
            State::Closed { failures: 0 }
        );
        assert_eq!(
            probing.end(CONFIG, 1_500_000, false),
            State::Open {
                until_us: 2_500_000
            }
        );
    }

    #[test]
    fn an_answer_in_between_begins_the_count_anew() {
        assert_eq!(
            after(2).end(CONFIG, 0, true).end(CONFIG, 0, false),
            after(1)
        );
    }

    #[test]
    fn without_a_limit_it_never_opens() {
        let never = CircuitConfig {
            failures_max: 0,
            ..CONFIG
        };
        let state = (0..100).fold(after(0), |state, _| state.end(never, 0, false));
        assert!(state.begin(never, 0).is_some());
    }

    proptest! {
        /// Whatever happens, a circuit that nobody uses lets a call pass once its time is over.
        #[test]
        fn it_never_stays_open_for_ever(outcomes in prop::collection::vec((any::<bool>(), 0i64..3_000_000), 0..40)) {
            let mut state = after(0);
            let mut now_us = 0;
            for (answered, pause_us) in outcomes {
                now_us += pause_us;
                if let Some(begun) = state.begin(CONFIG, now_us) {
                    state = begun.end(CONFIG, now_us, answered);
                }
            }
            prop_assert!(state.begin(CONFIG, now_us + 1_000_000).is_some());
        }
    }
}
