//! Currencies of ISO 4217.
//!
//! Deliberately missing: names and numeric codes (nothing here needs them), historic codes, and the
//! codes without a minor unit (metals, bond units, test codes): no price can be stated in them.

use crate::text::Invalid;

/// An active ISO 4217 currency with a minor unit.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Currency {
    code: &'static str,
    exponent: u32,
}

/// A text that is not the code of an active currency with a minor unit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code:?} is not an ISO 4217 currency code such as USD or KRW")]
pub struct UnknownCurrency {
    code: String,
}

impl UnknownCurrency {
    /// The same problem as one of a named request field.
    pub fn at(self, field: impl Into<String>) -> Invalid {
        Invalid::new(field, self.to_string())
    }
}

/// The longest part of a wrong code that is repeated in an error.
const SHOWN_CHARACTERS_MAX: usize = 16;

impl Currency {
    /// The currency of a three-letter code in capitals.
    pub fn parse(code: &str) -> Result<Self, UnknownCurrency> {
        CODES_BY_EXPONENT
            .iter()
            .find_map(|(exponent, codes)| {
                let index = codes.binary_search(&code).ok()?;
                Some(Self {
                    code: codes[index],
                    exponent: *exponent,
                })
            })
            .ok_or_else(|| UnknownCurrency {
                code: code.chars().take(SHOWN_CHARACTERS_MAX).collect(),
            })
    }

    /// The three-letter code.
    pub fn code(self) -> &'static str {
        self.code
    }

    /// How many decimals the minor unit stands for: 0 for KRW, 2 for USD, 3 for KWD.
    pub fn exponent(self) -> u32 {
        self.exponent
    }

    /// All of them, in no particular order.
    pub fn all() -> impl Iterator<Item = Self> {
        CODES_BY_EXPONENT.iter().flat_map(|(exponent, codes)| {
            codes.iter().map(|code| Self {
                code,
                exponent: *exponent,
            })
        })
    }
}

impl std::fmt::Display for Currency {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.code)
    }
}

impl std::fmt::Debug for Currency {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.code)
    }
}

/// Active codes by exponent, each list sorted for binary search (ISO 4217 list one, 2025).
const CODES_BY_EXPONENT: [(u32, &[&str]); 4] = [
    (
        2,
        &[
            "AED", "AFN", "ALL", "AMD", "AOA", "ARS", "AUD", "AWG", "AZN", "BAM", "BBD", "BDT",
            "BMD", "BND", "BOB", "BOV", "BRL", "BSD", "BTN", "BWP", "BYN", "BZD", "CAD", "CDF",
            "CHE", "CHF", "CHW", "CNY", "COP", "COU", "CRC", "CUP", "CVE", "CZK", "DKK", "DOP",
            "DZD", "EGP", "ERN", "ETB", "EUR", "FJD", "FKP", "GBP", "GEL", "GHS", "GIP", "GMD",
            "GTQ", "GYD", "HKD", "HNL", "HTG", "HUF", "IDR", "ILS", "INR", "IRR", "JMD", "KES",
            "KGS", "KHR", "KPW", "KYD", "KZT", "LAK", "LBP", "LKR", "LRD", "LSL", "MAD", "MDL",
            "MGA", "MKD", "MMK", "MNT", "MOP", "MRU", "MUR", "MVR", "MWK", "MXN", "MXV", "MYR",
            "MZN", "NAD", "NGN", "NIO", "NOK", "NPR", "NZD", "PAB", "PEN", "PGK", "PHP", "PKR",
            "PLN", "QAR", "RON", "RSD", "RUB", "SAR", "SBD", "SCR", "SDG", "SEK", "SGD", "SHP",
            "SLE", "SOS", "SRD", "SSP", "STN", "SVC", "SYP", "SZL", "THB", "TJS", "TMT", "TOP",
            "TRY", "TTD", "TWD", "TZS", "UAH", "USD", "USN", "UYU", "UZS", "VED", "VES", "WST",
            "XAD", "XCD", "XCG", "YER", "ZAR", "ZMW", "ZWG",
        ],
    ),
    (
        0,
        &[
            "BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "UYI",
            "VND", "VUV", "XAF", "XOF", "XPF",
        ],
    ),
    (3, &["BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"]),
    (4, &["CLF", "UYW"]),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_sorted_and_found() {
        for (_, codes) in CODES_BY_EXPONENT {
            assert!(codes.windows(2).all(|pair| pair[0] < pair[1]), "{codes:?}");
        }
        for currency in Currency::all() {
            assert_eq!(Currency::parse(currency.code()), Ok(currency));
        }
        assert_eq!(Currency::all().count(), 165);
    }

    #[test]
    fn exponents_of_well_known_currencies() {
        let exponent = |code| Currency::parse(code).unwrap().exponent();
        assert_eq!(
            (
                exponent("KRW"),
                exponent("USD"),
                exponent("KWD"),
                exponent("CLF"),
                exponent("JPY")
            ),
            (0, 2, 3, 4, 0)
        );
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "usd", "USDX", "US", "XAU", "XXX", "DEM", "₩", "U\0D"] {
            let error = Currency::parse(text).unwrap_err();
            assert!(error.to_string().contains("ISO 4217"), "{error}");
        }
        let long = Currency::parse(&"A".repeat(10_000)).unwrap_err();
        assert!(
            long.to_string().len() < 100,
            "the message does not repeat a huge input"
        );
    }
}
