//! The simulator asked about disputes, and told what banks do: the journal around the rules of `bank`.
//!
//! Faults of responses to disputes are drawn like those of commands, but not noted, and none comes late.

use super::bank::Decision;
use super::book::{Step, refused};
use super::entry::{Entry, Operation};
use super::fault::Fault;
use super::{
    ASKED, Occasion, REFERENCE_CHARACTERS_MAX, Simulator, bounded, injected_unavailable, lost,
    store, unavailable,
};
use crate::dispute::SeenDispute;
use crate::provider::{AcceptDispute, ProviderError, SubmitEvidence};
use kernel::Money;

impl Simulator {
    /// A customer disputes a charge, of all that its first capture took or of an amount; answers the name of the dispute.
    pub async fn open_dispute(
        &self,
        charge_reference: &str,
        amount: Option<Money>,
        inquiry: bool,
    ) -> Result<String, ProviderError> {
        bounded(
            "charge_reference",
            charge_reference,
            REFERENCE_CHARACTERS_MAX,
        )?;
        if amount.is_some_and(|amount| amount.amount_minor() <= 0) {
            return Err(refused("AMOUNT_INVALID", "an amount must be above zero"));
        }
        let (charge, occasion) = (charge_reference, Occasion::default());
        let opened = self.transact(charge, charge, occasion, |book| {
            book.open_dispute(charge, amount, inquiry)
        });
        Ok(opened.await?.answer)
    }

    /// The bank of a customer returns a refund.
    pub async fn return_refund(&self, reference: &str) -> Result<(), ProviderError> {
        let charge = store::newest_settlement(self.journal.reader(), reference)
            .await
            .map_err(unavailable)?;
        let charge = charge.ok_or_else(|| refused("NOT_REFUNDED", "there is no such refund"))?;
        let occasion = Occasion::default();
        let returned = self.transact(&charge.charge_reference, reference, occasion, |book| {
            book.return_refund(reference)
        });
        returned.await.map(|returned| returned.answer)
    }

    /// The bank decides a dispute.
    pub async fn decide_dispute(
        &self,
        dispute_ref: &str,
        decision: Decision,
    ) -> Result<SeenDispute, ProviderError> {
        let charge = self.charge_of_dispute(dispute_ref).await?;
        let occasion = Occasion::default();
        let decided = self.transact(&charge, dispute_ref, occasion, |book| {
            book.decide_dispute(dispute_ref, decision)
        });
        Ok(decided.await?.answer)
    }

    pub(super) async fn disputes_of(
        &self,
        charge_reference: &str,
    ) -> Result<Vec<SeenDispute>, ProviderError> {
        self.wait().await;
        if self.dice.roll_look_up() {
            return Err(injected_unavailable());
        }
        let charge = charge_reference;
        let seen = self.transact(charge, charge, ASKED, |book| {
            Ok(Step::answer(book.disputes_of(charge)))
        });
        // Asking twice is harmless, so nothing about a question is unknown.
        let seen = seen.await;
        Ok(seen
            .map_err(|error| ProviderError::Unavailable(error.to_string()))?
            .answer)
    }

    pub(super) async fn hand_in(
        &self,
        request: &SubmitEvidence,
    ) -> Result<SeenDispute, ProviderError> {
        bounded("reference", &request.reference, REFERENCE_CHARACTERS_MAX)?;
        let fault = self.meet_fault().await?;
        let (dispute, reference) = (&*request.dispute_ref, &*request.reference);
        let charge = self.charge_of_dispute(dispute).await?;
        let mut write = self.journal.begin().await.map_err(unavailable)?;
        let entries = store::entries(&mut write, &charge, reference)
            .await
            .map_err(unavailable)?;
        let appended = self.book(&entries).submit_evidence(request)?;
        for entry in &appended {
            self.record(&mut write, entry).await.map_err(unavailable)?;
        }
        let all: Vec<Entry> = entries.into_iter().chain(appended).collect();
        let newest = all
            .iter()
            .rfind(|entry| entry.operation == Operation::Dispute && entry.reference == dispute);
        let seen = newest.map(|newest| self.book(&all).seen(newest));
        let seen = seen.ok_or_else(|| refused("DISPUTE_NOT_FOUND", "there is no such dispute"))?;
        write
            .commit()
            .await
            .map_err(|error| ProviderError::Unknown(error.to_string()))?;
        answered(fault, seen)
    }

    pub(super) async fn give_up(
        &self,
        request: &AcceptDispute,
    ) -> Result<SeenDispute, ProviderError> {
        let fault = self.meet_fault().await?;
        let charge = self.charge_of_dispute(&request.dispute_ref).await?;
        let occasion = Occasion::default();
        let lost = self.transact(&charge, &request.dispute_ref, occasion, |book| {
            book.accept_dispute(request)
        });
        answered(fault, lost.await?.answer)
    }

    /// Whether something goes wrong with a response.
    async fn meet_fault(&self) -> Result<Option<Fault>, ProviderError> {
        self.wait().await;
        match self.dice.roll() {
            Some(Fault::Unavailable) => Err(injected_unavailable()),
            Some(Fault::UnknownBefore | Fault::Late) => Err(lost()),
            Some(Fault::Slow) => {
                tokio::time::sleep(self.slow).await;
                Ok(None)
            }
            fault => Ok(fault),
        }
    }

    async fn charge_of_dispute(&self, dispute_ref: &str) -> Result<String, ProviderError> {
        let found = store::charge_of_dispute(self.journal.reader(), dispute_ref)
            .await
            .map_err(unavailable)?;
        found.ok_or_else(|| refused("DISPUTE_NOT_FOUND", "there is no such dispute"))
    }
}

fn answered(fault: Option<Fault>, seen: SeenDispute) -> Result<SeenDispute, ProviderError> {
    if fault == Some(Fault::UnknownAfter) {
        Err(lost())
    } else {
        Ok(seen)
    }
}
