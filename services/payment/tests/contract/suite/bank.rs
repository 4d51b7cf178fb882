//! What banks do in random sequences, and what we answer: refunds that come back, inquiries, disputes, evidence; with the
//! model that says what must come of it.

use crate::suite::random::{Alone, Model, Service, named, usd};
use crate::suite::world::request;
use payment::dispute::{DisputeState, Evidence, TextKind};
use payment::error::Error;
use payment::fact::Turn;
use payment::payment::Payment;
use payment::provider::simulator::Decision;
use payment::refund::RefundState;
use payment::rejection::Rejection;
use payment::wire::method;
use rand::Rng as _;
use rand::rngs::StdRng;
use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Debug, Clone, Copy)]
pub(super) enum Bank {
    /// A refund that had succeeded comes back.
    Return(usize),
    /// A customer disputes so much; an inquiry at first, or not.
    Open(i64, bool),
    /// Evidence is handed in, and where that is taken, the bank decides at once: for us, or not.
    Evidence(usize, bool),
    /// A dispute is given up.
    Accept(usize),
    /// The bank decides.
    Decide(usize, Decision),
}

pub(super) fn step(random: &mut StdRng) -> Bank {
    let number = random.random_range(0..4);
    match random.random_range(0..10) {
        0..3 => Bank::Return(number),
        3..6 => Bank::Open(random.random_range(1..600), random.random_bool(0.3)),
        6 => Bank::Evidence(number, random.random_bool(0.6)),
        7 => Bank::Accept(number),
        _ => {
            let decisions = [
                Decision::Escalate,
                Decision::Win,
                Decision::Lose,
                Decision::Close,
            ];
            Bank::Decide(number, decisions[random.random_range(0..4)])
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct ModelRefund {
    pub(super) lines: Vec<(usize, i32, i64)>,
    pub(super) returned: bool,
}

#[derive(Debug, Clone)]
pub(super) struct ModelDispute {
    minor: i64,
    state: DisputeState,
    responded: bool,
}

impl ModelDispute {
    fn holds_money(&self) -> bool {
        matches!(
            self.state,
            DisputeState::NeedsResponse | DisputeState::UnderReview | DisputeState::Lost
        )
    }
}

/// Where a decision leads; nothing: the dispute does not stand so.
fn decided(state: DisputeState, decision: Decision) -> Option<DisputeState> {
    match (state, decision) {
        (DisputeState::Inquiry, Decision::Escalate) => Some(DisputeState::NeedsResponse),
        (DisputeState::Inquiry, Decision::Close) => Some(DisputeState::Closed),
        (
            DisputeState::NeedsResponse | DisputeState::UnderReview | DisputeState::Lost,
            Decision::Win,
        ) => Some(DisputeState::Won),
        (DisputeState::NeedsResponse | DisputeState::UnderReview, Decision::Lose) => {
            Some(DisputeState::Lost)
        }
        _ => None,
    }
}

impl Model {
    pub(super) fn disputed_minor(&self) -> i64 {
        let holding = self.disputes.iter().filter(|of| of.holds_money());
        holding.map(|of| of.minor).sum()
    }

    pub(super) fn bank(&mut self, step: &Bank) -> Result<(), &'static str> {
        match *step {
            Bank::Return(number) => {
                let there: Vec<usize> = (0..self.refunds.len())
                    .filter(|index| !self.refunds[*index].returned)
                    .collect();
                let index = *around(&there, number).ok_or("none")?;
                self.refunds[index].returned = true;
                for (index, units, minor) in self.refunds[index].lines.clone() {
                    self.refunded[index] -= units;
                    self.refunded_minor[index] -= minor;
                }
                Ok(())
            }
            Bank::Open(minor, inquiry) => {
                if self.captured == [0, 0] {
                    return Err("none");
                }
                let state = if inquiry {
                    DisputeState::Inquiry
                } else {
                    DisputeState::NeedsResponse
                };
                self.disputes.push(ModelDispute {
                    minor,
                    state,
                    responded: false,
                });
                Ok(())
            }
            Bank::Evidence(number, wins) => {
                let dispute = around_mut(&mut self.disputes, number).ok_or("none")?;
                let open = matches!(
                    dispute.state,
                    DisputeState::Inquiry | DisputeState::NeedsResponse
                );
                if !open || dispute.responded {
                    return Err("dispute");
                }
                dispute.responded = true;
                dispute.state = match (dispute.state, wins) {
                    (DisputeState::Inquiry, _) => DisputeState::Inquiry,
                    (_, true) => DisputeState::Won,
                    (_, false) => DisputeState::Lost,
                };
                Ok(())
            }
            Bank::Accept(number) => {
                let dispute = around_mut(&mut self.disputes, number).ok_or("none")?;
                match dispute.state {
                    DisputeState::Inquiry => Ok(()), // The provider refuses, which is an answer.
                    DisputeState::NeedsResponse => {
                        dispute.state = DisputeState::Lost;
                        Ok(())
                    }
                    _ => Err("dispute"),
                }
            }
            Bank::Decide(number, decision) => {
                let dispute = around_mut(&mut self.disputes, number).ok_or("none")?;
                dispute.state = decided(dispute.state, decision).ok_or("decision")?;
                Ok(())
            }
        }
    }

    pub(super) fn compare_disputes(&self, payment: &Payment, told: &dyn Fn() -> String) {
        let known: Vec<(i64, DisputeState)> = payment
            .disputes
            .iter()
            .map(|of| (of.amount.amount_minor(), of.state))
            .collect();
        let expected: Vec<(i64, DisputeState)> = self
            .disputes
            .iter()
            .map(|of| (of.minor, of.state))
            .collect();
        assert_eq!(known, expected, "{}", told());
        assert_eq!(
            payment.disputed_minor(),
            self.disputed_minor(),
            "{}",
            told()
        );
    }
}

fn around<T>(all: &[T], number: usize) -> Option<&T> {
    all.get(number.checked_rem(all.len())?)
}

fn around_mut<T>(all: &mut [T], number: usize) -> Option<&mut T> {
    let index = number.checked_rem(all.len())?;
    all.get_mut(index)
}

/// The refund that a step is about.
fn refund(payment: &Payment, number: usize) -> Result<String, &'static str> {
    let succeeded = payment
        .refunds
        .iter()
        .filter(|of| of.state == RefundState::Succeeded);
    let ids: Vec<String> = succeeded.map(|of| of.id.to_string()).collect();
    around(&ids, number).cloned().ok_or("none")
}

fn evidence() -> Evidence {
    Evidence {
        texts: vec![(TextKind::Explanation, "it was sent".into())],
        files: Vec::new(),
    }
}

fn charge(payment: &Payment) -> Result<String, &'static str> {
    if payment.captured_minor() == 0 {
        return Err("none");
    }
    Ok(payment.attempts.last().unwrap().id.to_string())
}

impl Service<'_> {
    pub(super) async fn bank(&self, step: &Bank) -> Result<(), &'static str> {
        let (process, simulator) = (self.process, &self.world.simulator);
        let payment = process.payment(&self.id).await;
        let dispute = |number| around(&payment.disputes, number).ok_or("none");
        match *step {
            Bank::Return(number) => {
                let reference = refund(&payment, number)?;
                simulator.return_refund(&reference).await.unwrap();
            }
            Bank::Open(minor, inquiry) => {
                let charge = charge(&payment)?;
                let opened = simulator.open_dispute(&charge, Some(usd(minor)), inquiry);
                opened.await.unwrap();
            }
            Bank::Evidence(number, wins) => {
                let dispute = dispute(number)?;
                let inquiry = dispute.state == DisputeState::Inquiry;
                let request = request(method::SUBMIT_DISPUTE_EVIDENCE, &key());
                let handed_in = process
                    .commands
                    .submit_evidence(request, dispute.id, evidence());
                handed_in.await.map_err(why)?;
                if !inquiry {
                    let decision = if wins { Decision::Win } else { Decision::Lose };
                    let decided = simulator.decide_dispute(&dispute.provider_ref, decision);
                    decided.await.unwrap();
                }
            }
            Bank::Accept(number) => {
                let request = request(method::ACCEPT_DISPUTE, &key());
                let accepted = process
                    .commands
                    .accept_dispute(request, dispute(number)?.id);
                accepted.await.map_err(why)?;
            }
            Bank::Decide(number, decision) => {
                let provider_ref = &dispute(number)?.provider_ref;
                let decided = simulator.decide_dispute(provider_ref, decision).await;
                decided.map_err(|_| "decision")?;
            }
        }
        self.world.deliver(process).await;
        Ok(())
    }
}

fn key() -> String {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    format!("bank-{}", NUMBER.fetch_add(1, Ordering::Relaxed))
}

fn why(error: Error) -> &'static str {
    match error {
        Error::Rejected(rejection) => named(&rejection),
        other => panic!("{other}"),
    }
}

impl Alone<'_> {
    pub(super) async fn bank(&mut self, step: &Bank) -> Result<(), &'static str> {
        let payment = self.payment.as_mut().unwrap();
        let (before, table) = (payment.clone(), self.table);
        let dispute = |number| around(&before.disputes, number).ok_or("none");
        let reference = match *step {
            Bank::Return(number) => {
                let reference = refund(&before, number)?;
                table.return_refund(&reference);
                reference
            }
            Bank::Open(minor, inquiry) => {
                let charge = charge(&before)?;
                table.open_dispute(&charge, usd(minor), inquiry);
                payment::dispute::reference_of(&charge)
            }
            Bank::Evidence(number, wins) => {
                let dispute = dispute(number)?;
                let inquiry = dispute.state == DisputeState::Inquiry;
                let hand_in = |payment: &mut Payment, turn: &mut Turn<'_>| {
                    payment.submit_evidence(turn, dispute.id, &evidence())
                };
                let handed_in = table.change(payment, hand_in).await;
                handed_in.map_err(|rejection: Rejection| named(&rejection))?;
                let state = match (inquiry, wins) {
                    (true, _) => DisputeState::Inquiry,
                    (false, true) => DisputeState::Won,
                    (false, false) => DisputeState::Lost,
                };
                table.decide_dispute(&dispute.provider_ref, state);
                dispute.id.to_string()
            }
            Bank::Accept(number) => {
                let id = dispute(number)?.id;
                let accept =
                    |payment: &mut Payment, turn: &mut Turn<'_>| payment.accept_dispute(turn, id);
                let accepted = table.change(payment, accept).await;
                return accepted.map_err(|rejection| named(&rejection));
            }
            Bank::Decide(number, decision) => {
                let dispute = dispute(number)?;
                let state = decided(dispute.state, decision).ok_or("decision")?;
                table.decide_dispute(&dispute.provider_ref, state);
                dispute.id.to_string()
            }
        };
        let check = |payment: &mut Payment, turn: &mut Turn<'_>| {
            assert!(payment.check_up(turn, &reference), "{reference} is known");
            Ok(())
        };
        table.change(payment, check).await.map_err(|_| "check")
    }
}
