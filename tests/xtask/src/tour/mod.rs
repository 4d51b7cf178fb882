//! `cargo xtask tour`: runs the README's commands as printed and compares what they answer.
//!
//! The format, invisible to a reader of the README:
//!
//! ````text
//! <!-- tour -->
//! ```sh
//! curl -s http://127.0.0.1:8080/v1/stock/TEA-001
//! ```
//! ```json
//! {
//!   "sku": "TEA-001",
//!   "updateTime": "…",
//!   …
//! }
//! ```
//! ````
//!
//! - The marker `<!-- tour -->`, alone on its line, makes the next fenced block one that is run; it must
//!   be a `sh` block. All of them run in order in one bash, so that variables last; each must succeed.
//! - A fenced block of any other kind that follows with only blank lines between is what the commands
//!   print to standard output. Without one the output is not compared.
//! - In it `…` stands for any text within a line, and a line with nothing but `…` for any lines.
//! - JSON may be printed on one line and shown on several: both sides are compared indented by two.
//! - The shop is a fresh `standalone --ephemeral` on a free port; the documented address,
//!   `127.0.0.1:8080` or `localhost:8080`, is replaced by its own on both sides.
//!
//! The curl lines of the shop's own ready screen are run too: each must answer something that is no
//! error. What the tour does not do: start the shop by the README's own command, which would take the
//! documented port and the data folder.

mod compare;
mod markdown;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use self::markdown::Stop;
use crate::{
    checkout,
    process::{command, plain},
    shop::Shop,
};

/// What to tour.
#[derive(clap::Args)]
pub struct Options {
    /// The document whose commands are run.
    #[arg(long, value_name = "FILE", default_value = "README.md")]
    file: PathBuf,
    /// Print what each block answers, indented as it should be shown, and compare nothing.
    #[arg(long)]
    print: bool,
}

/// Separates what one block prints from what the next one does.
const SEPARATOR: char = '\u{1e}';
const DOCUMENTED: [&str; 2] = ["127.0.0.1:8080", "localhost:8080"];
/// How many commands the ready screen promises.
const READY_COMMANDS_MIN: usize = 3;

/// Runs the tour; fails at the first difference.
pub fn run(options: &Options) -> Result<()> {
    let file = checkout::root().join(&options.file);
    let text =
        fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let stops = markdown::stops(&text)?;
    if stops.is_empty() {
        bail!(
            "{} has no block marked {}",
            options.file.display(),
            markdown::MARKER
        );
    }
    let logs = checkout::target()?.join("verify");
    fs::create_dir_all(&logs)?;
    let shop = Shop::start(&logs, "tour")?;
    let address = shop.address().to_string();
    let place = |text: &str| placed(text, &address);
    let answers = walk(&stops, place)?;
    if options.print {
        for (stop, answer) in stops.iter().zip(&answers) {
            println!(
                "# line {}\n{}\n=>\n{}\n",
                stop.line,
                stop.commands,
                compare::indented(answer)
            );
        }
        return Ok(());
    }
    let compared = compare_all(&options.file, &stops, &answers, place)?;
    println!(
        "tour: {} blocks ran, {compared} answers compared",
        stops.len()
    );
    drop(shop);
    ready_screen(&logs)
}

/// Takes the whole tour of a document against a shop at `address` (`host:port`) that has the sample catalogue and has sold
/// nothing yet.
pub(crate) fn take(file: &Path, address: &str) -> Result<()> {
    let text =
        fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let stops = markdown::stops(&text)?;
    let place = |text: &str| placed(text, address);
    let answers = walk(&stops, place)?;
    let compared = compare_all(file, &stops, &answers, place)?;
    println!(
        "tour: {} blocks ran, {compared} answers compared",
        stops.len()
    );
    Ok(())
}

/// A text with the documented address replaced.
fn placed(text: &str, address: &str) -> String {
    DOCUMENTED.iter().fold(text.to_owned(), |text, documented| {
        text.replace(documented, address)
    })
}

/// Runs all blocks in one bash and answers what each printed.
fn walk(stops: &[Stop], place: impl Fn(&str) -> String) -> Result<Vec<String>> {
    let mut script = vec!["set -e -o pipefail".to_owned()];
    for stop in stops {
        script.push(format!("printf '\\036'\n{}", place(&stop.commands)));
    }
    let output = command("bash")
        .args(["-c", &script.join("\n")])
        .stderr(Stdio::piped())
        .output()?;
    let printed = String::from_utf8(output.stdout).context("a command printed no UTF-8")?;
    let answers: Vec<_> = printed
        .split(SEPARATOR)
        .skip(1)
        .map(str::to_owned)
        .collect();
    if !output.status.success() {
        let failed = answers.len().saturating_sub(1);
        bail!(
            "the block at line {} ended with {}:\n{}\nprinted:\n{}\n{}",
            stops[failed].line,
            output.status,
            stops[failed].commands,
            answers.last().map_or("", |answer| answer.trim_end()),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    if answers.len() != stops.len() {
        bail!(
            "{} of {} blocks ran: one of them ended the shell",
            answers.len(),
            stops.len()
        );
    }
    Ok(answers)
}

/// Compares each answer with what is shown; answers how many were.
fn compare_all(
    file: &Path,
    stops: &[Stop],
    answers: &[String],
    place: impl Fn(&str) -> String,
) -> Result<usize> {
    let mut compared = 0;
    for (stop, answer) in stops.iter().zip(answers) {
        let Some(shown) = &stop.shown else { continue };
        compared += 1;
        if let Some(difference) = compare::difference(&place(shown), answer) {
            bail!(
                "{}:{} answers something else than is shown (-: shown, +: answered):\n{}\n\n{difference}",
                file.display(),
                stop.line,
                stop.commands
            );
        }
    }
    Ok(compared)
}

/// Runs the curl lines that a shop prints when it is ready, as printed.
fn ready_screen(logs: &Path) -> Result<()> {
    let shop = Shop::start(logs, "ready")?;
    let screen = plain(&shop.ready_screen()?);
    let commands: Vec<_> = screen
        .lines()
        .map(str::trim)
        .filter(|line| line.starts_with("curl "))
        .collect();
    if commands.len() < READY_COMMANDS_MIN {
        bail!(
            "the ready screen has {} curl lines, not {READY_COMMANDS_MIN}:\n{screen}",
            commands.len()
        );
    }
    for line in &commands {
        let output = command("bash").args(["-c", line]).output()?;
        let answer = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() || answer.trim().is_empty() || is_error(&answer) {
            let status = output.status;
            bail!("a curl line of the ready screen fails ({status}):\n{line}\n{answer}");
        }
    }
    println!("ready screen: {} commands work as printed", commands.len());
    Ok(())
}

/// Whether an answer is a `google.rpc.Status`, which is how the edge reports errors.
fn is_error(answer: &str) -> bool {
    let Ok(Value::Object(body)) = serde_json::from_str(answer) else {
        return false;
    };
    let status = match body.get("error") {
        Some(Value::Object(error)) => error,
        _ => &body,
    };
    status.contains_key("code") && status.contains_key("message")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = "\
# Sample

<!-- tour -->
```sh
place=127.0.0.1:8080
printf '{\"id\": \"pay_1\", \"at\": \"%s\"}' \"$place\"
```

```json
{
  \"id\": \"pay_…\",
  \"at\": \"localhost:8080\"
}
```

Some words.

<!-- tour -->
```sh
echo \"still $place\" | tr a-z A-Z
```
```text
STILL …
```
";

    fn tour(text: &str) -> Result<usize> {
        let place = |text: &str| {
            DOCUMENTED.iter().fold(text.to_owned(), |text, old| {
                text.replace(old, "127.0.0.1:9")
            })
        };
        let stops = markdown::stops(text)?;
        let answers = walk(&stops, place)?;
        compare_all(Path::new("sample.md"), &stops, &answers, place)
    }

    #[test]
    fn a_sample_is_run_and_compared() {
        assert_eq!(tour(SAMPLE).unwrap(), 2);
    }

    #[test]
    fn a_difference_is_shown_with_its_place() {
        let error = tour(&SAMPLE.replace("STILL …", "NEVER …"))
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("sample.md:19 answers something else"),
            "{error}"
        );
        assert!(error.contains("- NEVER …\n+ STILL 127.0.0.1:9"), "{error}");
    }

    #[test]
    fn a_failing_block_is_named() {
        let error = tour(&SAMPLE.replace("echo", "false; echo"))
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("the block at line 19 ended with exit status: 1"),
            "{error}"
        );
    }

    #[test]
    fn a_block_that_ends_the_shell_is_noticed() {
        let error = tour(&SAMPLE.replace("place=", "exit 0; place="))
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("1 of 2 blocks ran"), "{error}");
    }

    #[test]
    fn errors_of_the_edge_are_recognised() {
        assert!(is_error(
            r#"{"code": 5, "message": "product not found", "details": []}"#
        ));
        assert!(is_error(
            r#"{"error": {"code": 5, "message": "product not found"}}"#
        ));
        assert!(!is_error(r#"{"products": []}"#));
        assert!(!is_error("plain text"));
    }
}
