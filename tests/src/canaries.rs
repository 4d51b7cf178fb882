//! Texts that must not be found anywhere, and the search for them in files, logs, events and spans.
//!
//! A search for what looks like a card number ([`crate::invariants::card_number`]) finds only what is written as one; these
//! are known texts, so that the bytes of whole files can be searched: pages that are free again and the write-ahead log
//! too. Each is looked for as it is, in groups as cards print it, in hexadecimal and in base64.
//!
//! Deliberately missing: what was compressed or encrypted. Nothing here does either.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

/// A text that must not be found.
#[derive(Debug, Clone)]
pub struct Canary {
    /// What it stands for.
    pub name: &'static str,
    /// The text.
    pub text: String,
    /// Where it may be: what the names of places begin with. Empty: nowhere.
    pub allowed: &'static [&'static str],
}

/// Something that is searched.
#[derive(Debug, Clone)]
pub struct Place {
    /// What it is called where something is found.
    pub name: String,
    /// All of it.
    pub bytes: Vec<u8>,
}

impl Place {
    /// A place in memory.
    pub fn new(name: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        let (name, bytes) = (name.into(), bytes.into());
        Self { name, bytes }
    }
}

/// Every file below a folder, named by its path from there.
pub fn files(folder: &Path) -> io::Result<Vec<Place>> {
    let mut places = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path
                .strip_prefix(folder)
                .unwrap_or(&path)
                .display()
                .to_string();
            places.push(Place::new(name, fs::read(&path)?));
        }
    }
    places.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(places)
}

/// Where which canary was found.
pub fn search(canaries: &[Canary], places: &[Place]) -> Vec<String> {
    let mut hits = Vec::new();
    for place in places {
        let text = String::from_utf8_lossy(&place.bytes);
        for canary in canaries {
            let allowed = canary
                .allowed
                .iter()
                .any(|begin| place.name.starts_with(begin));
            let found = |form: &&String| !allowed && text.contains(form.as_str());
            let forms = forms(&canary.text);
            hits.extend(
                forms
                    .iter()
                    .find(found)
                    .map(|form| format!("{}: {} as {form:?}", place.name, canary.name)),
            );
        }
    }
    hits
}

/// The ways in which a text may be written.
fn forms(text: &str) -> Vec<String> {
    let grouped = |separator: &str| {
        let digits: Vec<&str> = (0..text.len())
            .step_by(4)
            .map(|at| &text[at..text.len().min(at + 4)])
            .collect();
        digits.join(separator)
    };
    let hex = text.bytes().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").expect("a text takes everything");
        hex
    });
    let mut forms = vec![
        text.to_owned(),
        hex.to_uppercase(),
        hex,
        base64(text.as_bytes()),
    ];
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        forms.extend([grouped(" "), grouped("-")]);
    }
    forms
}

/// RFC 4648 without the last group where it is not whole: what follows a text in its place changes that one.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let groups = bytes.chunks_exact(3).flat_map(|group| {
        let bits = group
            .iter()
            .fold(0_usize, |bits, byte| bits << 8 | usize::from(*byte));
        [18, 12, 6, 0].map(|shift| char::from(ALPHABET[bits >> shift & 63]))
    });
    groups.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canary(text: &str, allowed: &'static [&'static str]) -> Canary {
        let text = text.to_owned();
        Canary {
            name: "canary",
            text,
            allowed,
        }
    }

    #[test]
    fn a_canary_is_found_however_it_is_written() {
        let card = canary("4000056655665556", &[]);
        for text in [
            "number=4000056655665556;",
            "4000 0566 5566 5556",
            "4000-0566-5566-5556",
            "x34303030303536363535363635353536x",
            "NDAwMDA1NjY1NTY2NTU1Ng==",
        ] {
            let bytes = [b"\xff\xfe".as_slice(), text.as_bytes(), b"\x00\xff"].concat();
            let hits = search(std::slice::from_ref(&card), &[Place::new("log", bytes)]);
            assert_eq!(hits.len(), 1, "{text}");
        }
        let other = Place::new("log", "4000056655665557");
        assert_eq!(search(&[card], &[other]), Vec::<String>::new());
    }

    #[test]
    fn a_canary_is_no_hit_where_it_may_be() {
        let token = canary("pm_canary", &["payment.db"]);
        let places = ["payment.db-wal", "product.db"].map(|name| Place::new(name, "pm_canary"));
        let hits = search(&[token], &places);
        assert_eq!(hits, ["product.db: canary as \"pm_canary\""]);
    }

    #[test]
    fn files_are_found_in_every_folder() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("below")).unwrap();
        fs::write(folder.path().join("below/a"), "A").unwrap();
        fs::write(folder.path().join("b"), "B").unwrap();
        let found = files(folder.path()).unwrap();
        let names: Vec<&str> = found.iter().map(|place| &*place.name).collect();
        assert_eq!(names, ["b", "below/a"]);
    }
}
