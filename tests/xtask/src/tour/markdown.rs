//! Finds the blocks of a Markdown document that the tour runs, and what they are said to print.

use anyhow::{Result, bail};

/// Marks the next fenced block as one that is run.
pub(super) const MARKER: &str = "<!-- tour -->";

/// A block that is run.
#[derive(Debug, PartialEq)]
pub(super) struct Stop {
    /// The line on which its fence opens, from 1.
    pub(super) line: usize,
    /// What is run.
    pub(super) commands: String,
    /// What it is said to print, if anything is.
    pub(super) shown: Option<String>,
}

/// All blocks that are run, in order.
pub(super) fn stops(text: &str) -> Result<Vec<Stop>> {
    let mut stops: Vec<Stop> = Vec::new();
    let mut marked = false;
    // Whether only blank lines stand between here and the end of a block that is run.
    let mut follows = false;
    let mut lines = text
        .lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line));
    while let Some((number, line)) = lines.next() {
        let ticks = line.len() - line.trim_start_matches('`').len();
        if ticks >= 3 {
            let kind = line[ticks..].trim();
            let content = block(&mut lines, &line[..ticks], number)?;
            if marked && kind != "sh" {
                bail!(
                    "line {number}: {MARKER} must be followed by a block of kind sh, not {kind:?}"
                );
            } else if marked {
                stops.push(Stop {
                    line: number,
                    commands: content,
                    shown: None,
                });
            } else if let (true, Some(stop)) = (follows && kind != "sh", stops.last_mut()) {
                stop.shown = Some(content);
            }
            follows = marked;
            marked = false;
        } else if line.trim() == MARKER {
            if marked {
                bail!("line {number}: {MARKER} follows another one without a block");
            }
            marked = true;
        } else if !line.trim().is_empty() {
            follows = false;
        }
    }
    if marked {
        bail!("the last {MARKER} is followed by no block");
    }
    Ok(stops)
}

fn block<'a>(
    lines: &mut impl Iterator<Item = (usize, &'a str)>,
    fence: &str,
    opened: usize,
) -> Result<String> {
    let mut content = Vec::new();
    for (_, line) in lines {
        if line.trim_end() == fence {
            return Ok(content.join("\n"));
        }
        content.push(line);
    }
    bail!("line {opened}: the block has no end")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_marked_blocks_are_run() {
        let text = "```sh\nrm -r x\n```\n<!-- tour -->\n\n```sh\na\nb\n```\n";
        let expected = [Stop {
            line: 6,
            commands: "a\nb".to_owned(),
            shown: None,
        }];
        assert_eq!(stops(text).unwrap(), expected);
    }

    #[test]
    fn words_between_keep_a_block_from_being_the_answer() {
        let run = "<!-- tour -->\n```sh\na\n```\n";
        let shown = |between: &str| {
            let text = format!("{run}{between}```json\n{{}}\n```\n");
            stops(&text).unwrap().remove(0).shown
        };
        assert_eq!(shown("\n\n"), Some("{}".to_owned()));
        assert_eq!(shown("\nFor example:\n"), None);
    }

    #[test]
    fn a_block_in_a_longer_fence_is_text() {
        let text = "````text\n<!-- tour -->\n```sh\na\n```\n````\n";
        assert_eq!(stops(text).unwrap(), []);
    }

    #[test]
    fn misplaced_markers_and_open_blocks_are_refused() {
        for text in [
            "<!-- tour -->\n",
            "<!-- tour -->\n<!-- tour -->\n```sh\n```\n",
            "<!-- tour -->\n```json\n{}\n```\n",
            "```sh\na\n",
        ] {
            assert!(stops(text).is_err(), "{text}");
        }
    }
}
