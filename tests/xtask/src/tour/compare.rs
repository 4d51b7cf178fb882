//! Compares what was printed with what is shown, where `…` stands for anything.

use serde_json::{Deserializer, Value};

const WILDCARD: char = '…';

/// The difference as lines with ` `, `-` (shown only) or `+` (printed only) in front, or nothing.
pub(super) fn difference(shown: &str, printed: &str) -> Option<String> {
    let (shown, printed) = (indented(shown), indented(printed));
    let shown: Vec<_> = shown.lines().collect();
    let printed: Vec<_> = printed.lines().collect();
    let costs = costs(&shown, &printed);
    (costs[0][0] > 0).then(|| trace(&shown, &printed, &costs))
}

/// Text with the JSON in it indented by two: all of it, or what follows the headers of a response.
/// Other text only loses blanks at the ends of lines and blank lines at its end.
pub(super) fn indented(text: &str) -> String {
    let lines: Vec<_> = text.trim_end().lines().map(str::trim_end).collect();
    let start = lines
        .iter()
        .position(|line| line.starts_with(['{', '[']))
        .unwrap_or(lines.len());
    let values: Result<Vec<Value>, _> = Deserializer::from_str(&lines[start..].join("\n"))
        .into_iter()
        .collect();
    let Ok(values) = values else {
        return lines.join("\n");
    };
    let values = values.iter().map(|value| format!("{value:#}"));
    lines[..start]
        .iter()
        .map(|&line| line.to_owned())
        .chain(values)
        .collect::<Vec<_>>()
        .join("\n")
}

/// `costs[i][j]`: how many lines must go from `shown[i..]` and `printed[j..]` until they agree.
fn costs(shown: &[&str], printed: &[&str]) -> Vec<Vec<usize>> {
    let mut costs = vec![vec![0; printed.len() + 1]; shown.len() + 1];
    for i in (0..=shown.len()).rev() {
        for j in (0..=printed.len()).rev() {
            costs[i][j] = match (shown.get(i), printed.get(j)) {
                (None, _) => printed.len() - j,
                (Some(&line), _) if skips(line) => {
                    let here = costs[i + 1][j];
                    if j < printed.len() {
                        here.min(costs[i][j + 1])
                    } else {
                        here
                    }
                }
                (Some(_), None) => 1 + costs[i + 1][j],
                (Some(line), Some(other)) if agree(line, other) => costs[i + 1][j + 1],
                (Some(_), Some(_)) => 1 + costs[i + 1][j].min(costs[i][j + 1]),
            };
        }
    }
    costs
}

/// Walks the cheapest way through `costs` and writes down each step.
fn trace(shown: &[&str], printed: &[&str], costs: &[Vec<usize>]) -> String {
    let (mut i, mut j) = (0, 0);
    let mut lines = Vec::new();
    while i < shown.len() || j < printed.len() {
        match (shown.get(i), printed.get(j)) {
            (Some(&line), _) if skips(line) && costs[i][j] == costs[i + 1][j] => {
                lines.push(format!("  {line}"));
                i += 1;
            }
            (Some(&line), Some(_)) if skips(line) => j += 1,
            (Some(line), Some(other)) if agree(line, other) => {
                lines.push(format!("  {other}"));
                (i, j) = (i + 1, j + 1);
            }
            (Some(line), _) if costs[i][j] == 1 + costs[i + 1][j] => {
                lines.push(format!("- {line}"));
                i += 1;
            }
            (_, other) => {
                lines.push(format!("+ {}", other.expect("one of both has lines left")));
                j += 1;
            }
        }
    }
    lines.join("\n")
}

/// Whether a line stands for any number of lines.
fn skips(line: &str) -> bool {
    let mut rest = line.trim().chars();
    rest.next() == Some(WILDCARD) && rest.next().is_none()
}

/// Whether a line that may hold wildcards agrees with one that was printed. A comma at the end is left
/// out: whether JSON has one depends on what follows, which may be skipped.
fn agree(shown: &str, printed: &str) -> bool {
    let shown = shown.strip_suffix(',').unwrap_or(shown);
    let mut rest = printed.strip_suffix(',').unwrap_or(printed);
    let parts: Vec<_> = shown.split(WILDCARD).collect();
    let [first, middle @ .., last] = parts.as_slice() else {
        return shown == rest;
    };
    let Some(after) = rest.strip_prefix(first) else {
        return false;
    };
    rest = after;
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_stand_for_any_text_in_a_line() {
        assert!(agree("id pay_… at … ok", "id pay_1 at 10:00 ok"));
        assert!(agree("…", ""));
        assert!(!agree("id pay_…x", "id pay_1"));
        assert!(!agree("id pay_1", "id pay_12"));
        assert!(!agree("a…b…c", "a c"));
        assert!(!agree("aa…aa", "aaa"));
    }

    #[test]
    fn a_line_of_a_wildcard_stands_for_any_lines() {
        assert_eq!(difference("a\n…\nd", "a\nb\nc\nd"), None);
        assert_eq!(difference("a\n…\nd", "a\nd"), None);
        assert_eq!(difference("…", ""), None);
        assert_eq!(difference("a\n…\nd", "a\nb\nc").unwrap(), "  a\n  …\n- d");
    }

    #[test]
    fn what_is_missing_and_what_is_too_much_is_marked() {
        assert_eq!(
            difference("a\nb\nc", "a\nx\nc").unwrap(),
            "  a\n- b\n+ x\n  c"
        );
        assert_eq!(difference("a", "a\nb").unwrap(), "  a\n+ b");
        assert_eq!(difference("a\nb", "a").unwrap(), "  a\n- b");
    }

    #[test]
    fn json_is_compared_however_it_is_printed() {
        let shown = "{\n  \"id\": \"pay_…\",\n  \"amount\": {\n    …\n  },\n  …\n}";
        let printed = r#"{"id":"pay_1","amount":{"currencyCode":"USD","amountMinor":"199"},"n":1}"#;
        assert_eq!(difference(shown, printed), None);
        assert!(difference(shown, &printed.replace("amount\":{", "sum\":{")).is_some());
        assert!(difference("{\"n\": 1}", "{\"n\":2}").is_some());
    }

    #[test]
    fn headers_before_json_stay_as_they_are() {
        let printed = "HTTP/1.1 200 OK\r\na: b\r\n\r\n{\"n\":1}";
        assert_eq!(
            indented(printed),
            "HTTP/1.1 200 OK\na: b\n\n{\n  \"n\": 1\n}"
        );
    }

    #[test]
    fn several_json_values_follow_each_other() {
        assert_eq!(
            indented("{\"n\":1}{\"n\":2}\n"),
            "{\n  \"n\": 1\n}\n{\n  \"n\": 2\n}"
        );
        assert_eq!(indented("[not json"), "[not json");
    }
}
