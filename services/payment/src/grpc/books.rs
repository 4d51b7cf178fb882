//! Reconciliations and the books, as the contract has them.

use super::{Operators, next_page, requests};
use crate::audit::Record;
use crate::books::{self, TrialBalance};
use crate::commands::{Answer, Request as Command};
use crate::error::Error;
use crate::reconcile::{Discrepancy, Kind, Run, RunState, Status};
use crate::reconciler::requested;
use crate::store::books::{BalancesQuery, Books, Closing, DayBalance, PostingsQuery};
use crate::store::reconcile::{DiscrepanciesQuery, Resolution, RunsQuery};
use crate::wire;
use futures_util::{Stream, stream};
use kernel::cursor::{self, Key, KeyKind};
use kernel::{DiscrepancyId, Invalid, ReconciliationId, day};
use mesh_proto::google_api::HttpBody;
use prost::Message as _;
use proto::commerce::payment::v1 as pb;

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use tonic::Status as GrpcStatus;

/// How many postings are read, and sent, at once.
const POSTINGS_MAX: i64 = 1_000;

/// Pieces of the books as a file.
pub type Pieces = Pin<Box<dyn Stream<Item = Result<pb::ExportLedgerResponse, GrpcStatus>> + Send>>;

impl Operators {
    pub(super) async fn start(
        &self,
        command: Command,
        provider: &str,
        now_us: i64,
    ) -> Result<Answer, Error> {
        let run = Run::new(provider, &command.principal, now_us);
        let object = run.id.to_string();
        let record = Record::new(
            &command.principal,
            command.method,
            object,
            requested(&run),
            now_us,
        );
        let answer = |run: &Run| {
            let reconciliation = Some(reconciliation(run));
            pb::StartReconciliationResponse { reconciliation }.encode_to_vec()
        };
        let store = &self.reconciliations;
        store
            .request(command.key().as_ref(), &run, &record, &answer)
            .await
    }

    pub(super) async fn reconciliation(
        &self,
        id: &str,
    ) -> Result<pb::GetReconciliationResponse, Error> {
        let parsed = ReconciliationId::parse(id).map_err(|error| error.at("id"))?;
        let run = self.reconciliations.run(parsed).await?;
        let run = run.ok_or_else(|| Error::ReconciliationNotFound(id.to_owned()))?;
        let reconciliation = Some(reconciliation(&run));
        Ok(pb::GetReconciliationResponse { reconciliation })
    }

    pub(super) async fn reconciliations(
        &self,
        request: pb::ListReconciliationsRequest,
    ) -> Result<pb::ListReconciliationsResponse, Error> {
        let arguments = [request.provider.as_str()];
        let query = RunsQuery {
            provider: given(&request.provider),
            after: requests::after(&request.page_token, &arguments)?,
            limit: requests::page_size(request.page_size)? + 1,
        };
        let mut runs = self.reconciliations.runs(&query).await?;
        let next_page_token = next_page(&mut runs, query.limit, |last| {
            requests::token(&arguments, last.requested_at_us, last.id.to_string())
        });
        Ok(pb::ListReconciliationsResponse {
            reconciliations: runs.iter().map(reconciliation).collect(),
            next_page_token,
        })
    }

    pub(super) async fn discrepancies(
        &self,
        request: pb::ListDiscrepanciesRequest,
    ) -> Result<pb::ListDiscrepanciesResponse, Error> {
        let (kind, status) = (kind_of(request.kind)?, status_of(request.status)?);
        let arguments = [
            request.provider.as_str(),
            kind.map_or("", Kind::name),
            status.map_or("", Status::name),
        ];
        let query = DiscrepanciesQuery {
            provider: given(&request.provider),
            kind,
            status,
            after: requests::after(&request.page_token, &arguments)?,
            limit: requests::page_size(request.page_size)? + 1,
        };
        let mut found = self.reconciliations.discrepancies(&query).await?;
        let next_page_token = next_page(&mut found, query.limit, |last| {
            requests::token(&arguments, last.found_at_us, last.id.to_string())
        });
        Ok(pb::ListDiscrepanciesResponse {
            discrepancies: found.iter().map(discrepancy).collect(),
            next_page_token,
        })
    }

    pub(super) async fn resolve(
        &self,
        command: Command,
        request: pb::ResolveDiscrepancyRequest,
        now_us: i64,
    ) -> Result<Answer, Error> {
        let id = DiscrepancyId::parse(&request.id).map_err(|error| error.at("id"))?;
        requests::note("note", &request.note)?;
        let outcome = "discrepancy resolved".to_owned();
        let record = Record::new(
            &command.principal,
            command.method,
            request.id,
            outcome,
            now_us,
        );
        let resolution = Resolution {
            id,
            by: command.principal.clone(),
            note: request.note,
            now_us,
        };
        let answer = |found: &Discrepancy| {
            let discrepancy = Some(discrepancy(found));
            pb::ResolveDiscrepancyResponse { discrepancy }.encode_to_vec()
        };
        let store = &self.reconciliations;
        store
            .resolve(command.key().as_ref(), &resolution, &record, &answer)
            .await
    }

    pub(super) async fn balances(
        &self,
        request: pb::ListLedgerBalancesRequest,
    ) -> Result<pb::ListLedgerBalancesResponse, Error> {
        let (from_us, to_us) = requests::days(&request.from, &request.to)?;
        let arguments = [request.from.as_str(), &request.to, &request.currency_code];
        let query = BalancesQuery {
            from_us,
            to_us,
            currency: requests::optional_currency(&request.currency_code)?,
            after: after_balance(&request.page_token, &arguments)?,
            limit: requests::page_size(request.page_size)? + 1,
        };
        let mut balances = self.books.balances(&query).await?;
        let next_page_token = next_page(&mut balances, query.limit, |last| {
            let code = last.currency.code().to_owned();
            let keys = [
                Key::Integer(last.day_us),
                Key::Text(last.account.clone()),
                Key::Text(code),
            ];
            cursor::encode(&arguments, &keys)
        });
        Ok(pb::ListLedgerBalancesResponse {
            balances: balances.into_iter().map(balance).collect(),
            next_page_token,
        })
    }

    pub(super) async fn trial(
        &self,
        request: pb::GetTrialBalanceRequest,
    ) -> Result<pb::GetTrialBalanceResponse, Error> {
        let until_us = match request.day.as_str() {
            "" => i64::MAX,
            text => end_of_day(text)?,
        };
        let accounts = self.books.trial(until_us).await?;
        let closed_until_us = self.books.closed_until().await?;
        Ok(pb::GetTrialBalanceResponse {
            day: request.day,
            balances: books::trial_balances(accounts)
                .into_iter()
                .map(trial)
                .collect(),
            closed_through: closed_until_us.map_or_else(String::new, last_day),
        })
    }

    pub(super) fn export(&self, request: &pb::ExportLedgerRequest) -> Result<Pieces, Error> {
        let (from_us, to_us) = requests::days(&request.from, &request.to)?;
        let pieces = csv(self.books.clone(), from_us, to_us);
        Ok(Box::pin(stream::unfold(
            Some(pieces),
            |pieces| async move {
                let mut pieces = pieces?;
                match pieces.next().await {
                    Ok(Some(text)) => Some((Ok(piece(text)), Some(pieces))),
                    Ok(None) => None,
                    Err(error) => Some((Err(error.into()), None)),
                }
            },
        )))
    }

    pub(super) async fn close(
        &self,
        command: Command,
        request: pb::ClosePeriodRequest,
        now_us: i64,
    ) -> Result<Answer, Error> {
        let until_us = end_of_past_day(&request.day, now_us)?;
        let object = format!("ledger:{}", last_day(until_us));
        let outcome = "period closed".to_owned();
        let record = Record::new(&command.principal, command.method, object, outcome, now_us);
        let closing = Closing {
            until_us,
            by: command.principal.clone(),
            now_us,
        };
        let answer = |until_us: &i64| {
            let closed_through = last_day(*until_us);
            pb::ClosePeriodResponse { closed_through }.encode_to_vec()
        };
        self.books
            .close(command.key().as_ref(), &closing, &record, &answer)
            .await
    }
}

/// The end of a UTC day. A time is refused: with an offset it may be of another day than it shows.
pub(crate) fn end_of_day(text: &str) -> Result<i64, Error> {
    let start_us = day::parse_start("day", text)?;
    if day::of(start_us) != text {
        return Err(Invalid::new("day", "must be a day such as 2026-11-22").into());
    }
    Ok(start_us.saturating_add(day::DAY_US))
}

/// The same of a day that is over.
pub(crate) fn end_of_past_day(text: &str, now_us: i64) -> Result<i64, Error> {
    let until_us = end_of_day(text)?;
    if until_us > now_us {
        return Err(Error::DayNotOver(text.to_owned()));
    }
    Ok(until_us)
}

/// The last day of what ends at a time.
pub(crate) fn last_day(until_us: i64) -> String {
    day::of(until_us - 1)
}

/// The books of some days as CSV, piece by piece.
pub(crate) fn csv(books: Arc<dyn Books>, from_us: i64, to_us: i64) -> Csv {
    Csv {
        books,
        query: PostingsQuery {
            from_us,
            to_us,
            after: None,
            limit: POSTINGS_MAX,
        },
        ready: VecDeque::from([books::HEADER.to_owned()]),
        ended: false,
    }
}

/// See [`csv`].
pub(crate) struct Csv {
    books: Arc<dyn Books>,
    query: PostingsQuery,
    ready: VecDeque<String>,
    ended: bool,
}

impl Csv {
    /// The next piece; nothing after the last.
    pub(crate) async fn next(&mut self) -> Result<Option<String>, Error> {
        if let Some(piece) = self.ready.pop_front() {
            return Ok(Some(piece));
        }
        if self.ended {
            return Ok(None);
        }
        let rows = self.books.postings(&self.query).await?;
        self.ended = i64::try_from(rows.len()).is_ok_and(|count| count < POSTINGS_MAX);
        let Some(last) = rows.last() else {
            return Ok(None);
        };
        self.query.after = Some((last.recorded_at_us, last.transaction_id.clone(), last.line));
        Ok(Some(rows.iter().map(books::csv_line).collect()))
    }
}

fn piece(text: String) -> pb::ExportLedgerResponse {
    let body = HttpBody {
        content_type: "text/csv; charset=utf-8".to_owned(),
        data: text.into_bytes(),
        extensions: Vec::new(),
    };
    pb::ExportLedgerResponse { body: Some(body) }
}

fn given(text: &str) -> Option<String> {
    Some(text.to_owned()).filter(|text| !text.is_empty())
}

fn after_balance(token: &str, arguments: &[&str]) -> Result<Option<(i64, String, String)>, Error> {
    if token.is_empty() {
        return Ok(None);
    }
    let keys = cursor::decode(
        token,
        arguments,
        &[KeyKind::Integer, KeyKind::Text, KeyKind::Text],
    )?;
    match <[Key; 3]>::try_from(keys) {
        Ok([Key::Integer(day_us), Key::Text(account), Key::Text(code)]) => {
            Ok(Some((day_us, account, code)))
        }
        _ => Err(Invalid::new("page_token", "is not one that was given out").into()),
    }
}

fn kind_of(value: i32) -> Result<Option<Kind>, Error> {
    Ok(match pb::discrepancy::Kind::try_from(value) {
        Ok(pb::discrepancy::Kind::Unspecified) => None,
        Ok(pb::discrepancy::Kind::MissingHere) => Some(Kind::MissingHere),
        Ok(pb::discrepancy::Kind::MissingThere) => Some(Kind::MissingThere),
        Ok(pb::discrepancy::Kind::Amount) => Some(Kind::Amount),
        Ok(pb::discrepancy::Kind::Currency) => Some(Kind::Currency),
        Ok(pb::discrepancy::Kind::State) => Some(Kind::State),
        Ok(pb::discrepancy::Kind::Duplicate) => Some(Kind::Duplicate),
        Err(_) => return Err(Invalid::new("kind", "is not a kind of discrepancy").into()),
    })
}

fn status_of(value: i32) -> Result<Option<Status>, Error> {
    Ok(match pb::discrepancy::Status::try_from(value) {
        Ok(pb::discrepancy::Status::Unspecified) => None,
        Ok(pb::discrepancy::Status::Open) => Some(Status::Open),
        Ok(pb::discrepancy::Status::ResolvedItself) => Some(Status::ResolvedItself),
        Ok(pb::discrepancy::Status::Resolved) => Some(Status::Resolved),
        Err(_) => return Err(Invalid::new("status", "is not a status of a discrepancy").into()),
    })
}

fn reconciliation(run: &Run) -> pb::Reconciliation {
    let begun = |at_us| run.started_at_us.map(|_| wire::timestamp(at_us));
    pb::Reconciliation {
        id: run.id.to_string(),
        provider: run.provider.clone(),
        state: match run.state {
            RunState::Requested => pb::reconciliation::State::Requested,
            RunState::Running => pb::reconciliation::State::Running,
            RunState::Succeeded => pb::reconciliation::State::Succeeded,
            RunState::Failed => pb::reconciliation::State::Failed,
        }
        .into(),
        since_time: begun(run.since_us),
        until_time: begun(run.until_us),
        requested_by: run.requested_by.clone(),
        create_time: Some(wire::timestamp(run.requested_at_us)),
        end_time: run.finished_at_us.map(wire::timestamp),
        lines: run.lines,
        found: run.found,
        resolved: run.resolved,
        booked: run.booked,
        error: run.error.clone(),
    }
}

fn discrepancy(found: &Discrepancy) -> pb::Discrepancy {
    let finding = &found.finding;
    pb::Discrepancy {
        id: found.id.to_string(),
        provider: found.provider.clone(),
        kind: match finding.kind {
            Kind::MissingHere => pb::discrepancy::Kind::MissingHere,
            Kind::MissingThere => pb::discrepancy::Kind::MissingThere,
            Kind::Amount => pb::discrepancy::Kind::Amount,
            Kind::Currency => pb::discrepancy::Kind::Currency,
            Kind::State => pb::discrepancy::Kind::State,
            Kind::Duplicate => pb::discrepancy::Kind::Duplicate,
        }
        .into(),
        status: match found.status {
            Status::Open => pb::discrepancy::Status::Open,
            Status::ResolvedItself => pb::discrepancy::Status::ResolvedItself,
            Status::Resolved => pb::discrepancy::Status::Resolved,
        }
        .into(),
        payment_id: finding
            .payment
            .map_or_else(String::new, |id| id.to_string()),
        our_reference: finding.our_reference.clone(),
        provider_id: finding.provider_id.clone(),
        our_amount: finding.ours.map(wire::money),
        provider_amount: finding.theirs.map(wire::money),
        booked_time: Some(wire::timestamp(finding.booked_at_us)),
        create_time: Some(wire::timestamp(found.found_at_us)),
        reconciliation_id: found.run.to_string(),
        next_step: finding.kind.next_step(finding.safe).to_owned(),
        resolve_time: found.resolved_at_us.map(wire::timestamp),
        resolved_by: found.resolved_by.clone(),
        note: found.note.clone(),
    }
}

fn balance(row: DayBalance) -> pb::LedgerBalance {
    pb::LedgerBalance {
        account_id: row.account,
        day: day::of(row.day_us),
        debits: wire::minor(row.currency, row.debits_minor),
        credits: wire::minor(row.currency, row.credits_minor),
        balance: wire::minor(row.currency, row.balance_minor),
    }
}

fn trial(balance: TrialBalance) -> pb::TrialBalance {
    let currency = balance.currency;
    pb::TrialBalance {
        currency_code: currency.code().to_owned(),
        debits: wire::minor(currency, balance.debits_minor),
        credits: wire::minor(currency, balance.credits_minor),
        sum: wire::minor(currency, balance.sum_minor()),
        accounts: balance
            .accounts
            .into_iter()
            .map(wire::ledger_account)
            .collect(),
    }
}
