//! Amounts as Stripe counts them, which is not always ISO 4217's way.
//!
//! Source: Stripe's documentation, "Supported currencies". Deliberately missing: limits per currency, which Stripe
//! knows better and refuses by name.

use crate::provider::ProviderError;
use kernel::{Currency, Money};

/// Without decimals in ISO 4217, but Stripe takes hundredths, which must be zero.
const HUNDREDTHS_OF_NONE: [&str; 2] = ["ISK", "UGX"];
/// With hundredths in ISO 4217, but Stripe takes whole units.
const WHOLE_OF_HUNDREDTHS: [&str; 1] = ["MGA"];
/// With thousandths, of which Stripe wants the last digit to be zero.
const TENS_OF_THOUSANDTHS: [&str; 5] = ["BHD", "JOD", "KWD", "OMR", "TND"];

/// An amount in Stripe's units. One that they cannot express is refused.
pub(super) fn to_stripe(amount: Money) -> Result<i64, ProviderError> {
    let (currency, minor) = (amount.currency(), amount.amount_minor());
    let refuse = |why: &str| {
        Err(ProviderError::Refused {
            code: "AMOUNT_INVALID".to_owned(),
            message: format!("{} takes {why}", currency.code()),
        })
    };
    match currency.code() {
        code if HUNDREDTHS_OF_NONE.contains(&code) => match minor.checked_mul(100) {
            Some(hundredths) => Ok(hundredths),
            None => refuse("smaller amounts"),
        },
        code if WHOLE_OF_HUNDREDTHS.contains(&code) && minor % 100 != 0 => refuse("whole units"),
        code if WHOLE_OF_HUNDREDTHS.contains(&code) => Ok(minor / 100),
        code if TENS_OF_THOUSANDTHS.contains(&code) && minor % 10 != 0 => {
            refuse("amounts whose last digit is zero")
        }
        _ => Ok(minor),
    }
}

/// An amount from Stripe's units; nothing where it is none of the currency.
pub(super) fn from_stripe(currency: Currency, units: i64) -> Option<Money> {
    let minor = match currency.code() {
        code if HUNDREDTHS_OF_NONE.contains(&code) => (units % 100 == 0).then_some(units / 100)?,
        code if WHOLE_OF_HUNDREDTHS.contains(&code) => units.checked_mul(100)?,
        _ => units,
    };
    Money::new(currency, minor).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn money(code: &str, minor: i64) -> Money {
        Money::new(Currency::parse(code).unwrap(), minor).unwrap()
    }

    #[test]
    fn amounts_are_counted_as_stripe_does() {
        let table = [
            ("USD", 1_190, Ok(1_190)),
            ("KRW", 36_000, Ok(36_000)),
            ("ISK", 500, Ok(50_000)),
            ("UGX", 1, Ok(100)),
            ("MGA", 1_200, Ok(12)),
            ("MGA", 1_250, Err("MGA takes whole units")),
            ("KWD", 5_120, Ok(5_120)),
            (
                "KWD",
                5_124,
                Err("KWD takes amounts whose last digit is zero"),
            ),
        ];
        for (code, minor, expected) in table {
            let given = to_stripe(money(code, minor));
            match (given, expected) {
                (Ok(units), Ok(expected)) => {
                    assert_eq!(units, expected, "{code}");
                    let currency = Currency::parse(code).unwrap();
                    assert_eq!(
                        from_stripe(currency, units),
                        Some(money(code, minor)),
                        "{code}"
                    );
                }
                (Err(ProviderError::Refused { message, .. }), Err(expected)) => {
                    assert_eq!(message, expected);
                }
                (given, _) => panic!("{code} {minor}: {given:?}"),
            }
        }
        assert_eq!(
            from_stripe(Currency::parse("ISK").unwrap(), 150),
            None,
            "half a krona"
        );
    }
}
