//! The program `simulator`: what it refuses to start with, and what it has kept when it was killed.

use crate::far::{KEY, VISA, authorize, client, config};
use crate::strangers::Stranger;
use payment::provider::simulator::RemoteSimulator;
use payment::provider::{ChargeOutcome, Provider as _};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_simulator");
/// Longer than a start takes on a slow machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// A running program on the journal in a folder.
struct Program {
    child: Child,
    remote: RemoteSimulator,
}

impl Program {
    async fn start(folder: &Path, more: &str) -> Self {
        let (settings, log) = (folder.join("config.toml"), folder.join("log"));
        let journal = folder.join("simulator.db");
        let text = format!(
            "listen = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\nkey = \"{KEY}\"\n\
             lost_answers = \"close\"\n{more}\n[journal]\npath = \"{}\"\n\
             [simulator]\nwebhook_secret = \"whsec\"\nlate_webhook_delay_ms = 1\n",
            journal.display()
        );
        fs::write(&settings, text).unwrap();
        let child = Command::new(PROGRAM)
            .arg("--config")
            .arg(&settings)
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let listening = async {
            loop {
                let printed = fs::read_to_string(&log).unwrap();
                if let Some(address) = address(&printed) {
                    return address;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let address = tokio::time::timeout(PATIENCE, listening).await;
        let url = format!("http://{}", address.expect("it listens"));
        let remote = client(&url, KEY, &config());
        Self { child, remote }
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Where it says that it listens.
fn address(printed: &str) -> Option<String> {
    let line = printed
        .lines()
        .find(|line| line.contains("simulator is listening"))?;
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    Some(line["address"].as_str()?.to_owned())
}

fn run(folder: &TempDir, settings: &str, flags: &[&str]) -> Output {
    let file = folder.path().join("config.toml");
    fs::write(&file, settings).unwrap();
    let mut program = Command::new(PROGRAM);
    program.arg("--config").arg(&file).args(flags);
    program.current_dir(folder.path()).output().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_is_there_after_a_kill_and_nothing_is_there_twice() {
    let folder = tempfile::tempdir().unwrap();
    let (mut answered, mut next) = (Vec::<String>::new(), 0);
    for _ in 0..3 {
        let mut program = Program::start(folder.path(), "").await;
        for reference in &answered {
            let stands = program.remote.look_up_charge(reference).await.unwrap();
            let stands = stands.unwrap_or_else(|| panic!("{reference} was answered and is lost"));
            assert!(matches!(stands, ChargeOutcome::Authorized { .. }));
        }
        // The last call of the round is under way when the program is killed.
        let calls = (next..next + 20).map(|index| format!("att_{index}"));
        for reference in calls {
            program
                .remote
                .authorize(&authorize(&reference, VISA))
                .await
                .unwrap();
            answered.push(reference);
        }
        next += 20;
        let under_way = authorize(&format!("att_{next}"), VISA);
        let call = program.remote.authorize(&under_way);
        let killed = async {
            program.child.kill().unwrap();
        };
        let (outcome, ()) = tokio::join!(call, killed);
        program.child.wait().unwrap();
        if outcome.is_ok() {
            answered.push(under_way.reference);
            next += 1;
        }
    }
    let mut program = Program::start(folder.path(), "").await;
    for reference in &answered {
        let again = program.remote.authorize(&authorize(reference, VISA)).await;
        assert!(
            matches!(again, Ok(ChargeOutcome::Authorized { .. })),
            "{again:?}"
        );
    }
    program.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_outlives_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let mut deaf = Program::start(folder.path(), "").await;
    let late = authorize("att_1", "pm_card_webhook_late");
    deaf.remote.authorize(&late).await.unwrap();
    deaf.kill();
    let mut receiver = Stranger::new("200 OK", "{}").await;
    let mut more = String::new();
    writeln!(more, "webhook_url = \"http://{}/hook\"", receiver.address).unwrap();
    let _speaking = Program::start(folder.path(), &more).await;
    let heard = tokio::time::timeout(PATIENCE, receiver.heard.recv()).await;
    let heard = heard.expect("the webhook comes").unwrap();
    assert!(
        heard.starts_with("POST /hook ") && heard.contains("att_1"),
        "{heard}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_held_up_arrives_although_the_program_was_killed() {
    let folder = tempfile::tempdir().unwrap();
    let mut program = Program::start(folder.path(), "").await;
    let late = authorize("att_1", "pm_card_late");
    let lost = program.remote.authorize(&late).await;
    assert!(crate::far::is_unknown(&lost), "{lost:?}");
    assert_eq!(program.remote.look_up_charge("att_1").await, Ok(None));
    program.kill();
    // Nobody is told by a webhook: there is no URL for one.
    let program = Program::start(folder.path(), "").await;
    let arrives = async {
        while program
            .remote
            .look_up_charge("att_1")
            .await
            .unwrap()
            .is_none()
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let arrived = tokio::time::timeout(PATIENCE, arrives).await;
    arrived.expect("it arrives");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_seeds_of_what_goes_wrong_are_printed() {
    let folder = tempfile::tempdir().unwrap();
    let mut program = Program::start(folder.path(), "").await;
    let printed = fs::read_to_string(folder.path().join("log")).unwrap();
    let line = printed
        .lines()
        .find(|line| line.contains("goes wrong on purpose"));
    let line = line.expect("it is printed");
    assert_eq!(line.matches("seed: 0").count(), 2, "{line}");
    program.kill();
}

#[test]
fn its_configuration_is_checked_and_printed_like_that_of_every_program() {
    let folder = tempfile::tempdir().unwrap();
    let checked = run(&folder, "", &["--check-config"]);
    assert!(checked.status.success(), "{checked:?}");
    let printed = run(&folder, "key = \"hunter2\"\n", &["--print-config"]);
    let printed = String::from_utf8(printed.stdout).unwrap();
    assert!(
        printed.contains("key = \"***\"") && !printed.contains("hunter2"),
        "{printed}"
    );
}

#[test]
fn what_cannot_work_is_refused_at_start() {
    let folder = tempfile::tempdir().unwrap();
    for (settings, named) in [
        (
            "webhook_url = \"http://127.0.0.1:1/\"\n",
            "simulator.webhook_secret",
        ),
        ("webhook_url = \"https://127.0.0.1:1/\"\n", "webhook_url"),
        (
            "listen = \"0.0.0.0:0\"\nadmin_listen = \"127.0.0.1:0\"\n",
            "key: must be set",
        ),
        ("kez = \"x\"\n", "key \"kez\": unknown field"),
        (
            "[simulator.faults]\nlate = 1.5\n",
            "simulator.faults.late: must be a probability",
        ),
    ] {
        let ended = run(&folder, settings, &[]);
        assert!(!ended.status.success(), "{settings}");
        let said = String::from_utf8(ended.stderr).unwrap();
        assert!(said.contains(named), "{named}: {said}");
    }
}
