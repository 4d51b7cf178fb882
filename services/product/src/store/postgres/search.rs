//! The tokens of `crate::search` in PostgreSQL's own words: a product as a `tsvector`, a query as a `tsquery`.
//!
//! Both are written out here rather than by `to_tsvector`, whose parser has a mind of its own about numbers,
//! hyphens and Korean, and whose folding depends on the locale of the server. So both databases find the same.
//!
//! A `tsvector` has limits: 16,383 places and a mebibyte. Words further back are found one by one, and not as a
//! phrase; words beyond the size are not found. Only the end of a very long description is ever there.

use std::{collections::HashMap, fmt::Write as _};

use unicode_normalization::char::{decompose_canonical, is_combining_mark};

use crate::search::{Document, Phrase, Query};

/// The last place that a word can have.
const PLACE_MAX: u16 = 16_383;
/// The most places of one word.
const PLACES_MAX: usize = 255;
/// Longer than any word of a query, so that cutting a token here changes nothing that is found.
const TOKEN_CHARACTERS_MAX: usize = 400;
/// Below the mebibyte that all words and their places may take.
const VECTOR_BYTES_MAX: usize = 1_000_000;

/// What is indexed of a product, as the text of a `tsvector`.
pub(super) fn vector(document: &Document) -> String {
    let fields = [
        (&document.title, 'A'),
        (&document.skus, 'B'),
        (&document.labels, 'C'),
        (&document.description, 'D'),
    ];
    let mut words: HashMap<String, Vec<String>> = HashMap::new();
    let (mut place, mut bytes) = (0_u16, 0);
    for (text, weight) in fields {
        for token in text
            .split(' ')
            .map(folded)
            .filter(|token| !token.is_empty())
        {
            place = place.saturating_add(1).min(PLACE_MAX);
            let cost = token.len() + 8; // Its length, its count of places, and alignment.
            let known = words.contains_key(&token);
            if bytes + cost > VECTOR_BYTES_MAX {
                continue;
            }
            bytes += if known { 2 } else { cost };
            let places = words.entry(token).or_default();
            if places.len() < PLACES_MAX {
                places.push(format!("{place}{weight}"));
            }
        }
        place = place.saturating_add(1).min(PLACE_MAX); // No phrase goes from one field into the next.
    }
    let mut vector = String::new();
    for (token, places) in words {
        write!(vector, "'{token}':{} ", places.join(",")).expect("a String takes everything");
    }
    vector
}

/// A query as the text of a `tsquery`. Empty where nothing is left of it: that finds nothing.
pub(super) fn query(query: &Query) -> String {
    let phrases: Vec<String> = query.phrases.iter().filter_map(phrase).collect();
    phrases.join(" & ")
}

fn phrase(phrase: &Phrase) -> Option<String> {
    let tokens = phrase.tokens.iter().map(|token| folded(token));
    let tokens: Vec<String> = tokens
        .filter(|token| !token.is_empty())
        .map(|token| format!("'{token}'"))
        .collect();
    let prefix = if phrase.prefix { ":*" } else { "" };
    (!tokens.is_empty()).then(|| format!("({}{prefix})", tokens.join(" <-> ")))
}

/// Without case and accents. A token has letters, digits and accents only, so there is nothing to quote.
fn folded(token: &str) -> String {
    let mut folded = String::with_capacity(token.len());
    for c in token.chars().take(TOKEN_CHARACTERS_MAX) {
        if ('\u{ac00}'..='\u{d7a3}').contains(&c) {
            folded.push(c); // A syllable is no letter with an accent.
            continue;
        }
        decompose_canonical(c, |part| {
            if !is_combining_mark(part) {
                folded.extend(part.to_lowercase().filter(|part| !is_combining_mark(*part)));
            }
        });
    }
    folded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expression(text: &str) -> String {
        query(&Query::parse(text).unwrap())
    }

    #[test]
    fn case_and_accents_do_not_matter() {
        assert_eq!(folded("Über"), "uber");
        assert_eq!(folded("İSTANBUL"), "istanbul");
        assert_eq!(folded("u\u{308}"), "u");
        assert_eq!(folded("텀블"), "텀블");
    }

    #[test]
    fn a_query_is_phrases_joined_by_and() {
        assert_eq!(expression("Big 텀블러"), "('big') & ('텀블' <-> '블러')");
        assert_eq!(expression("TRACK-1"), "('track' <-> '1':*)");
        assert_eq!(expression("a' | !b\\"), "('a') & ('b':*)");
    }

    #[test]
    fn fields_have_weights_and_do_not_touch() {
        let document = Document {
            title: "Big".into(),
            skus: "A".into(),
            labels: String::new(),
            description: "big".into(),
        };
        let vector = vector(&document);
        let mut words: Vec<&str> = vector.split_whitespace().collect();
        words.sort_unstable();
        assert_eq!(words, ["'a':3B", "'big':1A,6D"]);
    }

    #[test]
    fn the_longest_product_fits() {
        let syllables: String = ('\u{ac00}'..='\u{d7a3}').cycle().take(65_536).collect();
        let pairs: Vec<String> = syllables
            .chars()
            .zip(syllables.chars().skip(7))
            .map(|(a, b)| format!("{a}{b}"))
            .collect();
        let document = Document {
            title: "x".repeat(100_000),
            skus: String::new(),
            labels: pairs.join(" "),
            description: pairs.join(" "),
        };
        let vector = vector(&document);
        assert!(vector.contains(&"x".repeat(TOKEN_CHARACTERS_MAX)));
        assert!(!vector.contains(&"x".repeat(TOKEN_CHARACTERS_MAX + 1)));
    }
}
