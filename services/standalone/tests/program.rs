//! The program: what it prints, how it refuses, how it ends.
#![expect(clippy::unwrap_used, reason = "a test")]

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_standalone"));
    command
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Started on ports that are free, in a folder.
fn start(folder: &Path, more: &[&str]) -> Child {
    let folder = folder.to_str().unwrap();
    let ports = [
        "--listen",
        "127.0.0.1:0",
        "--admin-listen",
        "127.0.0.1:0",
        "--data-dir",
        folder,
    ];
    program(&[&ports[..], more].concat()).spawn().unwrap()
}

/// The ready screen, up to its last line.
fn ready(child: &mut Child) -> Vec<String> {
    let stdout = BufReader::new(child.stdout.as_mut().unwrap());
    let mut screen = Vec::new();
    for line in stdout.lines() {
        screen.push(line.unwrap());
        if screen.last().is_some_and(|line| line.starts_with("Ctrl-C")) {
            return screen;
        }
    }
    let mut errors = String::new();
    child
        .stderr
        .as_mut()
        .unwrap()
        .read_to_string(&mut errors)
        .unwrap();
    panic!("not ready: {screen:?} {errors}");
}

fn signal(child: Child, name: &str) -> Output {
    let process = child.id().to_string();
    assert!(
        Command::new("kill")
            .args([name, &process])
            .status()
            .unwrap()
            .success()
    );
    child.wait_with_output().unwrap()
}

#[test]
fn the_three_commands_work_as_printed_and_a_signal_ends_the_program_in_good_order() {
    for (more, name) in [(&[][..], "-INT"), (&["--no-sample"], "-TERM")] {
        let folder = tempfile::tempdir().unwrap();
        let mut child = start(folder.path(), more);
        let screen = ready(&mut child);
        let commands: Vec<&str> = screen
            .iter()
            .filter_map(|line| line.strip_prefix("  curl "))
            .collect();
        assert_eq!(commands.len(), 3, "{screen:?}");
        let curl = Command::new("curl").arg("--version").output();
        if curl.is_ok_and(|curl| curl.status.success()) {
            for command in commands {
                let command = format!("curl --fail --silent --show-error --noproxy '*' {command}");
                let output = Command::new("sh").args(["-c", &command]).output().unwrap();
                assert!(output.status.success(), "{command}: {output:?}");
                assert!(output.stdout.starts_with(b"{"), "{command}: {output:?}");
            }
        } else {
            println!("SKIPPED the commands of the ready screen: no curl");
        }
        let output = signal(child, name);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
    }
}

#[test]
fn two_processes_do_not_share_a_data_directory() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = start(folder.path(), &["--no-sample"]);
    ready(&mut first);
    let second = start(folder.path(), &[]).wait_with_output().unwrap();
    let error = String::from_utf8(second.stderr).unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert!(
        error.contains(&format!("in use by process {}", first.id())),
        "{error}"
    );
    assert_eq!(error.trim().lines().count(), 1, "{error}");
    signal(first, "-INT");
}

#[test]
fn a_process_that_was_killed_leaves_nothing_in_the_way() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = start(folder.path(), &[]);
    ready(&mut first);
    signal(first, "-KILL");
    let mut second = start(folder.path(), &[]);
    ready(&mut second);
    assert_eq!(signal(second, "-INT").status.code(), Some(0));
}

#[test]
fn strangers_are_refused_before_anything_is_created() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let data = ["--data-dir", data.to_str().unwrap()];
    for question in [&["--check-config"][..], &[]] {
        let everywhere = [&["--listen", "0.0.0.0:0"], &data[..], question].concat();
        let output = program(&everywhere).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(error.contains("--insecure"), "{error}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn the_configuration_is_checked_and_printed() {
    let output = program(&["--check-config"]).output().unwrap();
    assert_eq!(output.stdout, b"configuration is valid\n");
    let output = program(&["--print-config", "--listen", "127.0.0.1:1"])
        .output()
        .unwrap();
    assert!(
        String::from_utf8(output.stdout)
            .unwrap()
            .contains("listen = \"127.0.0.1:1\"")
    );
    let output = program(&["--check-config"])
        .env("SHOP__LISTNE", "x")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .to_lowercase()
            .contains("listne")
    );
}

#[test]
fn what_the_mesh_cannot_use_is_named_with_its_file_its_key_and_its_value() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("shop.toml");
    let identity = "[mesh.identity]\nmode = \"permissive\"\n[mesh.identity.files]\n\
                    certificate = \"/nowhere/tls.crt\"\nkey = \"/nowhere/tls.key\"\nbundle = \"/nowhere/ca.crt\"\n";
    let endpoints = "[mesh.destinations]\nother = \"file:///nowhere/other\"\n";
    let scheme = "[mesh.destinations]\nother = \"ftp://other\"\n";
    for (content, key, value, reason) in [
        (
            identity,
            "mesh.identity.files.certificate",
            "/nowhere/tls.crt",
            "cannot be read: No such file",
        ),
        (
            endpoints,
            "mesh.destinations.other",
            "file:///nowhere/other",
            "cannot be used: /nowhere/other: No such file",
        ),
        (
            scheme,
            "mesh.destinations.other",
            "ftp://other",
            "must start with http://",
        ),
    ] {
        std::fs::write(&file, content).unwrap();
        let mut checking = program(&["--check-config"]);
        let output = checking.arg("--config").arg(&file).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{key}");
        let error = String::from_utf8(output.stderr).unwrap();
        let said = format!(
            "file \"{}\": key \"{key}\": \"{value}\" {reason}",
            file.display()
        );
        assert!(error.contains(&said), "{error}");
    }
}
