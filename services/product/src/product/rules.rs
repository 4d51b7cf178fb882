//! The limits of a product's fields, and the checks of single values: the same for a call, which names
//! fields, and for a file, which names columns.
//!
//! No text may hold what seems to be a payment card's number: the catalogue is public. Numbers of goods may.

use std::collections::HashSet;

use kernel::{Invalid, ProductId, text};

/// The longest title, vendor, category, tag, handle, option name and option value, in characters.
pub const NAME_CHARACTERS_MAX: usize = 255;
/// The longest description, in characters.
pub const DESCRIPTION_CHARACTERS_MAX: usize = 65_536;
/// The longest barcode, in characters.
pub const BARCODE_CHARACTERS_MAX: usize = 64;
/// The most tags of a product.
pub const TAGS_MAX: usize = 250;
/// The most variants of a product.
pub const VARIANTS_MAX: usize = 100;
/// The most options of a variant.
pub const OPTIONS_MAX: usize = 3;
/// The most prices of a variant.
pub const PRICES_MAX: usize = 20;
/// The largest weight, in grams.
pub const WEIGHT_GRAMS_MAX: i32 = 1_000_000_000;
/// The largest stock that a variant can start with.
pub const INITIAL_QUANTITY_MAX: i32 = 1_000_000_000;
/// How many numbered handles are tried before one made of the id is taken.
const NUMBERED_HANDLES_MAX: u32 = 9;

/// A title, or another name that must be there.
pub fn check_title(field: &str, value: &str) -> Result<(), Invalid> {
    text::bounded(field, value, 1, NAME_CHARACTERS_MAX)?;
    if value.trim().is_empty() {
        return Err(Invalid::new(field, "must not consist of blanks"));
    }
    text::refuse_card_number(field, value)
}

/// A description in HTML.
pub fn check_description(field: &str, value: &str) -> Result<(), Invalid> {
    text::bounded_lines(field, value, 0, DESCRIPTION_CHARACTERS_MAX)?;
    text::refuse_card_number(field, value)
}

/// A name that may be left out.
pub fn check_name(field: &str, value: &str) -> Result<(), Invalid> {
    text::bounded(field, value, 0, NAME_CHARACTERS_MAX)?;
    text::refuse_card_number(field, value)
}

/// A stock keeping unit ([`text::sku`]); often it is the number of the goods.
pub fn check_sku(field: &str, value: &str) -> Result<(), Invalid> {
    text::sku(field, value)?;
    refuse_card_number_but_gtin(field, value)
}

/// A barcode, or none.
pub fn check_barcode(field: &str, value: &str) -> Result<(), Invalid> {
    text::bounded(field, value, 0, BARCODE_CHARACTERS_MAX)?;
    refuse_card_number_but_gtin(field, value)
}

fn refuse_card_number_but_gtin(field: &str, value: &str) -> Result<(), Invalid> {
    if is_gtin(value) {
        return Ok(());
    }
    text::refuse_card_number(field, value)
}

/// Whether it is a number of goods as long as a card's, GTIN-13 (EAN) or GTIN-14, by its check digit: the digits from the
/// right, weighted 1 and 3 in turn, add up to a multiple of ten (GS1 General Specifications, section 7.9).
fn is_gtin(value: &str) -> bool {
    let digits: Option<Vec<u32>> = value.chars().map(|c| c.to_digit(10)).collect();
    digits.is_some_and(|digits| {
        let weighted = digits.iter().rev().zip([1, 3].iter().cycle());
        matches!(digits.len(), 13 | 14)
            && weighted.map(|(digit, weight)| digit * weight).sum::<u32>() % 10 == 0
    })
}

/// A weight in grams.
pub fn check_weight(field: &str, weight_grams: i32) -> Result<(), Invalid> {
    if (0..=WEIGHT_GRAMS_MAX).contains(&weight_grams) {
        return Ok(());
    }
    Err(Invalid::new(
        field,
        format!("must be 0 to {WEIGHT_GRAMS_MAX}"),
    ))
}

/// What a new variant's stock starts with.
pub fn check_initial_quantity(field: &str, quantity: i32) -> Result<(), Invalid> {
    if (0..=INITIAL_QUANTITY_MAX).contains(&quantity) {
        return Ok(());
    }
    Err(Invalid::new(
        field,
        format!("must be 0 to {INITIAL_QUANTITY_MAX}"),
    ))
}

/// The tags of a product; a fault in one is reported with its index.
pub fn check_tags(field: &str, tags: &[String]) -> Result<(), Invalid> {
    if tags.len() > TAGS_MAX {
        return Err(Invalid::new(
            field,
            format!("must be at most {TAGS_MAX} tags"),
        ));
    }
    let mut seen = HashSet::new();
    for (index, tag) in tags.iter().enumerate() {
        let at = format!("{field}[{index}]");
        check_title(&at, tag)?;
        if tag.contains(',') {
            return Err(Invalid::new(at, "must not contain a comma"));
        }
        if tag.trim() != tag {
            return Err(Invalid::new(at, "must not begin or end with a blank"));
        }
        if !seen.insert(tag) {
            return Err(Invalid::new(at, "is there twice"));
        }
    }
    Ok(())
}

/// A name for URLs: lower-case letters of any script, digits and hyphens.
pub fn check_handle(field: &str, value: &str) -> Result<(), Invalid> {
    text::bounded(field, value, 1, NAME_CHARACTERS_MAX)?;
    if value.chars().all(in_handle) {
        return text::refuse_card_number(field, value);
    }
    Err(Invalid::new(
        field,
        "may only contain lower-case letters, digits and hyphens",
    ))
}

fn in_handle(c: char) -> bool {
    c == '-' || c.is_alphanumeric() && !c.is_uppercase()
}

/// The handles to try, in this order, for a product that was given none: its title in handle
/// spelling, the same with a number, and at last one with its id, which nobody else has.
pub fn handles(title: &str, id: ProductId) -> impl Iterator<Item = String> {
    let mut base = String::new();
    for c in title.chars().flat_map(char::to_lowercase) {
        if in_handle(c) && c != '-' {
            base.push(c);
        } else if !base.is_empty() && !base.ends_with('-') {
            base.push('-');
        }
    }
    // Leaves room for the longest thing that is appended.
    let base: String = base.chars().take(NAME_CHARACTERS_MAX - 40).collect();
    let base = base.trim_end_matches('-').to_owned();
    let base = if base.is_empty() {
        "product".to_owned()
    } else {
        base
    };
    let last = format!("{base}-{}", id.to_string().replace('_', "-"));
    let numbered = (2..=NUMBERED_HANDLES_MAX).map({
        let base = base.clone();
        move |number| format!("{base}-{number}")
    });
    std::iter::once(base)
        .chain(numbered)
        .chain(std::iter::once(last))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A card of 16 digits, and one of 13 whose last digit is no check digit of an EAN.
    const CARDS: [&str; 2] = ["4000056655665556", "4222222222222"];

    #[test]
    fn no_text_holds_a_card_number() {
        for check in [
            check_title,
            check_description,
            check_name,
            check_handle,
            check_sku,
            check_barcode,
        ] {
            for card in CARDS {
                let refused = check("product.text", card).unwrap_err().to_string();
                assert!(refused.starts_with("product.text: "), "{refused}");
                assert!(!refused.contains(card), "{refused}");
            }
        }
        let tags = ["tea".to_owned(), CARDS[0].to_owned()];
        let refused = check_tags("tags", &tags).unwrap_err().to_string();
        assert!(refused.starts_with("tags[1]: "), "{refused}");
    }

    #[test]
    fn a_number_of_goods_is_none() {
        // The first has the check digit of a card too.
        for gtin in ["4006381333924", "4006381333931", "04006381333931"] {
            assert!(is_gtin(gtin), "{gtin}");
            assert_eq!(check_sku("sku", gtin), Ok(()));
            assert_eq!(check_barcode("barcode", gtin), Ok(()));
        }
        assert!(!is_gtin("4006381333930") && !is_gtin("40063813339x1") && !is_gtin(""));
    }
}
