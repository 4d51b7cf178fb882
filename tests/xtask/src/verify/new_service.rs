//! A service as `cargo xtask new-service` writes it: made in a copy of the tree, built, tested, asked over REST.
//!
//! The copy lies below `target/verify` and is built in the same build folder, so that what the tree was built from
//! is not compiled again. What was built from the copy is removed afterwards: to Cargo both are one workspace, and the tree's
//! files are older, so that it would take the copy's programs for the tree's.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::{Place, Verdict};
use crate::{
    checkout,
    process::{self, collect, command},
    servers::{self, Servers},
    shop::Shop,
};

/// What it may be called; the first one that the tree has not yet.
const NAMES: [&str; 2] = ["order", "parcel"];
/// How long an event may take to arrive.
const EVENT_TIMEOUT: Duration = Duration::from_secs(20);
const EVENT_INTERVAL: Duration = Duration::from_millis(100);

pub(super) fn run(place: &Place) -> Result<Verdict> {
    let tree = Tree {
        root: place.log("new-service"),
        target: checkout::target()?,
        log: place.log("new-service.txt"),
    };
    fs::write(&tree.log, "")?;
    tree.copy()?;
    let checked = check(&tree, place);
    let mut clean = process::cargo();
    clean.args(["clean", "--workspace", "--quiet"]);
    process::output(clean.current_dir(checkout::root()))?;
    checked
}

fn check(tree: &Tree, place: &Place) -> Result<Verdict> {
    let free = |name: &&&str| !tree.root.join("services").join(name).exists();
    let name = *NAMES.iter().find(free).context("every name is taken")?;

    let made = tree.cargo(
        &[
            "run",
            "--quiet",
            "--package",
            "xtask",
            "--",
            "new-service",
            name,
        ],
        &[],
    )?;
    tree.git(&["add", "--all"])?; // The rules of `cargo xtask affected` look at the files that git knows.
    tree.cargo(&["fmt", "--all", "--check"], &[])?;
    let packages = ["--package", name, "--package", "standalone"];
    tree.cargo(
        &[
            &["clippy"],
            &packages[..],
            &["--all-targets", "--", "-D", "warnings"],
        ]
        .concat(),
        &[],
    )?;
    tree.cargo(
        &["test", "--package", "tests", "--test", "house_rules"],
        &[],
    )?;
    tree.cargo(&["test", "--package", "xtask", "--test", "affected"], &[])?;
    let manifests = tree.cargo(
        &["run", "--quiet", "--package", "xtask", "--", "k8s", "check"],
        &[],
    )?;
    let manifests = manifests.lines().last().unwrap_or_default().to_owned();
    tree.cargo(&["test", "--package", "xtask", "--lib"], &[])?;
    let store = tree.test(name)?;
    tree.cargo(
        &["build", "--package", "standalone", "--bin", "standalone"],
        &[],
    )?;
    ask(&tree.target.join("debug/standalone"), place, name)?;
    let count = |what: &str| {
        let line = made.lines().find(|line| line.contains(what));
        line.unwrap_or_default().trim_end_matches(':').to_owned()
    };
    let (written, edit) = (count("files written"), count("yours to edit"));
    Ok(Verdict::Ok(format!(
        "{name}: {written}, {edit}, {store}, answers over REST; {manifests}"
    )))
}

/// The copy.
struct Tree {
    root: PathBuf,
    target: PathBuf,
    log: PathBuf,
}

impl Tree {
    /// Copies what git knows or would take, edits included.
    fn copy(&self) -> Result<()> {
        if self.root.exists() {
            fs::remove_dir_all(&self.root)?;
        }
        fs::create_dir_all(&self.root)?;
        let list = self.target.join("verify/new-service.files");
        let files = [
            "ls-files",
            "--cached",
            "--others",
            "--exclude-standard",
            "-z",
        ];
        let names = process::output(command("git").args(files))?;
        // A file that was removed and not committed is still in git's list.
        let there = |name: &&str| !name.is_empty() && checkout::root().join(name).exists();
        let names: Vec<_> = names.split('\0').filter(there).collect();
        fs::write(&list, names.join("\0"))?;
        let archive = self.target.join("verify/new-service.tar");
        let mut pack = command("tar");
        pack.args(["--null", "-cf"])
            .arg(&archive)
            .arg("-T")
            .arg(&list);
        process::output(&mut pack)?;
        process::output(
            command("tar")
                .arg("-xf")
                .arg(&archive)
                .arg("-C")
                .arg(&self.root),
        )?;
        fs::remove_file(&archive)?;
        self.git(&["init", "--quiet"])?;
        self.git(&["add", "--all"])
    }

    fn git(&self, arguments: &[&str]) -> Result<()> {
        self.say(command("git").args(arguments)).map(drop)
    }

    /// Cargo in the copy; fails with what it said.
    fn cargo(&self, arguments: &[&str], variables: &[(&str, String)]) -> Result<String> {
        let mut cargo = process::cargo();
        // The copy's own root is to be found, not that of the xtask that runs this.
        cargo
            .env_remove("CARGO_MANIFEST_DIR")
            .env("CARGO_TARGET_DIR", &self.target);
        cargo.envs(variables.iter().map(|(name, value)| (*name, value)));
        self.say(cargo.args(arguments))
    }

    fn say(&self, command: &mut Command) -> Result<String> {
        let ended = collect(command.current_dir(&self.root))?;
        let shown = process::shown(command);
        let said = format!("$ {shown}\n{}\n", ended.text);
        let before = fs::read_to_string(&self.log)?;
        fs::write(&self.log, before + &said)?;
        if !ended.status.success() {
            bail!("{said}{}", ended.status);
        }
        Ok(ended.text)
    }

    /// The service's own tests, on both databases where there is a server.
    fn test(&self, name: &str) -> Result<&'static str> {
        if servers::install().is_err() {
            let targets = ["--lib", "--bins", "--test", "contract"];
            self.cargo(&[&["test", "--package", name], &targets[..]].concat(), &[])?;
            return Ok("tested on SQLite (no server for PostgreSQL)");
        }
        let servers = Servers::start()?;
        self.cargo(&["test", "--package", name], &servers.variables())?;
        Ok("tested on SQLite and PostgreSQL")
    }
}

/// Creates one over REST and waits until an event has brought the title of its product.
fn ask(standalone: &Path, place: &Place, name: &str) -> Result<()> {
    let shop = Shop::run(standalone, &place.logs, "new-service")?;
    let route = format!("/v1/{name}s");
    let document: Value = serde_json::from_str(&shop.get("/openapi.json")?)?;
    let summary = &document["paths"][&route]["post"];
    if summary["description"]
        .as_str()
        .or(summary["summary"].as_str())
        .is_none()
    {
        bail!("POST {route} is not documented: {summary}");
    }
    let products: Value = serde_json::from_str(&shop.get("/v1/products?pageSize=1")?)?;
    let product = &products["products"][0];
    let body = serde_json::json!({"name": "First", "productId": product["id"]}).to_string();
    let post = || -> Result<Value> {
        let mut curl = command("curl");
        curl.args([
            "-sS",
            "--fail-with-body",
            "-H",
            "Idempotency-Key: 1",
            "--json",
            &body,
        ]);
        Ok(serde_json::from_str(&process::output(
            curl.arg(format!("{}{route}", shop.url())),
        )?)?)
    };
    let (created, again) = (post()?, post()?);
    let id = created["id"].as_str().context("it has an id")?;
    if created != again {
        bail!("the same command made another one: {created} and {again}");
    }
    let started = Instant::now();
    loop {
        let found: Value = serde_json::from_str(&shop.get(&format!("{route}/{id}"))?)?;
        if found["productTitle"] == product["title"] {
            return Ok(());
        }
        if started.elapsed() > EVENT_TIMEOUT {
            bail!("no event brought the title of {}: {found}", product["id"]);
        }
        thread::park_timeout(EVENT_INTERVAL);
    }
}
