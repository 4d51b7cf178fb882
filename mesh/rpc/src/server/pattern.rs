//! How rules name methods and callers: a whole name, or its beginning and a `*`.

/// Whether one of the patterns fits. No pattern: none does.
pub(crate) fn any_matches(patterns: &[String], text: &str) -> bool {
    patterns
        .iter()
        .any(|pattern| match pattern.strip_suffix('*') {
            Some(beginning) => text.starts_with(beginning),
            None => pattern == text,
        })
}

/// The reason why a list of patterns cannot work.
pub(crate) fn refusal(patterns: &[String]) -> Option<&'static str> {
    if patterns.is_empty() {
        return Some("must name something; \"*\" is everything");
    }
    let inner = |pattern: &String| pattern.strip_suffix('*').unwrap_or(pattern).contains('*');
    let wrong = patterns
        .iter()
        .any(|pattern| pattern.is_empty() || inner(pattern));
    wrong.then_some("may have a \"*\" only at the end of a pattern, and no empty pattern")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(patterns: &[&str]) -> Vec<String> {
        patterns.iter().map(|&pattern| pattern.to_owned()).collect()
    }

    #[test]
    fn a_pattern_is_a_name_or_a_beginning() {
        let patterns = list(&["/a.B/C", "/a.D/*"]);
        for (text, fits) in [("/a.B/C", true), ("/a.B/CC", false), ("/a.D/X", true)] {
            assert_eq!(any_matches(&patterns, text), fits, "{text}");
        }
        assert!(any_matches(&list(&["*"]), ""));
    }

    #[test]
    fn what_would_never_fit_is_refused() {
        assert_eq!(refusal(&list(&["*", "/a.B/*", "shop"])), None);
        for wrong in [&[][..], &[""], &["*a"], &["a", "b*c*"]] {
            assert!(refusal(&list(wrong)).is_some(), "{wrong:?}");
        }
    }
}
