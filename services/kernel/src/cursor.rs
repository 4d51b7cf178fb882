//! Opaque page tokens for keyset pagination: the sort keys of the last row of a page, bound to the
//! other arguments of the request.
//!
//! The layout is base64url without padding of: version (1 byte), the first 8 bytes of the SHA-256
//! of arguments and keys, the keys. A token for other arguments, a shortened or an altered one is
//! refused. Deliberately missing: secrecy and signatures. A token holds nothing but values that the
//! page showed, and a forged one selects a page that a filter could select as well.

use crate::text::Invalid;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

/// One sort key of the last row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    /// A text.
    Text(String),
    /// A number or a time.
    Integer(i64),
}

/// What kind of key a token must hold at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// [`Key::Text`].
    Text,
    /// [`Key::Integer`].
    Integer,
}

impl Key {
    fn kind(&self) -> KeyKind {
        match self {
            Self::Text(_) => KeyKind::Text,
            Self::Integer(_) => KeyKind::Integer,
        }
    }
}

/// The longest token that is read, in characters.
pub const TOKEN_CHARACTERS_MAX: usize = 8192;

const VERSION: u8 = 1;
const HASH_BYTES: usize = 8;

/// A token for the page after the row with `keys`. `arguments` are all other arguments of the
/// request that decide which rows come and in which order.
pub fn encode(arguments: &[&str], keys: &[Key]) -> String {
    let mut body = Vec::new();
    for key in keys {
        match key {
            Key::Text(text) => {
                body.push(b't');
                let length = u32::try_from(text.len()).expect("a sort key is far below 4 GiB");
                body.extend_from_slice(&length.to_be_bytes());
                body.extend_from_slice(text.as_bytes());
            }
            Key::Integer(value) => {
                body.push(b'i');
                body.extend_from_slice(&value.to_be_bytes());
            }
        }
    }
    let mut token = vec![VERSION];
    token.extend_from_slice(&hash(arguments, &body));
    token.extend_from_slice(&body);
    URL_SAFE_NO_PAD.encode(token)
}

/// The keys in a token that was made for the same `arguments` and holds keys of these `kinds`.
pub fn decode(token: &str, arguments: &[&str], kinds: &[KeyKind]) -> Result<Vec<Key>, Invalid> {
    if token.len() > TOKEN_CHARACTERS_MAX {
        return Err(malformed());
    }
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| malformed())?;
    let (version, rest) = bytes.split_first().ok_or_else(malformed)?;
    let (given, body) = rest.split_at_checked(HASH_BYTES).ok_or_else(malformed)?;
    if *version != VERSION {
        return Err(malformed());
    }
    if given != hash(arguments, body) {
        return Err(Invalid::new(
            "page_token",
            "belongs to a request with other arguments; repeat all of them, or start without it",
        ));
    }
    let keys = read_keys(body).ok_or_else(malformed)?;
    if keys.iter().map(Key::kind).eq(kinds.iter().copied()) {
        Ok(keys)
    } else {
        Err(malformed())
    }
}

fn malformed() -> Invalid {
    Invalid::new("page_token", "is not a token that this method gave out")
}

fn read_keys(mut body: &[u8]) -> Option<Vec<Key>> {
    let mut keys = Vec::new();
    while let Some((tag, rest)) = body.split_first() {
        match tag {
            b't' => {
                let (length, rest) = rest.split_first_chunk::<4>()?;
                let (text, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
                keys.push(Key::Text(String::from_utf8(text.to_vec()).ok()?));
                body = rest;
            }
            b'i' => {
                let (value, rest) = rest.split_first_chunk::<8>()?;
                keys.push(Key::Integer(i64::from_be_bytes(*value)));
                body = rest;
            }
            _ => return None,
        }
    }
    Some(keys)
}

fn hash(arguments: &[&str], body: &[u8]) -> [u8; HASH_BYTES] {
    let mut hasher = Sha256::new();
    for argument in arguments {
        // With the length in front, ["ab", "c"] and ["a", "bc"] differ.
        hasher.update((argument.len() as u64).to_be_bytes());
        hasher.update(argument);
    }
    hasher.update(u64::MAX.to_be_bytes()); // No argument has this length: the body begins here.
    hasher.update(body);
    let digest = hasher.finalize();
    *digest.first_chunk().expect("a SHA-256 digest has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_key() -> impl Strategy<Value = Key> {
        prop_oneof![
            any::<i64>().prop_map(Key::Integer),
            ".{0,40}".prop_map(Key::Text)
        ]
    }

    fn kinds(keys: &[Key]) -> Vec<KeyKind> {
        keys.iter().map(Key::kind).collect()
    }

    #[test]
    fn other_arguments_are_refused() {
        let keys = [Key::Integer(7), Key::Text("prd_x".into())];
        let kinds = kinds(&keys);
        let token = encode(&["category = Rock", "title"], &keys);
        assert_eq!(
            decode(&token, &["category = Rock", "title"], &kinds),
            Ok(keys.to_vec())
        );
        for other in [
            &["category = Jazz", "title"][..],
            &["category = Rocktitle", ""],
            &[],
        ] {
            let error = decode(&token, other, &kinds).unwrap_err();
            assert_eq!(error.field, "page_token");
            assert!(error.reason.contains("other arguments"), "{error}");
        }
    }

    #[test]
    fn other_key_kinds_are_refused() {
        let token = encode(&[], &[Key::Integer(7)]);
        for kinds in [
            &[][..],
            &[KeyKind::Text],
            &[KeyKind::Integer, KeyKind::Integer],
        ] {
            assert_eq!(decode(&token, &[], kinds), Err(malformed()));
        }
    }

    #[test]
    fn huge_and_foreign_tokens_are_refused() {
        for text in [
            "",
            "x",
            "AQ",
            "????",
            "eyJhIjoxfQ==",
            &"A".repeat(TOKEN_CHARACTERS_MAX + 1),
        ] {
            assert_eq!(
                decode(text, &[], &[]).unwrap_err().field,
                "page_token",
                "{text:.20}"
            );
        }
    }

    proptest! {
        #[test]
        fn keys_come_back(
            arguments in prop::collection::vec(".{0,20}", 0..4),
            keys in prop::collection::vec(any_key(), 0..4),
        ) {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            let token = encode(&arguments, &keys);
            prop_assert_eq!(decode(&token, &arguments, &kinds(&keys)), Ok(keys));
        }

        #[test]
        fn an_altered_token_is_refused(
            keys in prop::collection::vec(any_key(), 1..4), place in any::<prop::sample::Index>(),
            with in "[A-Za-z0-9_-]",
        ) {
            let token = encode(&["a"], &keys);
            let place = place.index(token.len());
            let altered = format!("{}{with}{}", &token[..place], &token[place + 1..]);
            prop_assume!(altered != token);
            prop_assert!(decode(&altered, &["a"], &kinds(&keys)).is_err());
        }

        #[test]
        fn any_text_is_read_without_panic(text in ".{0,80}") {
            let _ = decode(&text, &["a"], &[KeyKind::Integer]);
        }
    }
}
