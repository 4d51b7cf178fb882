//! Typed ids: a prefix that names the kind, an underscore, and a UUIDv7 as 26 characters of
//! Crockford's base32 in lower case, such as `prd_01h455vb4pex5vsknk084sn02q` (the text form of the
//! TypeID specification 0.3). Ids of one kind sort as text by the time they were made.
//!
//! Deliberately missing: ids that carry meaning, and other spellings. Upper case, `O` for `0` and
//! the like are refused, so that one thing has one id.

use crate::text::Invalid;
use uuid::Uuid;

/// Defines an id type: `id_type!(ProductId, "prd", "A product's id.")`.
macro_rules! id_type {
    ($name:ident, $prefix:literal, $doc:literal) => {
        #[doc = $doc]
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl $name {
            /// What the text begins with, before the underscore.
            pub const PREFIX: &'static str = $prefix;

            /// A new one, made at `now_us`.
            pub fn generate(now_us: i64) -> Self {
                Self(uuid_at(now_us))
            }

            /// Reads the text form; no other spelling is accepted.
            pub fn parse(text: &str) -> Result<Self, InvalidId> {
                decode(text, Self::PREFIX).map(Self)
            }

            /// Around a UUID that [`Self::uuid`] gave; one of another version is refused.
            pub fn from_uuid(uuid: Uuid) -> Result<Self, InvalidId> {
                known(uuid).map(Self)
            }

            /// The UUIDv7 inside.
            pub fn uuid(self) -> Uuid {
                self.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Self::parse(text)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{}_{}", Self::PREFIX, encode(self.0))
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Display::fmt(self, f)
            }
        }
    };
}

id_type!(ProductId, "prd", "A product's id.");
id_type!(ReservationId, "rsv", "A stock reservation's id.");
id_type!(PaymentId, "pay", "A payment's id.");
id_type!(
    AttemptId,
    "att",
    "The id of one attempt to carry a payment out."
);
id_type!(CaptureId, "cap", "A capture's id.");
id_type!(RefundId, "re", "A refund's id.");
id_type!(DisputeId, "dsp", "A dispute's id.");
id_type!(
    SettlementId,
    "stl",
    "The id of one line of a provider's settlement: a fee or a payout."
);
id_type!(TransactionId, "txn", "A ledger transaction's id.");

/// Why a text is not an id of the kind asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidId {
    /// It begins with something else.
    #[error("must begin with `{expected}_`")]
    Prefix {
        /// The prefix of the kind asked for.
        expected: &'static str,
    },
    /// It is not 26 characters long after the prefix.
    #[error("must have 26 characters after `{expected}_`, not {given}")]
    Length {
        /// The prefix of the kind asked for.
        expected: &'static str,
        /// How many characters there were.
        given: usize,
    },
    /// A character is not one of Crockford's base32 in lower case.
    #[error("contains {found:?}, which no id contains")]
    Character {
        /// The first such character.
        found: char,
    },
    /// It does not hold a UUIDv7.
    #[error("is not an id that was ever given out")]
    NotUuidV7,
}

impl InvalidId {
    /// The same problem as one of a named request field.
    pub fn at(&self, field: impl Into<String>) -> Invalid {
        Invalid::new(field, self.to_string())
    }
}

/// A new UUIDv7 for `now_us`: milliseconds in front, then the twelve bits of `rand_a` with the
/// fraction of the millisecond (RFC 9562, section 6.2, method 3), then 62 random bits. So ids made
/// one microsecond apart sort in the order they were made.
pub fn uuid_at(now_us: i64) -> Uuid {
    let now_us = u64::try_from(now_us).unwrap_or(0); // Before 1970 there were no UUIDs.
    let fraction = u16::try_from(now_us % 1000 * 4096 / 1000).expect("below 4096");
    let mut random: [u8; 10] = rand::random();
    random[..2].copy_from_slice(&fraction.to_be_bytes()); // The builder lays the version over it.
    uuid::Builder::from_unix_timestamp_millis(now_us / 1000, &random).into_uuid()
}

/// Douglas Crockford's base32 alphabet in lower case: sorts like the value, has no i, l, o, u.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const TEXT_CHARACTERS: usize = 26;

fn encode(uuid: Uuid) -> String {
    let value = uuid.as_u128();
    (0..TEXT_CHARACTERS)
        .rev()
        .map(|place| char::from(ALPHABET[(value >> (5 * place) & 31) as usize]))
        .collect()
}

fn decode(text: &str, prefix: &'static str) -> Result<Uuid, InvalidId> {
    let body = text
        .strip_prefix(prefix)
        .and_then(|rest| rest.strip_prefix('_'))
        .ok_or(InvalidId::Prefix { expected: prefix })?;
    let given = body.chars().count();
    if given != TEXT_CHARACTERS {
        return Err(InvalidId::Length {
            expected: prefix,
            given,
        });
    }
    let mut value = 0_u128;
    for character in body.chars() {
        let digit = ALPHABET
            .iter()
            .position(|letter| char::from(*letter) == character)
            .ok_or(InvalidId::Character { found: character })?;
        if value >> 123 != 0 {
            return Err(InvalidId::NotUuidV7); // 26 characters hold 130 bits, a UUID 128.
        }
        value = value << 5 | digit as u128;
    }
    known(Uuid::from_u128(value))
}

fn known(uuid: Uuid) -> Result<Uuid, InvalidId> {
    if uuid.get_version_num() == 7 && uuid.get_variant() == uuid::Variant::RFC4122 {
        Ok(uuid)
    } else {
        Err(InvalidId::NotUuidV7)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const NOW_US: i64 = 1_700_000_000_123_456;

    #[test]
    fn text_form_is_that_of_the_specification() {
        // The example pair of the TypeID specification.
        let uuid: Uuid = "01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap();
        assert_eq!(encode(uuid), "01h455vb4pex5vsknk084sn02q");
        let id = ProductId::parse("prd_01h455vb4pex5vsknk084sn02q").unwrap();
        assert_eq!(
            (id.uuid(), id.to_string()),
            (uuid, "prd_01h455vb4pex5vsknk084sn02q".into())
        );
    }

    #[test]
    fn errors_say_what_is_wrong() {
        let reason = |text: &str| ProductId::parse(text).unwrap_err().to_string();
        let body = "01h455vb4pex5vsknk084sn02q";
        assert_eq!(reason(&format!("pay_{body}")), "must begin with `prd_`");
        assert_eq!(reason(""), "must begin with `prd_`");
        assert_eq!(
            reason("prd_01h"),
            "must have 26 characters after `prd_`, not 3"
        );
        assert_eq!(
            reason(&format!("prd_{body}x")),
            "must have 26 characters after `prd_`, not 27"
        );
        let upper = reason(&format!("prd_{}", body.to_uppercase()));
        assert_eq!(upper, "contains 'H', which no id contains");
        assert_eq!(reason(&format!("prd_{}", body.replace('q', "가"))), {
            "contains '가', which no id contains"
        });
        let never = "is not an id that was ever given out";
        assert_eq!(reason("prd_00000000000000000000000000"), never);
        assert_eq!(reason(&format!("prd_z{}", &body[1..])), never);
        assert_eq!(InvalidId::NotUuidV7.at("id").field, "id");
    }

    #[test]
    fn ids_of_one_microsecond_differ() {
        let ids: BTreeSet<PaymentId> = (0..1000).map(|_| PaymentId::generate(NOW_US)).collect();
        assert_eq!(ids.len(), 1000);
    }

    proptest! {
        #[test]
        fn text_reads_back_and_sorts_by_time(
            first_us in 0_i64..4_000_000_000_000_000, later_us in 1_i64..1_000_000_000,
        ) {
            let first = PaymentId::generate(first_us);
            prop_assert_eq!(PaymentId::parse(&first.to_string()), Ok(first));
            prop_assert_eq!(PaymentId::from_uuid(first.uuid()), Ok(first));
            let second = PaymentId::generate(first_us + later_us);
            prop_assert!(first < second);
            prop_assert!(first.to_string() < second.to_string());
        }

        #[test]
        fn what_is_accepted_is_written_back_the_same(text in "re_[0-7][0-9a-z]{25}") {
            if let Ok(id) = RefundId::parse(&text) {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }
}
