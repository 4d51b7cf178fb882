//! Exact amounts: whole minor units of one currency, checked at every step, no floats.
//!
//! Deliberately missing: division and percentages. What has to be divided is [`allocate`]d, so that
//! nothing is lost or made up.

use crate::currency::Currency;
use crate::text::Invalid;

/// The largest amount either way, in minor units. Well inside i64, so that thousands of amounts can
/// be summed in one, and inside 2^53, so that no JSON reader loses a unit.
pub const AMOUNT_MINOR_MAX: i64 = 1_000_000_000_000_000;

/// An amount of one currency, at most [`AMOUNT_MINOR_MAX`] either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Money {
    currency: Currency,
    amount_minor: i64,
}

/// What can go wrong with amounts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    /// Two currencies in one operation.
    #[error("{left} and {right} cannot be combined")]
    CurrencyMismatch {
        /// The currency of the left side.
        left: Currency,
        /// The currency of the right side.
        right: Currency,
    },
    /// Above [`AMOUNT_MINOR_MAX`] or below its negative.
    #[error("must be at most 1000000000000000 minor units either way")]
    OutOfRange,
    /// Not of the form `123`, `-123` or `123.45`.
    #[error("must be a decimal number such as 1.99")]
    NotADecimal,
    /// More decimals than the currency has.
    #[error("has {given} decimals, but {currency} has {}", currency.exponent())]
    TooManyDecimals {
        /// The currency.
        currency: Currency,
        /// How many decimals there were.
        given: usize,
    },
}

impl MoneyError {
    /// The same problem as one of a named request field.
    pub fn at(&self, field: impl Into<String>) -> Invalid {
        Invalid::new(field, self.to_string())
    }
}

impl Money {
    /// An amount in minor units: 199 is 1.99 USD, and 199 KRW.
    pub fn new(currency: Currency, amount_minor: i64) -> Result<Self, MoneyError> {
        if (-AMOUNT_MINOR_MAX..=AMOUNT_MINOR_MAX).contains(&amount_minor) {
            Ok(Self {
                currency,
                amount_minor,
            })
        } else {
            Err(MoneyError::OutOfRange)
        }
    }

    /// Nothing, of a currency.
    pub fn zero(currency: Currency) -> Self {
        Self {
            currency,
            amount_minor: 0,
        }
    }

    /// The currency.
    pub fn currency(self) -> Currency {
        self.currency
    }

    /// The amount in minor units.
    pub fn amount_minor(self) -> i64 {
        self.amount_minor
    }

    /// Whether it is nothing.
    pub fn is_zero(self) -> bool {
        self.amount_minor == 0
    }

    /// The same amount with the other sign.
    #[must_use]
    pub fn negated(self) -> Self {
        Self {
            amount_minor: -self.amount_minor,
            ..self
        }
    }

    /// The sum of two amounts of the same currency.
    pub fn checked_add(self, other: Self) -> Result<Self, MoneyError> {
        self.same_currency(other)?;
        Self::new(self.currency, self.amount_minor + other.amount_minor)
    }

    /// The difference of two amounts of the same currency.
    pub fn checked_sub(self, other: Self) -> Result<Self, MoneyError> {
        self.checked_add(other.negated())
    }

    /// The amount for several units.
    pub fn checked_mul(self, quantity: i64) -> Result<Self, MoneyError> {
        let product = self
            .amount_minor
            .checked_mul(quantity)
            .ok_or(MoneyError::OutOfRange)?;
        Self::new(self.currency, product)
    }

    /// The sum of amounts of `currency`; nothing for none.
    pub fn sum(
        currency: Currency,
        amounts: impl IntoIterator<Item = Self>,
    ) -> Result<Self, MoneyError> {
        amounts
            .into_iter()
            .try_fold(Self::zero(currency), Self::checked_add)
    }

    /// Reads a decimal number such as `1.99`: an optional minus sign, digits and, where the currency
    /// has decimals, a full stop and up to that many digits. No other spelling is accepted.
    pub fn parse_decimal(text: &str, currency: Currency) -> Result<Self, MoneyError> {
        let (sign, digits) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
        let (whole, decimals) = match digits.split_once('.') {
            Some((_, "")) => return Err(MoneyError::NotADecimal),
            Some(parts) => parts,
            None => (digits, ""),
        };
        let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || !all_digits(whole) || !all_digits(decimals) {
            return Err(MoneyError::NotADecimal);
        }
        let exponent = currency.exponent() as usize;
        if decimals.len() > exponent {
            return Err(MoneyError::TooManyDecimals {
                currency,
                given: decimals.len(),
            });
        }
        let padding = std::iter::repeat_n(b'0', exponent - decimals.len());
        let amount_minor = whole
            .bytes()
            .chain(decimals.bytes())
            .chain(padding)
            .try_fold(0_i64, |sum, digit| {
                sum.checked_mul(10)?.checked_add(i64::from(digit - b'0'))
            })
            .ok_or(MoneyError::OutOfRange)?;
        Self::new(currency, sign * amount_minor)
    }

    /// The amount as a decimal number with all decimals of its currency: `1.99`, `199`, `0.199`.
    /// [`Money::parse_decimal`] reads it back.
    pub fn to_decimal(self) -> String {
        let sign = if self.amount_minor < 0 { "-" } else { "" };
        let exponent = self.currency.exponent() as usize;
        let digits = format!(
            "{:0>width$}",
            self.amount_minor.unsigned_abs(),
            width = exponent + 1
        );
        let (whole, decimals) = digits.split_at(digits.len() - exponent);
        if decimals.is_empty() {
            format!("{sign}{whole}")
        } else {
            format!("{sign}{whole}.{decimals}")
        }
    }

    fn same_currency(self, other: Self) -> Result<(), MoneyError> {
        if self.currency == other.currency {
            return Ok(());
        }
        Err(MoneyError::CurrencyMismatch {
            left: self.currency,
            right: other.currency,
        })
    }
}

impl std::fmt::Display for Money {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.to_decimal(), self.currency)
    }
}

/// Why something cannot be allocated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AllocateError {
    /// A weight below zero.
    #[error("weight {0} is below zero")]
    NegativeWeight(i64),
    /// Something is to be divided, but every weight is zero.
    #[error("nothing has weight")]
    NoWeight,
}

/// Divides `total` in proportion to `weights` by the method of the largest remainder (Hamilton's,
/// or Hare-Niemeyer's): every part is its exact share rounded down, and the units then left go one
/// each to the parts that lost most by that, to the earlier one on a tie.
///
/// The parts sum to `total`, each is its exact share rounded up or down, and no part exceeds its
/// weight while `total` does not exceed the sum of weights: a refund by amount never gives a line
/// more than is left of it.
pub fn allocate(total: i64, weights: &[i64]) -> Result<Vec<i64>, AllocateError> {
    if let Some(negative) = weights.iter().find(|weight| **weight < 0) {
        return Err(AllocateError::NegativeWeight(*negative));
    }
    let sum: i128 = weights.iter().map(|weight| i128::from(*weight)).sum();
    if sum == 0 {
        return if total == 0 {
            Ok(vec![0; weights.len()])
        } else {
            Err(AllocateError::NoWeight)
        };
    }
    let sign = i128::from(total.signum());
    let whole = i128::from(total) * sign;
    let shares: Vec<(i128, i128)> = weights
        .iter()
        .map(|weight| {
            (
                whole * i128::from(*weight) / sum,
                whole * i128::from(*weight) % sum,
            )
        })
        .collect();
    let left = whole - shares.iter().map(|(part, _)| part).sum::<i128>();
    let mut by_remainder: Vec<usize> = (0..weights.len()).collect();
    by_remainder.sort_by_key(|index| std::cmp::Reverse(shares[*index].1)); // Stable: earlier first.
    let mut parts: Vec<i128> = shares.into_iter().map(|(part, _)| part).collect();
    let left = usize::try_from(left).expect("each share loses less than one unit by rounding");
    for index in by_remainder.into_iter().take(left) {
        parts[index] += 1;
    }
    let narrow = |part| i64::try_from(sign * part).expect("a part is no larger than the total");
    Ok(parts.into_iter().map(narrow).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn currency(code: &str) -> Currency {
        Currency::parse(code).unwrap()
    }

    fn money(code: &str, amount_minor: i64) -> Money {
        Money::new(currency(code), amount_minor).unwrap()
    }

    #[test]
    fn arithmetic_is_checked() {
        let (one, two) = (money("USD", 100), money("USD", 250));
        assert_eq!(one.checked_add(two), Ok(money("USD", 350)));
        assert_eq!(one.checked_sub(two), Ok(money("USD", -150)));
        assert_eq!(two.checked_mul(4), Ok(money("USD", 1000)));
        assert_eq!(
            Money::sum(currency("USD"), [one, two, two]),
            Ok(money("USD", 600))
        );
        assert_eq!(Money::sum(currency("USD"), []), Ok(money("USD", 0)));
        let mismatch = one.checked_add(money("KRW", 1)).unwrap_err();
        assert_eq!(mismatch.to_string(), "USD and KRW cannot be combined");
        let largest = money("USD", AMOUNT_MINOR_MAX);
        assert_eq!(
            largest.checked_add(money("USD", 1)),
            Err(MoneyError::OutOfRange)
        );
        assert_eq!(largest.checked_mul(i64::MAX), Err(MoneyError::OutOfRange));
        assert_eq!(
            Money::new(currency("USD"), i64::MIN),
            Err(MoneyError::OutOfRange)
        );
        assert_eq!(
            largest.negated().checked_sub(money("USD", 1)),
            Err(MoneyError::OutOfRange)
        );
    }

    #[test]
    fn decimals_follow_the_currency() {
        for (text, code, amount_minor, back) in [
            ("1.99", "USD", 199, "1.99"),
            ("1.9", "USD", 190, "1.90"),
            ("0.05", "USD", 5, "0.05"),
            ("-0.05", "USD", -5, "-0.05"),
            ("007", "USD", 700, "7.00"),
            ("199", "KRW", 199, "199"),
            ("0.199", "KWD", 199, "0.199"),
            (
                "10000000000000.00",
                "USD",
                AMOUNT_MINOR_MAX,
                "10000000000000.00",
            ),
        ] {
            let parsed = Money::parse_decimal(text, currency(code)).unwrap();
            assert_eq!(parsed, money(code, amount_minor), "{text}");
            assert_eq!(parsed.to_decimal(), back);
        }
        assert_eq!(money("USD", 199).to_string(), "1.99 USD");
    }

    #[test]
    fn other_spellings_are_refused() {
        for text in [
            "", "-", ".", "1.", ".5", "+1", "1,99", "1e3", " 1", "1.-5", "NaN", "١", "--1",
        ] {
            let error = Money::parse_decimal(text, currency("USD")).unwrap_err();
            assert_eq!(error, MoneyError::NotADecimal, "{text}");
        }
        let error = Money::parse_decimal("1.999", currency("USD")).unwrap_err();
        assert_eq!(
            error.at("price").to_string(),
            "price: has 3 decimals, but USD has 2"
        );
        let error = Money::parse_decimal("100.0", currency("KRW")).unwrap_err();
        assert_eq!(error.to_string(), "has 1 decimals, but KRW has 0");
        for text in ["10000000000000.01", "99999999999999999999999999"] {
            let error = Money::parse_decimal(text, currency("USD")).unwrap_err();
            assert_eq!(error, MoneyError::OutOfRange);
        }
    }

    #[test]
    fn allocation_examples() {
        assert_eq!(allocate(100, &[1, 1, 1]), Ok(vec![34, 33, 33]));
        assert_eq!(allocate(-100, &[1, 1, 1]), Ok(vec![-34, -33, -33]));
        assert_eq!(allocate(1, &[1, 2]), Ok(vec![0, 1]));
        assert_eq!(allocate(0, &[]), Ok(vec![]));
        assert_eq!(allocate(0, &[0, 0]), Ok(vec![0, 0]));
        assert_eq!(allocate(1, &[0, 0]), Err(AllocateError::NoWeight));
        assert_eq!(allocate(1, &[]), Err(AllocateError::NoWeight));
        assert_eq!(
            allocate(1, &[2, -1]),
            Err(AllocateError::NegativeWeight(-1))
        );
        assert_eq!(allocate(i64::MIN, &[i64::MAX, 0]), Ok(vec![i64::MIN, 0]));
    }

    proptest! {
        #[test]
        fn parts_sum_to_the_total_and_stay_within_one_unit(
            total in -AMOUNT_MINOR_MAX..=AMOUNT_MINOR_MAX,
            weights in prop::collection::vec(0..=AMOUNT_MINOR_MAX, 1..100),
        ) {
            prop_assume!(weights.iter().any(|weight| *weight > 0));
            let parts = allocate(total, &weights).unwrap();
            prop_assert_eq!(parts.iter().sum::<i64>(), total);
            let sum: i128 = weights.iter().map(|weight| i128::from(*weight)).sum();
            for (part, weight) in parts.iter().zip(&weights) {
                let exact = i128::from(total) * i128::from(*weight);
                let error = i128::from(*part) * sum - exact;
                prop_assert!(error.abs() < sum, "{part} of {weight}");
            }
        }

        #[test]
        fn no_part_exceeds_its_weight(
            weights in prop::collection::vec(0_i64..1_000, 1..20), fraction in 0_i64..=1000,
        ) {
            let sum: i64 = weights.iter().sum();
            prop_assume!(sum > 0);
            let parts = allocate(sum * fraction / 1000, &weights).unwrap();
            for (part, weight) in parts.iter().zip(&weights) {
                prop_assert!((0..=*weight).contains(part));
            }
        }

        #[test]
        fn decimals_read_back(
            amount_minor in -AMOUNT_MINOR_MAX..=AMOUNT_MINOR_MAX, index in 0_usize..165,
        ) {
            let currency = Currency::all().nth(index).unwrap();
            let money = Money::new(currency, amount_minor).unwrap();
            prop_assert_eq!(Money::parse_decimal(&money.to_decimal(), currency), Ok(money));
        }
    }
}
