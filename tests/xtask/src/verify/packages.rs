//! The crates under mesh/ as archives, and RouteGuide built from nothing but these, outside the workspace.
//!
//! What a registry would hand out is made by `cargo package`, unpacked, and patched in by path; everything
//! else comes from cargo's cache. Each rung has to build and to tell what plain tonic tells.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{Place, Verdict};
use crate::{
    checkout,
    process::{Ended, cargo, collect, command},
};

/// The program that is moved; packaged too, though it is not published.
const PROGRAM: &str = "routeguide";
/// Its rungs as programs; the first is without a mesh.
const RUNGS: [&str; 4] = ["plain", "layer", "client", "server"];
/// The rung that needs certificates.
const IDENTITY: &str = "identity";

pub(super) fn run(place: &Place) -> Result<Verdict> {
    let stage = Stage::new(place.log("packages"))?;
    let names = published(&checkout::metadata()?);
    let archives = match stage.package(&names)? {
        Ok(archives) => archives,
        Err(said) => return Ok(Verdict::Failed(said)),
    };
    let program = stage.unpack(&archives)?;
    let built = stage.cargo(&program, &["build", "--bins"])?;
    fs::write(place.log("packages.txt"), &built.text)?;
    if !built.status.success() {
        return Ok(Verdict::of(built, ""));
    }
    let told = stage.tell(&program, RUNGS[0], &[])?;
    for rung in &RUNGS[1..] {
        let tells = stage.tell(&program, rung, &[])?;
        ensure!(
            tells == told,
            "{rung} tells:\n{tells}\nplain tonic:\n{told}"
        );
    }
    let config = stage.certificates()?;
    let tells = stage.tell(&program, IDENTITY, &[&config])?;
    ensure!(
        tells == told,
        "{IDENTITY} tells:\n{tells}\nplain tonic:\n{told}"
    );
    Ok(Verdict::Ok(format!(
        "{} archives, {} rungs of RouteGuide",
        names.len(),
        RUNGS.len() + 1
    )))
}

/// The packages that may be published, and the program.
fn published(metadata: &Value) -> Vec<String> {
    let packages = metadata["packages"].as_array();
    let packages = packages.into_iter().flatten();
    let wanted = packages.filter(|package| {
        // `publish` is null where nothing is forbidden.
        package["publish"].is_null() || package["name"] == PROGRAM
    });
    let names = wanted.filter_map(|package| package["name"].as_str());
    names.map(str::to_owned).collect()
}

/// What is added to the unpacked program: it is no part of our workspace, and takes our crates from here.
fn patches(archives: &[(String, String)]) -> String {
    let others = archives.iter().filter(|(name, _)| name != PROGRAM);
    let lines = others.map(|(name, folder)| format!("{name} = {{ path = \"../{folder}\" }}\n"));
    format!(
        "\n[workspace]\n\n[patch.crates-io]\n{}",
        lines.collect::<String>()
    )
}

struct Stage {
    folder: PathBuf,
}

impl Stage {
    /// With nothing in it but what earlier runs have compiled.
    fn new(folder: PathBuf) -> Result<Self> {
        for stale in ["archives/package", "outside"] {
            let stale = folder.join(stale);
            if stale.exists() {
                fs::remove_dir_all(&stale)?;
            }
        }
        fs::create_dir_all(folder.join("outside"))?;
        Ok(Self { folder })
    }

    /// Makes the archives; answers each package's name and folder, or what cargo had to say.
    fn package(&self, names: &[String]) -> Result<Result<Vec<(String, String)>, String>> {
        // What is not committed yet is checked too; that it compiles is seen below.
        let mut packaging = cargo();
        packaging
            .args(["package", "--offline", "--allow-dirty", "--no-verify"])
            .arg("--target-dir")
            .arg(self.folder.join("archives"))
            .args(names.iter().flat_map(|name| ["--package", name]));
        let ended = collect(&mut packaging)?;
        if !ended.status.success() {
            return Ok(Err(ended.text));
        }
        let mut archives = Vec::new();
        for entry in fs::read_dir(self.folder.join("archives/package"))? {
            let file = entry?.file_name().to_string_lossy().into_owned();
            if let Some(folder) = file.strip_suffix(".crate") {
                let name = names
                    .iter()
                    .filter(|name| folder.starts_with(&format!("{name}-")))
                    .max_by_key(|name| name.len())
                    .with_context(|| format!("no package was asked for that {file} is of"))?;
                archives.push((name.clone(), folder.to_owned()));
            }
        }
        archives.sort();
        Ok(Ok(archives))
    }

    /// Unpacks all of them side by side; answers the program's folder.
    fn unpack(&self, archives: &[(String, String)]) -> Result<PathBuf> {
        let outside = self.folder.join("outside");
        for (_, folder) in archives {
            let archive = self.folder.join(format!("archives/package/{folder}.crate"));
            let unpacked = collect(
                command("tar")
                    .arg("-xzf")
                    .arg(archive)
                    .arg("-C")
                    .arg(&outside),
            )?;
            ensure!(unpacked.status.success(), "tar: {}", unpacked.text);
        }
        let program = archives.iter().find(|(name, _)| name == PROGRAM);
        let (_, folder) = program.with_context(|| format!("{PROGRAM} was not packaged"))?;
        let program = outside.join(folder);
        let manifest = program.join("Cargo.toml");
        let text = fs::read_to_string(&manifest)? + &patches(archives);
        fs::write(manifest, text)?;
        Ok(program)
    }

    fn cargo(&self, program: &Path, arguments: &[&str]) -> Result<Ended> {
        collect(
            cargo()
                .args(arguments)
                .arg("--offline")
                .arg("--target-dir")
                .arg(self.folder.join("build"))
                .current_dir(program),
        )
    }

    /// What a rung prints.
    fn tell(&self, program: &Path, rung: &str, arguments: &[&Path]) -> Result<String> {
        let rung = self.folder.join("build/debug").join(rung);
        let ended = collect(command(&rung).args(arguments).current_dir(program))?;
        ensure!(ended.status.success(), "{}: {}", rung.display(), ended.text);
        ensure!(!ended.text.is_empty(), "{} tells nothing", rung.display());
        Ok(ended.text)
    }

    /// Certificates by `meshctl certs`, and a configuration with them.
    fn certificates(&self) -> Result<PathBuf> {
        let folder = self.folder.join("outside/certs");
        let made = collect(
            command(checkout::build("meshctl")?)
                .args(["certs", "new", "--trust-domain", "guide.example"])
                .args(["--service", PROGRAM, "--out"])
                .arg(&folder),
        )?;
        ensure!(made.status.success(), "meshctl certs: {}", made.text);
        let file = |name: &str| folder.join(name).display().to_string();
        let config = self.folder.join("outside/mesh.toml");
        let text = format!(
            "[identity]\nmode = \"strict\"\n\n[identity.files]\ncertificate = {:?}\nkey = {:?}\nbundle = {:?}\n",
            file(&format!("{PROGRAM}/certificate.pem")),
            file(&format!("{PROGRAM}/key.pem")),
            file("bundle.pem"),
        );
        fs::write(&config, text)?;
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_may_be_published_is_packaged_and_the_program() {
        let metadata = json!({"packages": [
            {"name": "commerce-mesh", "publish": null},
            {"name": "edge", "publish": []},
            {"name": PROGRAM, "publish": []},
        ]});
        assert_eq!(published(&metadata), ["commerce-mesh", PROGRAM]);
    }

    #[test]
    fn the_program_takes_every_other_archive_by_path() {
        let archive = |name: &str| (name.to_owned(), format!("{name}-0.1.0"));
        assert_eq!(
            patches(&[archive("commerce-mesh"), archive(PROGRAM)]),
            "\n[workspace]\n\n[patch.crates-io]\ncommerce-mesh = { path = \"../commerce-mesh-0.1.0\" }\n"
        );
    }
}
