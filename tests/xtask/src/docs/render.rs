//! The page: one table for each program.

use std::fmt::Write;

use super::Binary;

const INTRODUCTION: &str = "\
# Configuration

Made by `cargo xtask docs` from the doc comments of the configuration structs; do not edit.

Every program takes its keys from a TOML file (`--config FILE`), then from the environment, then from
its flags; the last one wins. `--check-config` reads them and ends, `--print-config` prints all of them
with secrets masked, `--help` lists the flags. A key with a dot lies in a table: `mesh.client.waiting_max`
is `waiting_max` below `[mesh.client]`.
";

/// The page for these programs.
pub(super) fn markdown(binaries: &[Binary]) -> String {
    let mut page = INTRODUCTION.to_owned();
    for binary in binaries {
        let row = |page: &mut String, cells: [&str; 5]| {
            let cells = cells.map(|cell| cell.replace('|', "\\|"));
            writeln!(page, "| {} |", cells.join(" | ")).expect("a String takes any text");
        };
        writeln!(page, "\n## {}\n", binary.name).expect("a String takes any text");
        row(
            &mut page,
            ["key", "type", "default", "environment variable", "meaning"],
        );
        row(&mut page, ["---"; 5]);
        for key in &binary.keys {
            let default = if key.default.is_empty() {
                String::new()
            } else {
                format!("`{}`", key.default)
            };
            let (name, variable) = (format!("`{}`", key.name), format!("`{}`", key.variable));
            row(
                &mut page,
                [&name, &key.kind, &default, &variable, &key.meaning],
            );
        }
    }
    page
}
