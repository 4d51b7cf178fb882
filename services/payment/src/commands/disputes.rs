//! What callers ask of disputes.

use super::{Answer, Commands, Request};
use crate::dispute::Evidence;
use crate::error::Error;
use crate::store::Begun;
use kernel::{DisputeId, PaymentId};

impl Commands {
    /// Hands in evidence against a dispute.
    pub async fn submit_evidence(
        &self,
        request: Request,
        id: DisputeId,
        evidence: Evidence,
    ) -> Result<Answer, Error> {
        let payment = self.of_dispute(&request, id).await?;
        self.command(request, payment, |payment, turn| {
            payment.submit_evidence(turn, id, &evidence)?;
            Ok(Some(Begun::Response(id)))
        })
        .await
    }

    /// Gives a dispute up.
    pub async fn accept_dispute(&self, request: Request, id: DisputeId) -> Result<Answer, Error> {
        let payment = self.of_dispute(&request, id).await?;
        self.command(request, payment, |payment, turn| {
            payment.accept_dispute(turn, id)?;
            Ok(Some(Begun::Response(id)))
        })
        .await
    }

    /// The payment that a dispute belongs to, where whoever asks may see it.
    async fn of_dispute(&self, request: &Request, id: DisputeId) -> Result<PaymentId, Error> {
        let payment = self.store.payment_of_dispute(id).await?;
        let payment = payment.filter(|of| request.viewer.sees(&of.order.principal));
        let payment = payment.ok_or_else(|| Error::DisputeNotFound(id.to_string()))?;
        Ok(payment.id)
    }
}
