//! A payment: what is bought, what was tried, taken and given back, and the commands of its caller.
//!
//! One file, for every command is decided by the same fields, and none makes sense without the others.
//! Pure: `now` comes with the [`Turn`], what a change leaves behind goes into it. What the world
//! answers is recorded in `record`; what to ask it next is decided in `step`.

use crate::attempt::{Attempt, AttemptState};
use crate::capture::{Capture, CaptureState, Line, part_of, sum_of};
use crate::charges::{Charges, Part, Shares};
use crate::dispute::Dispute;
use crate::fact::{Fact, Moved, Turn};
use crate::failure::Failure;
use crate::policy::Progress;
use crate::refund::{self, How, Left, Refund, RefundState, Wanted};
use crate::rejection::Rejection;
use crate::state::{Command, Move, State};
use kernel::{AttemptId, CaptureId, Currency, Invalid, Money, PaymentId, RefundId};
use serde::{Deserialize, Serialize};

/// When the money is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CaptureMethod {
    /// At once.
    Automatic,
    /// Authorised at once, taken by a capture.
    Manual,
}

impl CaptureMethod {
    /// The name in the store.
    pub fn name(self) -> &'static str {
        match self {
            Self::Automatic => "automatic",
            Self::Manual => "manual",
        }
    }
}

/// Why a payment was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CancelReason {
    /// The caller asked for it.
    Requested,
    /// Its time ran out.
    Expired,
    /// The units were no longer there when they were to be committed.
    OutOfStock,
    /// The provider refused to hand over what it had authorised.
    CaptureFailed,
}

impl CancelReason {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Requested,
        Self::Expired,
        Self::OutOfStock,
        Self::CaptureFailed,
    ];

    /// The name in the contract and in the store.
    pub fn name(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::Expired => "expired",
            Self::OutOfStock => "out_of_stock",
            Self::CaptureFailed => "capture_failed",
        }
    }

    /// Reads [`CancelReason::name`] back.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.name() == name)
    }
}

/// One line of a purchase, as it was at that moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// The variant.
    pub sku: String,
    /// Units.
    pub quantity: i32,
    /// The product.
    pub product_id: String,
    /// Its title.
    pub title: String,
    /// Its category.
    pub category: String,
    /// The price of one unit, in the payment's currency.
    pub unit_price_minor: i64,
}

/// What a caller wants to buy, checked; items as quoted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Who asks.
    pub principal: String,
    /// The caller's own order.
    pub order_ref: String,
    /// The caller's own customer.
    pub customer_ref: String,
    /// The currency to pay in.
    pub currency: Currency,
    /// What is bought.
    pub items: Vec<Item>,
    /// What it costs beside the items.
    pub charges: Charges,
    /// A token of the provider; empty while none is given.
    pub payment_method: String,
    /// When the money is taken.
    pub capture_method: CaptureMethod,
    /// Who carries it out.
    pub provider: String,
    /// When the customer ordered, if that is known.
    pub ordered_at_us: Option<i64>,
}

/// A payment with everything that belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payment {
    /// Its id.
    pub id: PaymentId,
    /// What was ordered.
    pub order: Order,
    /// The sum of its items less discounts, with shipping and taxes, in minor units of its currency; above zero.
    pub amount_minor: i64,
    /// Where it stands.
    pub state: State,
    /// Why the last attempt failed.
    pub last_error: Option<Failure>,
    /// Where the customer authenticates, while that is waited for.
    pub redirect_url: Option<String>,
    /// That it is to be given up, and why; kept when it is.
    pub closing: Option<CancelReason>,
    /// Whether the provider reported success after it was given up.
    pub late_success: bool,
    /// The attempts, oldest first. Only the last one can succeed.
    pub attempts: Vec<Attempt>,
    /// The captures, oldest first.
    pub captures: Vec<Capture>,
    /// The refunds, oldest first.
    pub refunds: Vec<Refund>,
    /// The disputes of its charges, in the order in which they became known.
    pub disputes: Vec<Dispute>,
    /// When its state runs out.
    pub expires_at_us: Option<i64>,
    /// When it was created.
    pub created_at_us: i64,
    /// When it last changed.
    pub updated_at_us: i64,
    /// Changes with every change.
    pub version: i64,
}

impl Payment {
    /// A new payment that waits to be confirmed.
    pub fn create(mut order: Order, turn: &mut Turn<'_>) -> Result<Self, Rejection> {
        if order.capture_method == CaptureMethod::Manual && !turn.rules.captures_later {
            return Err(Invalid::new(
                "capture_method",
                format!(
                    "provider {} takes money at once; MANUAL is not possible",
                    order.provider
                ),
            )
            .into());
        }
        let (charges, amount) = order.charges.price(order.currency, &order.items)?;
        order.charges = charges;
        let payment = Self {
            id: PaymentId::generate(turn.now_us),
            order,
            amount_minor: amount.amount_minor(),
            state: State::RequiresConfirmation,
            last_error: None,
            redirect_url: None,
            closing: None,
            late_success: false,
            attempts: Vec::new(),
            captures: Vec::new(),
            refunds: Vec::new(),
            disputes: Vec::new(),
            expires_at_us: Some(turn.now_us + turn.rules.unconfirmed_us),
            created_at_us: turn.now_us,
            updated_at_us: turn.now_us,
            version: 1,
        };
        let moved = Moved {
            version: 1,
            from: None,
            to: State::RequiresConfirmation,
        };
        turn.effects.moves.push(moved);
        payment.emit(turn, Fact::Created);
        Ok(payment)
    }

    /// Carries it out: a new attempt, or on with the one that waited for the customer.
    pub fn confirm(&mut self, turn: &mut Turn<'_>, method: Option<&str>) -> Result<(), Rejection> {
        self.check(Command::Confirm)?;
        let method = method.unwrap_or(&self.order.payment_method).to_owned();
        if method.is_empty() {
            let reason = "is needed to carry the payment out";
            return Err(Invalid::new("payment_method", reason).into());
        }
        if self.amount_minor == 0 {
            return Err(Rejection::NothingToPay);
        }
        let authenticating = self.state == State::RequiresAction;
        if authenticating && self.closing.is_some() {
            return Err(self.forbids(Command::Confirm, "it is being canceled"));
        }
        let goes_back = |attempt: &Attempt| {
            let state = attempt.state;
            attempt.payment_method == method
                && matches!(state, AttemptState::Reversing | AttemptState::Reversed)
        };
        if turn.rules.method_is_charge && self.attempts.iter().any(goes_back) {
            let reason = "was charged, and the money goes back: another one is needed";
            return Err(Invalid::new("payment_method", reason).into());
        }
        if self.attempts.len() >= turn.rules.attempts_max {
            let why = format!("it was attempted {} times", self.attempts.len());
            return Err(self.forbids(Command::Confirm, &why));
        }
        self.go(turn, Move::Start);
        self.last_error = None;
        self.redirect_url = None;
        match self.attempts.last_mut() {
            Some(attempt) if authenticating && attempt.payment_method == method => {
                attempt.state = AttemptState::Sent;
                attempt.asked.progress.due_at_us = turn.now_us;
                return Ok(());
            }
            Some(attempt) if authenticating => {
                attempt.stop_waiting(turn.now_us, turn.rules.voids);
            }
            Some(_) | None => {}
        }
        self.order.payment_method.clone_from(&method);
        self.attempts
            .push(Attempt::new(method, self.amount_minor, turn.now_us));
        Ok(())
    }

    /// Gives it up, now or as soon as what the provider did is known.
    pub fn cancel(&mut self, turn: &mut Turn<'_>) -> Result<(), Rejection> {
        self.check(Command::Cancel)?;
        if self.state == State::RequiresCapture && self.has_pending_capture() {
            return Err(self.forbids(Command::Cancel, "a capture is under way"));
        }
        self.closing.get_or_insert(CancelReason::Requested);
        if self.state == State::RequiresConfirmation {
            self.become_canceled(turn);
        }
        Ok(())
    }

    /// Begins to take authorised money; without lines for all that is left.
    pub fn capture(
        &mut self,
        turn: &mut Turn<'_>,
        lines: &[(String, i32)],
        is_final: bool,
    ) -> Result<CaptureId, Rejection> {
        self.check(Command::Capture)?;
        if self.closing.is_some() {
            return Err(self.forbids(Command::Capture, "it is being canceled"));
        }
        let is_final = is_final || !turn.rules.captures_in_parts;
        let pending_final =
            |capture: &Capture| capture.state == CaptureState::Pending && capture.is_final;
        if self.captures.iter().any(pending_final) {
            return Err(self.forbids(Command::Capture, "its final capture is under way"));
        }
        if is_final && self.has_pending_capture() {
            return Err(self.forbids(
                Command::Capture,
                "a capture before the final one is under way",
            ));
        }
        let lines = self.capture_lines(lines)?;
        let attempt = self
            .attempts
            .last()
            .expect("an authorised payment has an attempt")
            .id;
        let shipping = self.shipping_uncaptured();
        let capture = Capture::new(attempt, lines, shipping, is_final, turn.now_us);
        if capture.amount_minor == 0 {
            return Err(Rejection::NothingToPay);
        }
        let id = capture.id;
        self.captures.push(capture);
        Ok(id)
    }

    /// Begins to give captured money back.
    pub fn refund(
        &mut self,
        turn: &mut Turn<'_>,
        wanted: &Wanted,
        how: How,
    ) -> Result<RefundId, Rejection> {
        if self.captured_minor() == 0 {
            return Err(Rejection::NothingCaptured(self.id));
        }
        self.check(Command::Refund)?;
        if let Wanted::Amount(amount) = wanted
            && amount.currency() != self.order.currency
        {
            let reason = format!("must be in the payment's currency, {}", self.order.currency);
            return Err(Invalid::new("amount.currency_code", reason).into());
        }
        let shares = self.shares();
        let items = self.order.items.iter().zip(&shares.items);
        let left: Vec<Left> = items
            .map(|(item, whole)| self.left_of(item, *whole))
            .collect();
        let given_back = refund::plan(self.id, &left, self.shipping_left(), wanted)?;
        if !how.disputed_too {
            self.refuse_disputed(sum_of(&given_back.0, given_back.1))?;
        }
        let attempt = self
            .attempts
            .last()
            .expect("a captured payment has an attempt")
            .id;
        let refund = Refund::new(attempt, given_back, how.restock, how.reason, turn.now_us);
        let id = refund.id;
        self.refunds.push(refund);
        Ok(id)
    }

    /// A webhook named something of this payment: what became of it is to be asked.
    /// False: it names nothing that belongs to it.
    pub fn check_up(&mut self, turn: &mut Turn<'_>, reference: &str) -> bool {
        let now_us = turn.now_us;
        if let Some(attempt) = self
            .attempts
            .iter_mut()
            .find(|attempt| reference == attempt.id.to_string())
        {
            attempt.check = true;
            attempt.asked.progress.due_at_us = now_us;
            return true;
        }
        let refunds = &mut self.refunds;
        if let Some(refund) = refunds.iter_mut().find(|r| r.id.to_string() == reference) {
            refund.check = refund.state.counts(); // Also once it succeeds: it may fail after that.
            if refund.state == RefundState::Succeeded {
                refund.asked.progress = Progress::at(now_us);
            }
            refund.asked.progress.due_at_us = refund.asked.progress.due_at_us.min(now_us);
            return true;
        }
        let captures = &mut self.captures;
        match captures.iter_mut().find(|c| c.id.to_string() == reference) {
            Some(Capture { asked, .. }) => {
                asked.progress.due_at_us = asked.progress.due_at_us.min(now_us);
                true
            }
            None => self.check_disputes(turn, reference),
        }
    }

    /// What was captured.
    pub fn captured_minor(&self) -> i64 {
        let succeeded = |capture: &&Capture| capture.state == CaptureState::Succeeded;
        self.captures
            .iter()
            .filter(succeeded)
            .map(|capture| capture.amount_minor)
            .sum()
    }

    /// What was refunded, and what is being refunded.
    pub fn refunded_minor(&self) -> i64 {
        let counting = |refund: &&Refund| refund.state.counts();
        self.refunds
            .iter()
            .filter(counting)
            .map(|refund| refund.amount_minor)
            .sum()
    }

    /// Units of an item that were captured.
    pub fn captured_quantity(&self, sku: &str) -> i32 {
        let succeeded = |capture: &&Capture| capture.state == CaptureState::Succeeded;
        self.captures
            .iter()
            .filter(succeeded)
            .map(|capture| capture.quantity_of(sku))
            .sum()
    }

    /// Units of an item that were refunded, or are being refunded.
    pub fn refunded_quantity(&self, sku: &str) -> i32 {
        self.refund_lines(sku).map(|line| line.quantity).sum()
    }

    /// Whether a cancellation was asked for and waits.
    pub fn cancel_requested(&self) -> bool {
        self.closing == Some(CancelReason::Requested) && self.state != State::Canceled
    }

    /// An amount in the payment's currency.
    pub fn money(&self, amount_minor: i64) -> Money {
        Money::new(self.order.currency, amount_minor)
            .expect("parts of a payment are no larger than its amount, which is an amount")
    }

    /// An attempt's place.
    pub(crate) fn attempt_index(&self, id: AttemptId) -> Option<usize> {
        self.attempts.iter().position(|attempt| attempt.id == id)
    }

    /// Whether an attempt is the one that the payment stands or falls with.
    pub(crate) fn is_current(&self, index: usize) -> bool {
        index + 1 == self.attempts.len()
    }

    /// Whether some capture's outcome is not known.
    pub(crate) fn has_pending_capture(&self) -> bool {
        self.captures
            .iter()
            .any(|capture| capture.state == CaptureState::Pending)
    }

    /// Makes a move of the state table.
    pub(crate) fn go(&mut self, turn: &mut Turn<'_>, step: Move) {
        let to = self
            .state
            .after(step)
            .expect("callers make only moves that the table has");
        if !turn.effects.moves.is_empty() {
            self.version += 1; // The change itself counts for the first move.
        }
        let moved = Moved {
            version: self.version,
            from: Some(self.state),
            to,
        };
        turn.effects.moves.push(moved);
        self.state = to;
        let attempt_ends = self
            .attempts
            .last()
            .and_then(|a| a.authorization_expires_at_us);
        self.expires_at_us = match to {
            State::RequiresConfirmation => Some(turn.now_us + turn.rules.unconfirmed_us),
            State::RequiresAction => Some(turn.now_us + turn.rules.action_us),
            State::RequiresCapture => attempt_ends,
            State::PartiallyCaptured => self.expires_at_us,
            State::Processing | State::Succeeded | State::Canceled => None,
        };
    }

    /// Gives it up for the reason recorded.
    pub(crate) fn become_canceled(&mut self, turn: &mut Turn<'_>) {
        let reason = *self.closing.get_or_insert(CancelReason::Requested);
        self.go(turn, Move::Cancel);
        self.redirect_url = None;
        self.emit(turn, Fact::Canceled(reason));
    }

    /// Notes a fact, with the version at this moment.
    pub(crate) fn emit(&self, turn: &mut Turn<'_>, fact: Fact) {
        turn.effects.facts.push((self.version, fact));
    }

    /// What falls on each item and on shipping.
    pub fn shares(&self) -> Shares {
        self.order.charges.shares(&self.order.items)
    }

    /// All units of all items, as one capture.
    pub(crate) fn all_lines(&self) -> Vec<Line> {
        let shares = self.shares().items;
        let items = self.order.items.iter().zip(shares);
        items
            .map(|(item, whole)| Line::new(item.sku.clone(), item.quantity, whole))
            .collect()
    }

    /// Shipping goes with the first capture; with the next one where that failed.
    pub(crate) fn shipping_uncaptured(&self) -> Part {
        let taken = self
            .not_failed()
            .any(|capture| capture.shipping != Part::default());
        if taken {
            Part::default()
        } else {
            self.shares().shipping
        }
    }

    /// What was captured of shipping and not refunded.
    fn shipping_left(&self) -> Part {
        let captured = self.succeeded().map(|capture| capture.shipping);
        let refunded = self.counting_refunds().map(|refund| refund.shipping);
        let sum = |sum: Part, part| sum.plus(part);
        captured
            .fold(Part::default(), sum)
            .less(refunded.fold(Part::default(), sum))
    }

    /// What was captured of an item and not refunded.
    pub(crate) fn part_left(&self, sku: &str) -> Part {
        let captured = self.succeeded().flat_map(|capture| &capture.lines);
        part_of(captured, sku).less(part_of(self.refund_lines(sku), sku))
    }

    fn succeeded(&self) -> impl Iterator<Item = &Capture> {
        let succeeded = |capture: &&Capture| capture.state == CaptureState::Succeeded;
        self.captures.iter().filter(succeeded)
    }

    fn not_failed(&self) -> impl Iterator<Item = &Capture> {
        let not_failed = |capture: &&Capture| capture.state != CaptureState::Failed;
        self.captures.iter().filter(not_failed)
    }

    fn counting_refunds(&self) -> impl Iterator<Item = &Refund> {
        self.refunds.iter().filter(|refund| refund.state.counts())
    }

    /// The next units of an item: all that is not taken with the last of them.
    fn line_of(&self, item: &Item, whole: Part, quantity: i32) -> Line {
        let before: i32 = self
            .not_failed()
            .map(|capture| capture.quantity_of(&item.sku))
            .sum();
        let lines = self.not_failed().flat_map(|capture| &capture.lines);
        let taken = part_of(lines, &item.sku);
        let until = whole.of_units(before + quantity, item.quantity);
        Line::new(item.sku.clone(), quantity, until.less(taken).within(whole))
    }

    fn capture_lines(&self, wanted: &[(String, i32)]) -> Result<Vec<Line>, Rejection> {
        let uncaptured = |item: &Item| {
            let captures = self.not_failed();
            let taken: i32 = captures.map(|capture| capture.quantity_of(&item.sku)).sum();
            item.quantity - taken
        };
        let shares = self.shares().items;
        let items = || self.order.items.iter().zip(&shares);
        if wanted.is_empty() {
            let lines: Vec<Line> = items()
                .map(|(item, whole)| self.line_of(item, *whole, uncaptured(item)))
                .filter(|line| line.quantity > 0)
                .collect();
            if lines.is_empty() {
                return Err(self.forbids(Command::Capture, "all of it is being captured"));
            }
            return Ok(lines);
        }
        wanted
            .iter()
            .enumerate()
            .map(|(index, (sku, quantity))| {
                let found = items().find(|(item, _)| item.sku == *sku);
                let (item, whole) = found.ok_or_else(|| {
                    Invalid::new(
                        format!("lines[{index}].sku"),
                        "is not an item of this payment",
                    )
                })?;
                let left = uncaptured(item);
                if *quantity > left {
                    return Err(Rejection::QuantityExceeded {
                        sku: sku.clone(),
                        asked: i64::from(*quantity),
                        left: i64::from(left),
                    });
                }
                Ok(self.line_of(item, *whole, *quantity))
            })
            .collect()
    }

    fn left_of(&self, item: &Item, whole: Part) -> Left {
        let refunded = self.refunded_quantity(&item.sku);
        Left {
            sku: item.sku.clone(),
            quantity: self.captured_quantity(&item.sku) - refunded,
            bought: item.quantity,
            refunded,
            whole,
            left: self.part_left(&item.sku),
        }
    }

    fn refund_lines(&self, sku: &str) -> impl Iterator<Item = &Line> {
        let counting = |refund: &&Refund| refund.state.counts();
        let lines = self
            .refunds
            .iter()
            .filter(counting)
            .flat_map(|refund| &refund.lines);
        lines.filter(move |line| line.sku == sku)
    }

    fn check(&self, command: Command) -> Result<(), Rejection> {
        if self.state.allows(command) {
            return Ok(());
        }
        Err(self.forbids(command, &format!("it is {}", self.state.name())))
    }

    fn forbids(&self, command: Command, why: &str) -> Rejection {
        Rejection::State {
            id: self.id,
            command,
            state: self.state,
            why: why.to_owned(),
        }
    }
}
