//! Who did what: a record of each change that a caller, a provider or the service itself made, in one chain of hashes.
//!
//! A record is written in the transaction of its change and waits there; one writer behind the commits (`sealer.rs`)
//! gives it the next number and the hash over its predecessor's hash and itself. The method is that of Haber and
//! Stornetta, "How to Time-Stamp a Digital Document" (Journal of Cryptology 3, 1991), with SHA-256 (FIPS 180-4). Whoever
//! changes, removes or inserts a sealed record breaks every link after it, unless all of those are made anew: against
//! that, and against a chain that is cut short, an earlier head that is kept elsewhere is compared.
//!
//! Deliberately missing: amounts, customers and payment methods (the payment has them), and refusals: what was refused
//! changed nothing. Records are kept for ever.

use sha2::{Digest as _, Sha256};
use uuid::Uuid;

/// Who acts where nobody called: the service that goes on with a payment.
pub const SERVICE: &str = "service:payment";
/// The method of whatever the service does by itself.
pub const SAGA: &str = "saga";
/// Where the chain begins.
pub const FIRST: Head = Head {
    number: 0,
    hash: [0; 32],
};
/// Keeps these hashes apart from any others of the same bytes.
const DOMAIN: &[u8] = b"commerce-mesh payment audit record v1";

/// What somebody did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its own; a UUIDv7 of the time.
    pub id: Uuid,
    /// When, in microseconds since the Unix epoch.
    pub at_us: i64,
    /// Who: the authenticated caller, `provider:NAME` for a webhook, or [`SERVICE`].
    pub principal: String,
    /// The full method path, or [`SAGA`].
    pub method: String,
    /// To what: the payment's id.
    pub object: String,
    /// What came of it in the same transaction: the payment's state, and what was begun or booked.
    pub outcome: String,
}

impl Record {
    /// A record of now.
    pub fn new(
        principal: impl Into<String>,
        method: &str,
        object: String,
        outcome: String,
        now_us: i64,
    ) -> Self {
        Self {
            id: kernel::id::uuid_at(now_us),
            at_us: now_us,
            principal: principal.into(),
            method: method.to_owned(),
            object,
            outcome,
        }
    }

    /// The hash of this record as number `number` after a hash: each field with its length, so that no two records
    /// have the same bytes.
    fn link(&self, previous: &[u8; 32], number: i64) -> [u8; 32] {
        let mut hasher = Sha256::new();
        let mut field = |bytes: &[u8]| {
            let length = u64::try_from(bytes.len()).expect("a length is below 2^64");
            hasher.update(length.to_be_bytes());
            hasher.update(bytes);
        };
        field(DOMAIN);
        field(previous);
        field(&number.to_be_bytes());
        field(self.id.as_bytes());
        field(&self.at_us.to_be_bytes());
        for text in [&self.principal, &self.method, &self.object, &self.outcome] {
            field(text.as_bytes());
        }
        hasher.finalize().into()
    }
}

/// A record with its place in the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// Its place, from 1.
    pub number: i64,
    /// The record.
    pub record: Record,
    /// Over the hash before it and itself.
    pub hash: [u8; 32],
}

/// How far a chain goes. As text: `NUMBER:HASH`, the hash in hexadecimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The last number; 0 before the first record.
    pub number: i64,
    /// The last hash.
    pub hash: [u8; 32],
}

impl Head {
    /// The next record of the chain.
    #[must_use]
    pub fn seal(&self, record: Record) -> Sealed {
        let number = self.number + 1;
        Sealed {
            number,
            hash: record.link(&self.hash, number),
            record,
        }
    }

    /// The head after a record that was read, or what is wrong with that.
    pub fn verify(&self, sealed: &Sealed) -> Result<Self, Broken> {
        let number = self.number + 1;
        if sealed.number != number {
            return Err(Broken::Missing {
                number,
                found: sealed.number,
            });
        }
        if sealed.record.link(&self.hash, number) != sealed.hash {
            return Err(Broken::Changed { number });
        }
        Ok(sealed.head())
    }
}

impl Sealed {
    /// The head of the chain that ends with it.
    pub fn head(&self) -> Head {
        Head {
            number: self.number,
            hash: self.hash,
        }
    }
}

impl std::fmt::Display for Head {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.number, hex::encode(self.hash))
    }
}

/// A text that is no head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be NUMBER:HASH, with a hash of 64 hexadecimal digits")]
pub struct NoHead;

impl std::str::FromStr for Head {
    type Err = NoHead;

    fn from_str(text: &str) -> Result<Self, NoHead> {
        let (number, digits) = text.split_once(':').ok_or(NoHead)?;
        let mut hash = [0; 32];
        hex::decode_to_slice(digits, &mut hash).map_err(|_| NoHead)?;
        let number = number.parse().map_err(|_| NoHead)?;
        Ok(Self { number, hash })
    }
}

/// What is wrong with a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// A number is not there, or is there twice.
    #[error("record {number} is missing: record {found} follows")]
    Missing {
        /// The number that should follow.
        number: i64,
        /// The one that does.
        found: i64,
    },
    /// A record or its hash is not what was sealed.
    #[error("record {number} is not what was sealed")]
    Changed {
        /// Its number.
        number: i64,
    },
    /// The chain ends before a head that it had.
    #[error("the chain ends with record {found}, but it once had record {number}")]
    Short {
        /// The last number that it had.
        number: i64,
        /// The last one that it has.
        found: i64,
    },
    /// The chain had another record under a number: it was made anew.
    #[error("record {number} has another hash than it once had: the chain was made anew")]
    Rewritten {
        /// The number.
        number: i64,
    },
}

/// Goes through a chain from its beginning, and looks whether it ever was what `known` says.
#[derive(Debug, Clone)]
pub struct Verifier {
    head: Head,
    known: Option<Head>,
}

impl Verifier {
    /// Of a chain that once had the head `known`, where one was kept.
    pub fn new(known: Option<Head>) -> Self {
        Self { head: FIRST, known }
    }

    /// How far it has come.
    pub fn head(&self) -> Head {
        self.head
    }

    /// Takes the next record.
    pub fn next(&mut self, sealed: &Sealed) -> Result<(), Broken> {
        self.head = self.head.verify(sealed)?;
        match self.known {
            Some(known) if known.number == self.head.number && known != self.head => {
                Err(Broken::Rewritten {
                    number: known.number,
                })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Nothing follows: the head of the whole chain.
    pub fn end(&self) -> Result<Head, Broken> {
        match self.known {
            Some(known) if known.number > self.head.number => Err(Broken::Short {
                number: known.number,
                found: self.head.number,
            }),
            Some(_) | None => Ok(self.head),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn chain(texts: &[[String; 4]]) -> Vec<Sealed> {
        let mut head = FIRST;
        let seal = |(at, [principal, method, object, outcome]): (usize, &[String; 4])| {
            let at_us = 1_700_000_000_000_000 + i64::try_from(at).unwrap();
            let record = Record::new(
                principal.clone(),
                method,
                object.clone(),
                outcome.clone(),
                at_us,
            );
            let sealed = head.seal(record);
            head = sealed.head();
            sealed
        };
        texts.iter().enumerate().map(seal).collect()
    }

    fn verify(chain: &[Sealed], known: Option<Head>) -> Result<Head, Broken> {
        let mut verifier = Verifier::new(known);
        chain.iter().try_for_each(|sealed| verifier.next(sealed))?;
        verifier.end()
    }

    /// A record as bytes, and back: each byte of what is stored can be reached.
    fn flip(sealed: &mut Sealed, place: usize, mask: u8) {
        let Sealed {
            number,
            record,
            hash,
        } = sealed;
        let mut numbers = [number.to_be_bytes(), record.at_us.to_be_bytes()];
        let mut id = *record.id.as_bytes();
        let texts = [
            &mut record.principal,
            &mut record.method,
            &mut record.object,
            &mut record.outcome,
        ];
        let mut texts = texts.map(|text| (text.clone().into_bytes(), text));
        let bytes = numbers
            .iter_mut()
            .flatten()
            .chain(&mut id)
            .chain(&mut *hash);
        let mut bytes: Vec<&mut u8> = bytes
            .chain(texts.iter_mut().flat_map(|(bytes, _)| bytes))
            .collect();
        let place = place % bytes.len();
        *bytes[place] ^= mask;
        for (bytes, text) in texts {
            *text = bytes.into_iter().map(char::from).collect();
        }
        *number = i64::from_be_bytes(numbers[0]);
        record.at_us = i64::from_be_bytes(numbers[1]);
        record.id = Uuid::from_bytes(id);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        /// The texts are ASCII, so that a byte is a character and a changed byte is a changed text.
        #[test]
        fn any_single_changed_byte_is_found(
            texts in prop::collection::vec(prop::array::uniform4("[ -~]{0,12}"), 1..20),
            (which, place, mask) in (any::<prop::sample::Index>(), any::<usize>(), 1_u8..),
        ) {
            let whole = chain(&texts);
            prop_assert_eq!(verify(&whole, None), Ok(whole.last().unwrap().head()));
            let mut changed = whole.clone();
            let index = which.index(whole.len());
            flip(&mut changed[index], place, mask);
            prop_assert!(changed != whole);
            let broken = verify(&changed, None).unwrap_err();
            let number = i64::try_from(index).unwrap() + 1;
            let named = matches!(broken, Broken::Changed { number: at } | Broken::Missing { number: at, .. } if at == number);
            prop_assert!(named, "{}", broken);
        }

        /// Moving bytes from one field into its neighbour changes the hash too.
        #[test]
        fn no_two_records_have_the_same_bytes(texts in prop::array::uniform4("[a-c]{1,4}")) {
            let [principal, method, object, outcome] = texts.clone();
            let moved = [principal.clone() + &method[..1], method[1..].to_owned(), object, outcome];
            let (mut one, mut other) = (chain(&[texts]), chain(&[moved]));
            other[0].record.id = one[0].record.id;
            let link = |chain: &mut Vec<Sealed>| { let sealed = chain.remove(0); FIRST.seal(sealed.record).hash };
            prop_assert_ne!(link(&mut one), link(&mut other));
        }
    }

    #[test]
    fn what_is_removed_inserted_cut_or_made_anew_is_found() {
        let texts: Vec<[String; 4]> = (0..6)
            .map(|number: u8| ["p", "m", "o", &number.to_string()].map(str::to_owned))
            .collect();
        let whole = chain(&texts);
        let known = Some(whole[4].head());
        assert_eq!(verify(&whole, known), Ok(whole[5].head()));
        let mut without = whole.clone();
        without.remove(2);
        assert_eq!(
            verify(&without, None),
            Err(Broken::Missing {
                number: 3,
                found: 4
            })
        );
        let mut with = whole.clone();
        with.insert(2, whole[1].clone());
        assert_eq!(
            verify(&with, None),
            Err(Broken::Missing {
                number: 3,
                found: 2
            })
        );
        let mut swapped = whole.clone();
        swapped.swap(1, 2);
        assert!(verify(&swapped, None).is_err());
        assert_eq!(
            verify(&whole[..3], known),
            Err(Broken::Short {
                number: 5,
                found: 3
            })
        );
        assert!(
            verify(&whole[..3], None).is_ok(),
            "which only a kept head tells"
        );
        let anew = chain(&texts); // Other ids.
        assert_eq!(verify(&anew, known), Err(Broken::Rewritten { number: 5 }));
    }

    #[test]
    fn a_head_reads_back() {
        let head = chain(&[["a", "b", "c", "d"].map(str::to_owned)])[0].head();
        assert_eq!(head.to_string().parse(), Ok(head));
        for text in ["", "1", "1:abc", "x:00", &format!("one:{}", "0".repeat(64))] {
            assert_eq!(text.parse::<Head>(), Err(NoHead), "{text}");
        }
    }
}
