//! Running other programs: with their output shown, collected, or both.
//!
//! Every command runs at the root of the checkout, without standard input.

use std::{
    env,
    ffi::{OsStr, OsString},
    io::{BufRead, BufReader, IsTerminal, Read, Write},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    thread,
};

use anyhow::{Context, Result, bail};

use crate::checkout;

/// A command at the root of the checkout.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(reachable(program.as_ref()));
    command.current_dir(checkout::root()).stdin(Stdio::null());
    command
}

/// Cargo, without what the cargo that started xtask has set for xtask's own package: build scripts
/// that watch those variables would run again.
pub fn cargo() -> Command {
    let mut cargo = command("cargo");
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            cargo.env_remove(&name);
        }
    }
    cargo
}

/// Whether a program of this name is on the PATH, or where Debian keeps servers.
pub fn installed(program: &str) -> bool {
    on_path(program.as_ref()) || for_administrators(program.as_ref()).is_file()
}

/// How a program is called: Debian leaves the folder of servers out of an ordinary user's PATH.
pub fn reachable(program: &OsStr) -> OsString {
    let server = for_administrators(program);
    if !on_path(program) && server.is_file() {
        server.into()
    } else {
        program.into()
    }
}

fn on_path(program: &OsStr) -> bool {
    env::var_os("PATH")
        .is_some_and(|path| env::split_paths(&path).any(|folder| folder.join(program).is_file()))
}

fn for_administrators(program: &OsStr) -> PathBuf {
    Path::new("/usr/sbin").join(program)
}

/// What a program writes to standard output; its errors are shown as they come.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start {}", shown(command)))?;
    if !output.status.success() {
        bail!("{} ended with {}", shown(command), output.status);
    }
    String::from_utf8(output.stdout).with_context(|| format!("{} printed no UTF-8", shown(command)))
}

/// What a program that was watched or collected has left behind.
#[derive(Debug)]
pub struct Ended {
    /// How it ended.
    pub status: ExitStatus,
    /// All it wrote, standard output and standard error line by line as they came.
    pub text: String,
}

/// Runs a program and collects both of its outputs without showing them.
pub fn collect(command: &mut Command) -> Result<Ended> {
    follow(command, |_| {})
}

/// Runs a program, shows both of its outputs as they come and collects them too.
pub fn watch(command: &mut Command) -> Result<Ended> {
    if std::io::stdout().is_terminal() {
        command.env("CARGO_TERM_COLOR", "always");
    }
    follow(command, |line| {
        let mut stdout = std::io::stdout().lock();
        // A reader of ours that has gone away is no reason to stop the program.
        let _ = stdout.write_all(line).and_then(|()| stdout.flush());
    })
}

fn follow(command: &mut Command, show: impl Fn(&[u8]) + Sync) -> Result<Ended> {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", shown(command)))?;
    let stdout = child.stdout.take().expect("standard output is piped");
    let stderr = child.stderr.take().expect("standard error is piped");
    let collected = std::sync::Mutex::new(Vec::new());
    let take = |stream: &mut dyn Read| -> std::io::Result<()> {
        let mut reader = BufReader::new(stream);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line)? > 0 {
            show(&line);
            collected
                .lock()
                .expect("no reader panics")
                .append(&mut line);
        }
        Ok(())
    };
    thread::scope(|scope| {
        let errors = scope.spawn(|| take(&mut { stderr }));
        take(&mut { stdout })?;
        errors.join().expect("no reader panics")
    })
    .with_context(|| format!("cannot read from {}", shown(command)))?;
    let status = child.wait()?;
    let text = collected.into_inner().expect("no reader panics");
    Ok(Ended {
        status,
        text: String::from_utf8_lossy(&text).into_owned(),
    })
}

/// The command as one would type it.
pub fn shown(command: &Command) -> String {
    let mut text = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        text.push(' ');
        text.push_str(&argument.to_string_lossy());
    }
    text
}

/// Text without the escape sequences that colour it.
pub fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character == '\u{1b}' {
            // CSI sequences end with a letter; nothing else colours text.
            characters.find(char::is_ascii_alphabetic);
        } else {
            plain.push(character);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_outputs_are_collected() {
        let ended = collect(command("sh").args(["-c", "echo out; echo err >&2; exit 3"])).unwrap();
        assert_eq!(ended.status.code(), Some(3));
        let mut lines: Vec<_> = ended.text.lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, ["err", "out"]);
    }

    #[test]
    fn a_failing_program_is_named() {
        let error = output(command("sh").args(["-c", "exit 7"])).unwrap_err();
        assert_eq!(error.to_string(), "sh -c exit 7 ended with exit status: 7");
        let error = output(&mut command("no-such-program-here")).unwrap_err();
        assert!(
            error.to_string().contains("no-such-program-here"),
            "{error}"
        );
    }

    #[test]
    fn colours_are_taken_out() {
        assert_eq!(
            plain("\u{1b}[32;1m2 passed\u{1b}[0m, 0 failed"),
            "2 passed, 0 failed"
        );
    }

    #[test]
    fn programs_are_looked_for_on_the_path() {
        assert!(installed("sh"));
        assert!(!installed("no-such-program-here"));
        assert_eq!(reachable("no-such".as_ref()), "no-such");
        assert_eq!(reachable("sh".as_ref()), "sh");
        let server = Path::new("/usr/sbin/ldconfig");
        if server.is_file() {
            assert!(installed("ldconfig"));
            let called = reachable("ldconfig".as_ref());
            assert_eq!(called == "ldconfig", on_path("ldconfig".as_ref()));
        }
    }
}
