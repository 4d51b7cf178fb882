//! What is indexed of a product, and what a query means.
//!
//! Both are turned into the same tokens. Words of most scripts are left to the index's own tokenizer,
//! which folds case and accents. Korean runs are written as overlapping pairs of syllables and the
//! last syllable alone (`텀블러` -> `텀블 블러 러`), so that a query finds its syllables inside words
//! as a phrase, and also a single syllable by its prefix. Trigram indexes find nothing of two
//! syllables, which is what most Korean words have.
//!
//! Deliberately missing: stemming, synonyms, spelling correction.

use kernel::{Invalid, text};

use crate::product::Product;

/// The longest query, in characters.
pub const QUERY_CHARACTERS_MAX: usize = 200;
/// The most words of a query.
pub const WORDS_MAX: usize = 10;

/// What is indexed of a product, field by field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// From the title.
    pub title: String,
    /// From the SKUs.
    pub skus: String,
    /// From vendor, category and tags.
    pub labels: String,
    /// From the description, without markup.
    pub description: String,
}

impl Document {
    /// The document of a product.
    pub fn of(product: &Product) -> Self {
        let skus: Vec<&str> = product
            .variants
            .iter()
            .map(|variant| variant.sku.as_str())
            .collect();
        let mut labels = vec![product.vendor.as_str(), product.category.as_str()];
        labels.extend(product.tags.iter().map(String::as_str));
        Self {
            title: index_text(&product.title),
            skus: index_text(&skus.join(" | ")),
            labels: index_text(&labels.join(" | ")),
            description: index_text(&without_markup(&product.description_html)),
        }
    }
}

/// A query: a product is found that has all the phrases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// At least one.
    pub phrases: Vec<Phrase>,
}

/// Tokens that stand one after another. They hold letters and digits only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Phrase {
    /// At least one.
    pub tokens: Vec<String>,
    /// Whether the last one may go on.
    pub prefix: bool,
}

impl Query {
    /// Reads a query of one to ten words.
    pub fn parse(query: &str) -> Result<Self, Invalid> {
        text::bounded("query", query, 1, QUERY_CHARACTERS_MAX)?;
        let composed = compose(query);
        let words: Vec<Vec<Run>> = composed
            .split_whitespace()
            .map(runs)
            .filter(|word| !word.is_empty())
            .collect();
        if words.is_empty() {
            return Err(Invalid::new(
                "query",
                "must hold at least one letter or digit",
            ));
        }
        if words.len() > WORDS_MAX {
            return Err(Invalid::new(
                "query",
                format!("must have at most {WORDS_MAX} words"),
            ));
        }
        let last = words.len() - 1;
        let phrases = words
            .iter()
            .enumerate()
            .map(|(index, word)| phrase(word, index == last))
            .collect();
        Ok(Self { phrases })
    }
}

/// Letters and digits that stand together and are of one kind.
#[derive(Debug, PartialEq, Eq)]
enum Run {
    Hangul(Vec<char>),
    Other(String),
}

fn phrase(word: &[Run], last: bool) -> Phrase {
    let mut tokens = Vec::new();
    let mut prefix = last;
    for (index, run) in word.iter().enumerate() {
        let ends = index + 1 == word.len();
        match run {
            Run::Other(text) => tokens.push(text.clone()),
            Run::Hangul(syllables) if ends && syllables.len() == 1 => {
                prefix = true; // Anywhere in a word: a pair begins with it, or it stands last.
                tokens.extend(syllables.iter().map(char::to_string));
            }
            Run::Hangul(syllables) => {
                let mut pairs = grams(syllables);
                if ends {
                    pairs.pop(); // The word may go on.
                    prefix = false;
                }
                tokens.append(&mut pairs);
            }
        }
    }
    Phrase { tokens, prefix }
}

/// The tokens of a text, in its order.
fn index_text(text: &str) -> String {
    let mut tokens = Vec::new();
    for run in runs(&compose(text)) {
        match run {
            Run::Other(text) => tokens.push(text),
            Run::Hangul(syllables) => tokens.append(&mut grams(&syllables)),
        }
    }
    tokens.join(" ")
}

/// Overlapping pairs, then the last syllable.
fn grams(syllables: &[char]) -> Vec<String> {
    let mut grams: Vec<String> = syllables
        .windows(2)
        .map(|pair| pair.iter().collect())
        .collect();
    grams.extend(syllables.last().map(char::to_string));
    grams
}

fn runs(text: &str) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    let mut together = false;
    for c in text.chars() {
        let hangul = ('\u{ac00}'..='\u{d7a3}').contains(&c);
        match runs.last_mut() {
            Some(Run::Hangul(syllables)) if together && hangul => syllables.push(c),
            Some(Run::Other(text)) if together && !hangul && is_word(c) => text.push(c),
            _ if hangul => runs.push(Run::Hangul(vec![c])),
            _ if is_word(c) => runs.push(Run::Other(c.to_string())),
            _ => {}
        }
        together = hangul || is_word(c);
    }
    runs
}

/// Letters, digits, and the accents that stand for themselves in decomposed text.
fn is_word(c: char) -> bool {
    c.is_alphanumeric() || ('\u{300}'..='\u{36f}').contains(&c)
}

/// Joins Hangul letters to syllables (Unicode Standard, 3.12, "Hangul Syllable Composition"): some
/// file systems and keyboards hand them out one by one.
fn compose(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match out
            .chars()
            .next_back()
            .and_then(|before| compose_pair(before, c))
        {
            Some(syllable) => {
                out.pop();
                out.push(syllable);
            }
            None => out.push(c),
        }
    }
    out
}

fn compose_pair(before: char, c: char) -> Option<char> {
    let (before, c) = (u32::from(before), u32::from(c));
    match (before, c) {
        (0x1100..=0x1112, 0x1161..=0x1175) => {
            char::from_u32(0xac00 + ((before - 0x1100) * 21 + (c - 0x1161)) * 28)
        }
        (0xac00..=0xd7a3, 0x11a8..=0x11c2) if (before - 0xac00).is_multiple_of(28) => {
            char::from_u32(before + (c - 0x11a7))
        }
        _ => None,
    }
}

/// The text of HTML: a tag becomes a blank. Entities stay; they are no words to search for.
fn without_markup(html: &str) -> String {
    let mut text = String::with_capacity(html.len());
    let mut in_tag = false;
    for c in html.chars() {
        match c {
            '<' => in_tag = true,
            '>' if in_tag => {
                in_tag = false;
                text.push(' ');
            }
            _ if !in_tag => text.push(c),
            _ => {}
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The phrases of a query, joined by commas.
    fn expression(query: &str) -> String {
        let shown = |phrase: &Phrase| {
            let star = if phrase.prefix { "*" } else { "" };
            format!("{}{star}", phrase.tokens.join(" "))
        };
        let query = Query::parse(query).unwrap();
        let phrases: Vec<String> = query.phrases.iter().map(shown).collect();
        phrases.join(", ")
    }

    #[test]
    fn korean_becomes_pairs_and_the_last_syllable() {
        assert_eq!(
            index_text("텀블러 USB케이블"),
            "텀블 블러 러 USB 케이 이블 블"
        );
        assert_eq!(expression("텀블러"), "텀블 블러");
        assert_eq!(expression("컵"), "컵*");
        assert_eq!(expression("usb케이블"), "usb 케이 이블");
        assert_eq!(expression("이블c"), "이블 블 c*");
    }

    #[test]
    fn decomposed_korean_is_composed() {
        let decomposed = "\u{1110}\u{1165}\u{11b7}\u{1107}\u{1173}\u{11af}"; // 텀블
        assert_eq!(compose(decomposed), "텀블");
    }

    #[test]
    fn the_last_word_may_be_a_prefix() {
        assert_eq!(expression("big roc"), "big, roc*");
        assert_eq!(expression("TRACK-00001"), "TRACK 00001*");
    }

    #[test]
    fn operators_of_the_index_are_words_like_any_other() {
        assert_eq!(expression("a\" OR b*"), "a, OR, b*");
        assert_eq!(expression("NEAR(x) title:y"), "NEAR x, title y*");
    }

    #[test]
    fn queries_without_words_or_with_too_many_are_refused() {
        for query in ["", "  ", "!?", &"a ".repeat(11), &"a".repeat(201), "a\0"] {
            assert_eq!(Query::parse(query).unwrap_err().field, "query", "{query:?}");
        }
    }

    #[test]
    fn markup_is_not_indexed() {
        assert_eq!(
            without_markup("<p class=\"x\">a<br>b</p> 1 > 0"),
            " a b  1 > 0"
        );
    }

    proptest! {
        #[test]
        fn a_token_holds_nothing_that_an_index_could_read_as_an_operator(query in ".{1,60}") {
            for phrase in Query::parse(&query).map(|query| query.phrases).unwrap_or_default() {
                prop_assert!(!phrase.tokens.is_empty());
                for token in phrase.tokens {
                    prop_assert!(!token.is_empty() && token.chars().all(is_word), "{token:?}");
                }
            }
        }

        #[test]
        fn any_part_of_a_korean_word_matches_its_index(word in "[가-힣]{2,8}", from in 0usize..8, len in 2usize..8) {
            let syllables: Vec<char> = word.chars().collect();
            let from = from % (syllables.len() - 1);
            let part: String = syllables[from..].iter().take(len.max(2)).collect();
            let tokens = format!(" {} ", index_text(&word));
            let phrase = &Query::parse(&part).unwrap().phrases[0];
            let needle = format!(" {} ", phrase.tokens.join(" "));
            prop_assert!(tokens.contains(&needle), "{tokens:?} {needle:?}");
        }
    }
}
