//! What an accountant is given: the trial balance, and the books as a file.
//!
//! The file is CSV by RFC 4180: one line for each posting, oldest entry first, lines of an entry together, so that the
//! same days give the same bytes each time. Deliberately missing: floats, exchange, and any account plan but ours.

use crate::store::LedgerAccount;
use crate::store::books::PostingRow;
use kernel::{Currency, Money, day};

/// The first line of the file.
pub const HEADER: &str = "recorded_at,transaction_id,kind,payment_id,source_id,line,account,currency,amount_minor,amount\r\n";

/// Where the accounts of one currency stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrialBalance {
    /// The currency.
    pub currency: Currency,
    /// The accounts with their balances, by name.
    pub accounts: Vec<LedgerAccount>,
    /// The sum of balances on the debit side.
    pub debits_minor: i64,
    /// The sum of balances on the credit side, not negative.
    pub credits_minor: i64,
}

impl TrialBalance {
    /// What is left over: nothing, in books that are whole.
    pub fn sum_minor(&self) -> i64 {
        self.debits_minor - self.credits_minor
    }
}

/// Balances by currency; `accounts` come by currency and name.
pub fn trial_balances(accounts: Vec<LedgerAccount>) -> Vec<TrialBalance> {
    let mut balances: Vec<TrialBalance> = Vec::new();
    for account in accounts {
        if balances
            .last()
            .is_none_or(|last| last.currency != account.currency)
        {
            balances.push(TrialBalance {
                currency: account.currency,
                accounts: Vec::new(),
                debits_minor: 0,
                credits_minor: 0,
            });
        }
        if let Some(balance) = balances.last_mut() {
            balance.debits_minor += account.balance_minor.max(0);
            balance.credits_minor -= account.balance_minor.min(0);
            balance.accounts.push(account);
        }
    }
    balances
}

/// A posting as a line of the file.
pub fn csv_line(row: &PostingRow) -> String {
    let amount = Money::new(row.currency, row.amount_minor).map(Money::to_decimal);
    let fields = [
        day::to_rfc3339(row.recorded_at_us),
        row.transaction_id.clone(),
        row.kind.clone(),
        row.payment_id.clone(),
        row.source_id.clone(),
        row.line.to_string(),
        row.account.clone(),
        row.currency.code().to_owned(),
        row.amount_minor.to_string(),
        amount.unwrap_or_default(), // No posting is larger than an amount can be.
    ];
    let mut line = fields.map(|field| quoted(&field)).join(",");
    line.push_str("\r\n");
    line
}

/// A field, in quotation marks where RFC 4180 wants them.
fn quoted(field: &str) -> String {
    if field.contains([',', '"', '\r', '\n']) {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn currency(code: &str) -> Currency {
        Currency::parse(code).unwrap()
    }

    #[test]
    fn balances_are_summed_up_by_currency() {
        let account = |account: &str, code: &str, balance_minor| LedgerAccount {
            account: account.to_owned(),
            currency: currency(code),
            balance_minor,
        };
        let accounts = vec![
            account("a", "KRW", 500),
            account("b", "KRW", -500),
            account("a", "USD", 300),
            account("b", "USD", -100),
            account("c", "USD", -201),
        ];
        let balances = trial_balances(accounts);
        let sums: Vec<_> = balances
            .iter()
            .map(|of| {
                (
                    of.currency.code(),
                    of.debits_minor,
                    of.credits_minor,
                    of.sum_minor(),
                )
            })
            .collect();
        assert_eq!(
            sums,
            [("KRW", 500, 500, 0), ("USD", 300, 301, -1)],
            "one cent is missing"
        );
        assert_eq!(balances[1].accounts.len(), 3);
        assert_eq!(trial_balances(Vec::new()), []);
    }

    #[test]
    fn lines_are_as_rfc_4180_has_them() {
        let mut row = PostingRow {
            recorded_at_us: 1_795_342_530_500_000,
            transaction_id: "txn_1".to_owned(),
            kind: "capture".to_owned(),
            payment_id: String::new(),
            source_id: "cap_1".to_owned(),
            line: 0,
            account: "assets:provider:simulator".to_owned(),
            currency: currency("USD"),
            amount_minor: -199,
        };
        assert_eq!(
            csv_line(&row),
            "2026-11-22T10:15:30.5Z,txn_1,capture,,cap_1,0,assets:provider:simulator,USD,-199,-1.99\r\n"
        );
        row.account = "odd, \"name\"".to_owned();
        assert!(csv_line(&row).contains(",\"odd, \"\"name\"\"\",USD,"));
        assert_eq!(HEADER.matches(',').count(), 9);
    }
}
