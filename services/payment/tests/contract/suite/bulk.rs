//! Many payments at once, written past the service and the simulator: what thousands of purchases leave behind in both.

use crate::storage::Storage;
use crate::suite::world::World;
use kernel::{AttemptId, CaptureId, PaymentId, RefundId, TransactionId};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, SqliteConnection};
use std::collections::BTreeMap;

const ROWS_MAX: usize = 400;

/// Rows by table, written some hundred at a time.
#[derive(Default)]
pub(crate) struct Rows {
    of: BTreeMap<String, Vec<String>>,
}

impl Rows {
    /// One more row: the table with its columns, and the values.
    pub(crate) fn add(&mut self, into: &str, values: String) {
        self.of.entry(into.to_owned()).or_default().push(values);
    }

    fn statements(&self, tables: &[&str]) -> Vec<String> {
        let mut statements = Vec::new();
        for table in tables {
            let of_table = self
                .of
                .iter()
                .filter(|(into, _)| into.starts_with(&format!("{table} (")));
            for (into, rows) in of_table {
                let chunks = rows.chunks(ROWS_MAX);
                statements.extend(
                    chunks.map(|rows| format!("INSERT INTO {into} VALUES {}", rows.join(", "))),
                );
            }
        }
        statements
    }
}

/// How one of our captures or refunds stands here.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Here {
    Booked,
    Unbooked,
    Pending,
    Failed,
    Nowhere,
}

/// What the provider has of it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum There {
    Same,
    OneMore,
    InWon,
    Twice,
    Nowhere,
}

/// A payment in the making.
pub(crate) struct Sale {
    pub(crate) payment: PaymentId,
    pub(crate) attempt: AttemptId,
    pub(crate) capture: CaptureId,
    pub(crate) refund: Option<RefundId>,
    pub(crate) amount_minor: i64,
    pub(crate) refund_minor: i64,
    pub(crate) at_us: i64,
}

/// The rows of both sides.
pub(crate) struct Bulk<'a> {
    world: &'a World,
    ours: Rows,
    theirs: Rows,
    /// What accounts come to.
    balances: BTreeMap<String, i64>,
    random: StdRng,
    pub(crate) movements: usize,
}

impl<'a> Bulk<'a> {
    pub(crate) fn new(world: &'a World, seed: u64) -> Self {
        Self {
            world,
            ours: Rows::default(),
            theirs: Rows::default(),
            balances: BTreeMap::new(),
            random: StdRng::seed_from_u64(seed),
            movements: 0,
        }
    }

    /// A sale at a time, perhaps with a refund.
    pub(crate) fn sale(&mut self, at_us: i64, refunded: bool) -> Sale {
        let amount_minor = self.random.random_range(100..100_000);
        Sale {
            payment: PaymentId::generate(at_us),
            attempt: AttemptId::generate(at_us),
            capture: CaptureId::generate(at_us),
            refund: refunded.then(|| RefundId::generate(at_us)),
            amount_minor,
            refund_minor: self.random.random_range(1..=amount_minor / 2),
            at_us,
        }
    }

    /// Both sides of a sale that went well, with a refund that went well.
    pub(crate) fn write(&mut self, sale: &Sale) {
        self.write_as(
            sale,
            (Here::Booked, There::Same),
            (Here::Booked, There::Same),
        );
    }

    pub(crate) fn write_as(&mut self, sale: &Sale, capture: (Here, There), refund: (Here, There)) {
        if capture.0 != Here::Nowhere {
            self.payment(sale, capture.0, refund.0);
        }
        self.charge(sale);
        self.move_money(
            "capture",
            "captured",
            &sale.capture.to_string(),
            sale,
            sale.amount_minor,
            capture.1,
        );
        if let Some(id) = sale.refund {
            self.move_money(
                "refund",
                "refunded",
                &id.to_string(),
                sale,
                sale.refund_minor,
                refund.1,
            );
        }
    }

    fn payment(&mut self, sale: &Sale, capture: Here, refund: Here) {
        let (amount, at) = (sale.amount_minor, sale.at_us);
        let open = capture == Here::Pending;
        let captured = if open { 0 } else { amount };
        let refunded = match sale.refund {
            Some(_) if refund != Here::Failed => sale.refund_minor,
            _ => 0,
        };
        let state = if open { "PROCESSING" } else { "SUCCEEDED" };
        let item = format!(
            r#"[{{"sku":"A","quantity":1,"product_id":"prd_1","title":"A","category":"c","unit_price_minor":{amount}}}]"#
        );
        let payment = Storage::key(&sale.payment.to_string(), sale.payment.uuid());
        let attempt = Storage::key(&sale.attempt.to_string(), sale.attempt.uuid());
        let (names, values) = Storage::more_of_payments();
        self.ours.add(
            &format!(
                "payments (id, principal, order_ref, customer_ref, currency, amount_minor, captured_minor, \
                 refunded_minor, items, state, capture_method, payment_method, provider, late_success, created_at_us, \
                 updated_at_us, version, lease_until_us{names})"
            ),
            format!(
                "({payment}, 'shop', '{}', '', 'USD', {amount}, {captured}, {refunded}, '{item}', '{state}', \
                 'automatic', 'pm_card_visa', 'simulator', FALSE, {at}, {at}, 3, 0{values})",
                sale.payment
            ),
        );
        let money = if open { "authorized" } else { "captured" };
        self.ours.add(
            "attempts (id, payment_id, number, payment_method, amount_minor, state, sent_at_us, tries, due_at_us, \
             reversal_tries, reversal_due_at_us, taken, look_up, authorization_expires_at_us, hold, reservation_id, \
             stock_tries, stock_due_at_us, created_at_us)",
            format!(
                "({attempt}, {payment}, 0, 'pm_card_visa', {amount}, '{money}', {at}, 1, {at}, 0, 0, {}, FALSE, \
                 {}, 'committed', 'rsv_1', 0, 0, {at})",
                !open,
                at + 7 * kernel::day::DAY_US
            ),
        );
        self.capture_row(sale, capture, &payment, &attempt);
        if let Some(id) = sale.refund {
            self.refund_row(id, sale, refund, &payment, &attempt);
        }
    }

    fn capture_row(&mut self, sale: &Sale, here: Here, payment: &str, attempt: &str) {
        let (amount, at) = (sale.amount_minor, sale.at_us);
        let id = Storage::key(&sale.capture.to_string(), sale.capture.uuid());
        let (state, captured_at) = match here {
            Here::Pending => ("pending", "NULL".to_owned()),
            _ => ("succeeded", at.to_string()),
        };
        let lines = format!(r#"[{{"sku":"A","quantity":1,"amount_minor":{amount}}}]"#);
        self.ours.add(
            "captures (id, payment_id, number, attempt_id, state, amount_minor, lines, is_final, sent_at_us, tries, \
             due_at_us, stock, stock_tries, stock_due_at_us, created_at_us, captured_at_us)",
            format!(
                "({id}, {payment}, 0, {attempt}, '{state}', {amount}, '{lines}', TRUE, {at}, 1, {at}, 'done', 0, 0, \
                 {at}, {captured_at})"
            ),
        );
        if here == Here::Booked {
            let sides = [
                ("assets:provider:simulator", amount),
                ("income:sales", -amount),
            ];
            self.book("capture", payment, &id, at, sides);
        }
    }

    fn refund_row(
        &mut self,
        refund: RefundId,
        sale: &Sale,
        here: Here,
        payment: &str,
        attempt: &str,
    ) {
        let (amount, at) = (sale.refund_minor, sale.at_us + 1);
        let id = Storage::key(&refund.to_string(), refund.uuid());
        let state = match here {
            Here::Pending => "pending",
            Here::Failed => "failed",
            _ => "succeeded",
        };
        let lines = format!(r#"[{{"sku":"A","quantity":0,"amount_minor":{amount}}}]"#);
        self.ours.add(
            "refunds (id, payment_id, number, attempt_id, state, amount_minor, lines, restock, reason, sent_at_us, \
             tries, due_at_us, stock, stock_tries, stock_due_at_us, created_at_us, updated_at_us)",
            format!(
                "({id}, {payment}, 0, {attempt}, '{state}', {amount}, '{lines}', FALSE, '', {at}, 1, {at}, 'nothing', \
                 0, 0, {at}, {at})"
            ),
        );
        if here == Here::Booked {
            let sides = [
                ("income:refunds", amount),
                ("assets:provider:simulator", -amount),
            ];
            self.book("refund", payment, &id, at, sides);
        }
    }

    fn book(&mut self, kind: &str, payment: &str, source: &str, at: i64, sides: [(&str, i64); 2]) {
        let id = TransactionId::generate(at);
        let id = Storage::key(&id.to_string(), id.uuid());
        self.ours.add(
            "ledger_transactions (id, kind, payment_id, source_id, recorded_at_us)",
            format!("({id}, '{kind}', {payment}, {source}, {at})"),
        );
        let line = |(line, (account, amount)): (usize, (&str, i64))| {
            format!("({id}, {line}, '{account}', 'USD', {amount})")
        };
        for (account, amount) in sides {
            *self.balances.entry(account.to_owned()).or_default() += amount;
        }
        // Together: an entry is written whole.
        let both: Vec<String> = sides.into_iter().enumerate().map(line).collect();
        let into = "ledger_postings (transaction_id, line, account, currency, amount_minor)";
        self.ours.add(into, both.join(", "));
    }

    fn charge(&mut self, sale: &Sale) {
        let (id, amount, at) = (sale.attempt, sale.amount_minor, sale.at_us);
        let values = format!(
            "({at}, 'authorize', '{id}', '{id}', '{}', 'pm_card_visa', 'USD', {amount}, 0, 0, 'authorized', {})",
            sale.payment,
            at + 7 * kernel::day::DAY_US
        );
        self.journal(values);
    }

    fn move_money(
        &mut self,
        operation: &str,
        outcome: &str,
        id: &str,
        sale: &Sale,
        amount: i64,
        there: There,
    ) {
        let (amount, currency) = match there {
            There::Nowhere => return,
            There::OneMore => (amount + 1, "USD"),
            There::InWon => (amount, "KRW"),
            There::Same | There::Twice => (amount, "USD"),
        };
        let at = sale.at_us + i64::from(operation == "refund");
        let last = i32::from(operation == "capture");
        let mut row = |reference: &str| {
            self.movements += 1;
            self.theirs.add(
                JOURNAL,
                format!(
                    "({at}, '{operation}', '{reference}', '{}', '{}', 'pm_card_visa', '{currency}', {amount}, 0, \
                     {last}, '{outcome}', NULL)",
                    sale.attempt, sale.payment
                ),
            );
        };
        row(id);
        if there == There::Twice {
            row(&format!("{id}#{at}"));
        }
    }

    fn journal(&mut self, values: String) {
        self.theirs.add(JOURNAL, values);
    }

    /// Writes all of it.
    pub(crate) async fn flush(&mut self) {
        let tables = [
            "payments",
            "attempts",
            "captures",
            "refunds",
            "ledger_transactions",
            "ledger_postings",
        ];
        for statement in std::mem::take(&mut self.ours).statements(&tables) {
            self.world.storage.execute(&statement).await.unwrap();
        }
        for (account, amount) in std::mem::take(&mut self.balances) {
            let add = format!(
                "INSERT INTO ledger_balances AS old (account, currency, stripe, balance_minor) \
                 VALUES ('{account}', 'USD', 0, {amount}) ON CONFLICT (account, currency, stripe) \
                 DO UPDATE SET balance_minor = old.balance_minor + excluded.balance_minor"
            );
            self.world.storage.execute(&add).await.unwrap();
        }
        let mut journal = open(self.world).await;
        for statement in std::mem::take(&mut self.theirs).statements(&["journal"]) {
            sqlx::query(AssertSqlSafe(statement))
                .execute(&mut journal)
                .await
                .unwrap();
        }
        journal.close().await.unwrap();
    }
}

const JOURNAL: &str = "journal (recorded_at_us, operation, reference, charge_reference, order_ref, payment_method, \
    currency_code, amount_minor, at_once, last, outcome, expires_at_us)";

async fn open(world: &World) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(world.journal());
    options.connect().await.unwrap()
}
