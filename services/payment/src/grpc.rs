//! The service as the contract has it: requests in, domain asked, answers out. No decisions. One file, for the contract
//! is one trait; what needs more than a few lines stands in a file beside it.

mod books;
mod disputes;
mod operators;
mod requests;
pub mod watch;

pub use books::Pieces;
pub(crate) use books::{csv, end_of_day, end_of_past_day, last_day};
pub use operators::Operators;

use crate::commands::{Answer, Commands, Request as Command};
use crate::error::Error;
use crate::refund::How;
use crate::store::{Store, Viewer};
use crate::wire::{self, method};
use kernel::{Invalid, PaymentId, RefundId};
use mesh::CallContext;
use mesh_store::idempotency;
use prost::Message;
use proto::commerce::payment::v1 as pb;
use proto::commerce::payment::v1::payment_service_server::PaymentService;
use std::sync::Arc;
use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status};
use watch::Changes;

/// The scope that sees everybody's payments.
const OPERATOR: &str = "operator";
/// Marks an answer that was given before.
const REPLAYED: &str = "idempotency-replayed";

/// The payment service over gRPC.
#[derive(Clone)]
pub struct Grpc {
    store: Arc<dyn Store>,
    commands: Commands,
    operators: Operators,
    watch: watch::Limits,
}

impl Grpc {
    /// Over these parts.
    pub fn new(
        store: Arc<dyn Store>,
        commands: Commands,
        operators: Operators,
        watch: watch::Limits,
    ) -> Self {
        Self {
            store,
            commands,
            operators,
            watch,
        }
    }

    async fn payment(&self, id: PaymentId) -> Result<crate::payment::Payment, Error> {
        let viewer = viewer();
        let found = self.store.payment(id).await?;
        let found = found.filter(|payment| viewer.sees(&payment.order.principal));
        found.ok_or_else(|| Error::PaymentNotFound(id.to_string()))
    }
}

fn viewer() -> Viewer {
    let context = CallContext::current();
    let principal = context.principal();
    if principal.has_scope(OPERATOR) {
        Viewer::Operator
    } else {
        Viewer::Client(principal.name().to_owned())
    }
}

/// A command of the current caller. `request` comes without its key.
fn command(
    method: &'static str,
    request_id: String,
    request: &impl Message,
) -> Result<Command, Error> {
    kernel::text::request_id(&request_id)?;
    Ok(Command {
        viewer: viewer(),
        principal: CallContext::current().principal().name().to_owned(),
        method,
        request_id,
        fingerprint: idempotency::fingerprint(&request.encode_to_vec()),
    })
}

/// An answer as it was stored. Encoding it again gives the same bytes.
fn answered<M: Message + Default>(answer: Answer) -> Result<Response<M>, Status> {
    let message = M::decode(answer.bytes.as_slice()).map_err(|_| Error::Corrupt("answer"))?;
    let mut response = Response::new(message);
    if answer.replayed {
        response
            .metadata_mut()
            .insert(REPLAYED, MetadataValue::from_static("true"));
    }
    Ok(response)
}

#[tonic::async_trait]
impl PaymentService for Grpc {
    type WatchPaymentsStream = Changes;
    type ExportLedgerStream = Pieces;

    async fn create_payment(
        &self,
        request: Request<pb::CreatePaymentRequest>,
    ) -> Result<Response<pb::CreatePaymentResponse>, Status> {
        let mut request = request.into_inner();
        let key = std::mem::take(&mut request.request_id);
        let command = command(method::CREATE_PAYMENT, key, &request)?;
        let new = requests::new_payment(request, self.commands.saga().now_us())?;
        answered(self.commands.create(command, new).await?)
    }

    async fn get_payment(
        &self,
        request: Request<pb::GetPaymentRequest>,
    ) -> Result<Response<pb::GetPaymentResponse>, Status> {
        let id = requests::payment_id("id", &request.get_ref().id)?;
        let payment = wire::payment(&self.payment(id).await?);
        Ok(Response::new(pb::GetPaymentResponse {
            payment: Some(payment),
        }))
    }

    async fn list_payments(
        &self,
        request: Request<pb::ListPaymentsRequest>,
    ) -> Result<Response<pb::ListPaymentsResponse>, Status> {
        let request = request.into_inner();
        let query = requests::payments(&request, viewer())?;
        let mut payments = self.store.payments(&query).await?;
        let next_page_token = next_page(&mut payments, query.limit, |last| {
            let arguments = [request.filter.as_str(), request.order_by.as_str()];
            requests::token(&arguments, last.created_at_us, last.id.to_string())
        });
        let payments = payments.iter().map(wire::payment).collect();
        Ok(Response::new(pb::ListPaymentsResponse {
            payments,
            next_page_token,
        }))
    }

    async fn confirm_payment(
        &self,
        request: Request<pb::ConfirmPaymentRequest>,
    ) -> Result<Response<pb::ConfirmPaymentResponse>, Status> {
        let mut request = request.into_inner();
        let key = std::mem::take(&mut request.request_id);
        let command = command(method::CONFIRM_PAYMENT, key, &request)?;
        let id = requests::payment_id("id", &request.id)?;
        let method = requests::other_method(request.payment_method)?;
        answered(self.commands.confirm(command, id, method).await?)
    }

    async fn capture_payment(
        &self,
        request: Request<pb::CapturePaymentRequest>,
    ) -> Result<Response<pb::CapturePaymentResponse>, Status> {
        let mut request = request.into_inner();
        let key = std::mem::take(&mut request.request_id);
        let command = command(method::CAPTURE_PAYMENT, key, &request)?;
        let id = requests::payment_id("id", &request.id)?;
        let lines = requests::lines("lines", &request.lines)?;
        answered(
            self.commands
                .capture(command, id, lines, request.r#final)
                .await?,
        )
    }

    async fn cancel_payment(
        &self,
        request: Request<pb::CancelPaymentRequest>,
    ) -> Result<Response<pb::CancelPaymentResponse>, Status> {
        let mut request = request.into_inner();
        let key = std::mem::take(&mut request.request_id);
        let command = command(method::CANCEL_PAYMENT, key, &request)?;
        let id = requests::payment_id("id", &request.id)?;
        answered(self.commands.cancel(command, id).await?)
    }

    async fn watch_payments(
        &self,
        request: Request<pb::WatchPaymentsRequest>,
    ) -> Result<Response<Changes>, Status> {
        let resume = request.into_inner().resume_revision;
        let saga = self.commands.saga().clone();
        let changes =
            watch::changes(self.store.clone(), saga, viewer(), resume, &self.watch).await?;
        Ok(Response::new(changes))
    }

    async fn create_refund(
        &self,
        request: Request<pb::CreateRefundRequest>,
    ) -> Result<Response<pb::CreateRefundResponse>, Status> {
        let mut request = request.into_inner();
        let key = std::mem::take(&mut request.request_id);
        let command = command(method::CREATE_REFUND, key, &request)?;
        let id = requests::payment_id("payment_id", &request.payment_id)?;
        let wanted = requests::wanted(&request)?;
        let how = How {
            restock: request.restock,
            reason: request.reason,
            disputed_too: request.allow_disputed,
        };
        answered(self.commands.refund(command, id, wanted, how).await?)
    }

    async fn get_refund(
        &self,
        request: Request<pb::GetRefundRequest>,
    ) -> Result<Response<pb::GetRefundResponse>, Status> {
        let text = request.into_inner().id;
        let id = RefundId::parse(&text).map_err(|error| Error::from(error.at("id")))?;
        let viewer = viewer();
        let payment = self.store.payment_of_refund(id).await?;
        let payment = payment.filter(|payment| viewer.sees(&payment.order.principal));
        let refund = payment.and_then(|payment| {
            let refund = payment.refunds.iter().find(|refund| refund.id == id)?;
            Some(wire::refund(&payment, refund))
        });
        let refund = Some(refund.ok_or(Error::RefundNotFound(text))?);
        Ok(Response::new(pb::GetRefundResponse { refund }))
    }

    async fn list_refunds(
        &self,
        request: Request<pb::ListRefundsRequest>,
    ) -> Result<Response<pb::ListRefundsResponse>, Status> {
        let request = request.into_inner();
        let id = requests::payment_id("payment_id", &request.payment_id)?;
        let limit = requests::page_size(request.page_size)? + 1;
        let arguments = [request.payment_id.as_str()];
        let first = requests::place(&request.page_token, &arguments)?;
        let payment = self.payment(id).await?;
        let size = usize::try_from(limit).expect("a page has at most 1000 rows");
        // Refunds are only ever added: their places stay.
        let mut page: Vec<_> = payment.refunds.iter().skip(first).take(size).collect();
        let next_page_token = next_page(&mut page, limit, |_| {
            requests::place_token(&arguments, first + size - 1)
        });
        let refunds = page
            .into_iter()
            .map(|refund| wire::refund(&payment, refund))
            .collect();
        Ok(Response::new(pb::ListRefundsResponse {
            refunds,
            next_page_token,
        }))
    }

    async fn get_dispute(
        &self,
        request: Request<pb::GetDisputeRequest>,
    ) -> Result<Response<pb::GetDisputeResponse>, Status> {
        let id = disputes::id(&request.get_ref().id)?;
        let dispute = Some(disputes::one(&*self.store, viewer(), id).await?);
        Ok(Response::new(pb::GetDisputeResponse { dispute }))
    }

    async fn list_disputes(
        &self,
        request: Request<pb::ListDisputesRequest>,
    ) -> Result<Response<pb::ListDisputesResponse>, Status> {
        let page = disputes::page(&*self.store, viewer(), request.get_ref()).await?;
        Ok(Response::new(page))
    }

    async fn submit_dispute_evidence(
        &self,
        request: Request<pb::SubmitDisputeEvidenceRequest>,
    ) -> Result<Response<pb::SubmitDisputeEvidenceResponse>, Status> {
        let mut request = request.into_inner();
        let key = std::mem::take(&mut request.request_id);
        let command = command(method::SUBMIT_DISPUTE_EVIDENCE, key, &request)?;
        let id = disputes::id(&request.id)?;
        let evidence = disputes::evidence(request)?;
        answered(self.commands.submit_evidence(command, id, evidence).await?)
    }

    async fn accept_dispute(
        &self,
        request: Request<pb::AcceptDisputeRequest>,
    ) -> Result<Response<pb::AcceptDisputeResponse>, Status> {
        let mut request = request.into_inner();
        let key = std::mem::take(&mut request.request_id);
        let command = command(method::ACCEPT_DISPUTE, key, &request)?;
        let id = disputes::id(&request.id)?;
        answered(self.commands.accept_dispute(command, id).await?)
    }

    async fn receive_webhook(
        &self,
        request: Request<pb::ReceiveWebhookRequest>,
    ) -> Result<Response<pb::ReceiveWebhookResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let body = request.body.unwrap_or_default().data;
        if body.len() > requests::WEBHOOK_BYTES_MAX {
            let reason = format!("must have at most {} bytes", requests::WEBHOOK_BYTES_MAX);
            return Err(Error::from(Invalid::new("body", reason)).into());
        }
        let headers = metadata.into_headers();
        self.commands
            .receive_webhook(&request.provider, &headers, &body)
            .await?;
        Ok(Response::new(pb::ReceiveWebhookResponse {}))
    }

    async fn list_webhooks(
        &self,
        request: Request<pb::ListWebhooksRequest>,
    ) -> Result<Response<pb::ListWebhooksResponse>, Status> {
        Ok(Response::new(
            self.operators.webhooks(request.into_inner()).await?,
        ))
    }

    async fn replay_webhook(
        &self,
        request: Request<pb::ReplayWebhookRequest>,
    ) -> Result<Response<pb::ReplayWebhookResponse>, Status> {
        let mut request = request.into_inner();
        let key = std::mem::take(&mut request.request_id);
        let command = command(method::REPLAY_WEBHOOK, key, &request)?;
        let (id, reference) = self
            .operators
            .named(&request.provider, &request.event_id)
            .await?;
        answered(
            self.commands
                .replay_webhook(command, id, &reference)
                .await?,
        )
    }

    async fn list_unresolved_payments(
        &self,
        request: Request<pb::ListUnresolvedPaymentsRequest>,
    ) -> Result<Response<pb::ListUnresolvedPaymentsResponse>, Status> {
        let now_us = self.commands.saga().now_us();
        let calls = self
            .operators
            .unresolved(request.into_inner(), now_us)
            .await?;
        Ok(Response::new(calls))
    }

    async fn list_audit_records(
        &self,
        request: Request<pb::ListAuditRecordsRequest>,
    ) -> Result<Response<pb::ListAuditRecordsResponse>, Status> {
        Ok(Response::new(
            self.operators.audit(request.into_inner()).await?,
        ))
    }

    async fn look_up_payment(
        &self,
        request: Request<pb::LookUpPaymentRequest>,
    ) -> Result<Response<pb::LookUpPaymentResponse>, Status> {
        let mut request = request.into_inner();
        let key = std::mem::take(&mut request.request_id);
        let command = command(method::LOOK_UP_PAYMENT, key, &request)?;
        let id = requests::payment_id("id", &request.id)?;
        answered(self.commands.look_up(command, id).await?)
    }

    async fn summarize_sales(
        &self,
        request: Request<pb::SummarizeSalesRequest>,
    ) -> Result<Response<pb::SummarizeSalesResponse>, Status> {
        let query = requests::sales(request.get_ref())?;
        let rows = self
            .store
            .sales(&query)
            .await?
            .into_iter()
            .map(wire::sales_row)
            .collect();
        Ok(Response::new(pb::SummarizeSalesResponse { rows }))
    }

    async fn list_ledger_accounts(
        &self,
        request: Request<pb::ListLedgerAccountsRequest>,
    ) -> Result<Response<pb::ListLedgerAccountsResponse>, Status> {
        let currency = requests::optional_currency(&request.get_ref().currency_code)?;
        let accounts = self.store.accounts(currency).await?;
        let accounts = accounts.into_iter().map(wire::ledger_account).collect();
        Ok(Response::new(pb::ListLedgerAccountsResponse { accounts }))
    }

    async fn list_ledger_transactions(
        &self,
        request: Request<pb::ListLedgerTransactionsRequest>,
    ) -> Result<Response<pb::ListLedgerTransactionsResponse>, Status> {
        let request = request.into_inner();
        let payment = match request.payment_id.as_str() {
            "" => None,
            id => Some(requests::payment_id("payment_id", id)?),
        };
        let limit = requests::page_size(request.page_size)? + 1;
        let arguments = [request.payment_id.as_str()];
        let after = requests::after(&request.page_token, &arguments)?;
        let mut entries = self.store.entries(payment, after, limit).await?;
        let next_page_token = next_page(&mut entries, limit, |last| {
            requests::token(&arguments, last.recorded_at_us, last.id.clone())
        });
        let transactions = entries.into_iter().map(wire::ledger_entry).collect();
        Ok(Response::new(pb::ListLedgerTransactionsResponse {
            transactions,
            next_page_token,
        }))
    }

    async fn start_reconciliation(
        &self,
        request: Request<pb::StartReconciliationRequest>,
    ) -> Result<Response<pb::StartReconciliationResponse>, Status> {
        let mut request = request.into_inner();
        let key = std::mem::take(&mut request.request_id);
        let command = command(method::START_RECONCILIATION, key, &request)?;
        let saga = self.commands.saga();
        if !saga.providers().contains_key(&request.provider) {
            return Err(Error::ProviderNotFound(request.provider).into());
        }
        let now_us = saga.now_us();
        answered(
            self.operators
                .start(command, &request.provider, now_us)
                .await?,
        )
    }

    async fn get_reconciliation(
        &self,
        request: Request<pb::GetReconciliationRequest>,
    ) -> Result<Response<pb::GetReconciliationResponse>, Status> {
        Ok(Response::new(
            self.operators.reconciliation(&request.get_ref().id).await?,
        ))
    }

    async fn list_reconciliations(
        &self,
        request: Request<pb::ListReconciliationsRequest>,
    ) -> Result<Response<pb::ListReconciliationsResponse>, Status> {
        Ok(Response::new(
            self.operators.reconciliations(request.into_inner()).await?,
        ))
    }

    async fn list_discrepancies(
        &self,
        request: Request<pb::ListDiscrepanciesRequest>,
    ) -> Result<Response<pb::ListDiscrepanciesResponse>, Status> {
        Ok(Response::new(
            self.operators.discrepancies(request.into_inner()).await?,
        ))
    }

    async fn resolve_discrepancy(
        &self,
        request: Request<pb::ResolveDiscrepancyRequest>,
    ) -> Result<Response<pb::ResolveDiscrepancyResponse>, Status> {
        let mut request = request.into_inner();
        let key = std::mem::take(&mut request.request_id);
        let command = command(method::RESOLVE_DISCREPANCY, key, &request)?;
        let now_us = self.commands.saga().now_us();
        answered(self.operators.resolve(command, request, now_us).await?)
    }

    async fn list_ledger_balances(
        &self,
        request: Request<pb::ListLedgerBalancesRequest>,
    ) -> Result<Response<pb::ListLedgerBalancesResponse>, Status> {
        Ok(Response::new(
            self.operators.balances(request.into_inner()).await?,
        ))
    }

    async fn get_trial_balance(
        &self,
        request: Request<pb::GetTrialBalanceRequest>,
    ) -> Result<Response<pb::GetTrialBalanceResponse>, Status> {
        Ok(Response::new(
            self.operators.trial(request.into_inner()).await?,
        ))
    }

    async fn export_ledger(
        &self,
        request: Request<pb::ExportLedgerRequest>,
    ) -> Result<Response<Pieces>, Status> {
        Ok(Response::new(self.operators.export(request.get_ref())?))
    }

    async fn close_period(
        &self,
        request: Request<pb::ClosePeriodRequest>,
    ) -> Result<Response<pb::ClosePeriodResponse>, Status> {
        let mut request = request.into_inner();
        let key = std::mem::take(&mut request.request_id);
        let command = command(method::CLOSE_PERIOD, key, &request)?;
        let now_us = self.commands.saga().now_us();
        answered(self.operators.close(command, request, now_us).await?)
    }
}

/// Cuts the row off that was read beyond the page, and makes the token where there was one.
fn next_page<T>(rows: &mut Vec<T>, limit: i64, token: impl FnOnce(&T) -> String) -> String {
    if i64::try_from(rows.len()).is_ok_and(|count| count == limit) {
        rows.pop();
        rows.last().map(token).unwrap_or_default()
    } else {
        String::new()
    }
}
