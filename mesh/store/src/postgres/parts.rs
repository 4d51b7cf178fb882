//! Statements that write to many tables and are sent without the parts that have nothing to write: the server
//! prepares every table that a statement names each time it is run, whether or not there is a row for it.

/// The statement without its comments and without the parts that are not wanted. A part begins with a line
/// `--? name` and ends where the next begins; `--? always` begins what every form has.
///
/// The same parts make the same text, which a connection prepares once.
pub fn with_parts(statement: &str, wanted: impl Fn(&str) -> bool) -> String {
    let mut text = String::with_capacity(statement.len());
    let mut included = true;
    for line in statement.lines().map(str::trim_start) {
        match line.strip_prefix("--? ") {
            Some("always") => included = true,
            Some(part) => included = wanted(part),
            None if included && !line.starts_with("--") => {
                text.push_str(line);
                text.push('\n');
            }
            None => {}
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_without_rows_are_left_out() {
        let statement = "-- Why.\nWITH a AS (SELECT 1)\n--? b\n, b AS (SELECT 2)\n--? c\n  , c AS (SELECT 3)\n\
            --? always\nSELECT 4";
        let only = |wanted: &'static str| with_parts(statement, move |part| part == wanted);
        assert_eq!(
            only("b"),
            "WITH a AS (SELECT 1)\n, b AS (SELECT 2)\nSELECT 4\n"
        );
        assert_eq!(
            only("c"),
            "WITH a AS (SELECT 1)\n, c AS (SELECT 3)\nSELECT 4\n"
        );
        assert_eq!(only(""), "WITH a AS (SELECT 1)\nSELECT 4\n");
    }
}
