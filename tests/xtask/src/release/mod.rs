//! `cargo xtask release`: from image archives to a release that can be deployed, and deploying it.
//!
//! A release is a folder: `manifests.yaml`, rendered for images by digest; `images.json` and `images.sha256`, which
//! name them. `render` writes it and needs no network, for an archive's digest is the image's digest anywhere;
//! `push` brings the images there; `deploy` takes the folder as it is. So what was approved is what is deployed,
//! and going back is deploying an older folder.

mod archive;
mod render;

use std::{
    collections::BTreeMap,
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{
    k8s::manifests::{Manifests, name, text},
    process::{self, command, watch},
};

/// How long a migration may take: a little longer than the `activeDeadlineSeconds` of its Job.
const MIGRATION_TIMEOUT: &str = "11m";
/// How long the workloads may take then until their new pods are ready. One that came too early for the new schema waits
/// for up to five minutes before it starts again.
const ROLLOUT_TIMEOUT: &str = "15m";
/// The label of everything that a release consists of.
const SELECTOR: &str = "app.kubernetes.io/part-of=commerce-mesh";

/// The file of a release that names its images.
const IMAGES: &str = "images.json";

/// The images of a release: what each is called in the manifests, and where it is by digest.
type Images = BTreeMap<String, String>;

/// What to do.
#[derive(clap::Args)]
pub struct Options {
    #[command(subcommand)]
    step: Step,
}

#[derive(clap::Subcommand)]
enum Step {
    /// Writes the folder of a release: manifests for exactly these images.
    Render(Render),
    /// Pushes the images of a release to where its manifests look for them (skopeo).
    Push(Push),
    /// Applies a release and waits until its migrations are done and its pods are ready (kubectl).
    Deploy(Deploy),
}

#[derive(clap::Args)]
struct Render {
    /// The folder of the archives that `cargo xtask image` wrote.
    #[arg(long, value_name = "DIR")]
    images: PathBuf,
    /// Where the images will be, such as ghcr.io/somebody/commerce-mesh.
    #[arg(long, value_name = "NAME")]
    registry: String,
    /// What the release is called: letters and digits, such as the beginning of a commit.
    #[arg(long, value_name = "NAME", value_parser = version)]
    version: String,
    /// Which overlay.
    #[arg(long, value_name = "NAME", default_value = "prod")]
    overlay: String,
    /// The folder to write; it is made anew.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

#[derive(clap::Args)]
struct Push {
    /// The folder of the archives.
    #[arg(long, value_name = "DIR")]
    images: PathBuf,
    /// The folder of the release.
    #[arg(long, value_name = "DIR")]
    from: PathBuf,
}

#[derive(clap::Args)]
struct Deploy {
    /// The folder of the release.
    #[arg(long, value_name = "DIR")]
    from: PathBuf,
    /// How to reach the cluster; kubectl's own rules where it is not given.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
}

/// Does one step.
pub fn run(options: &Options) -> Result<()> {
    match &options.step {
        Step::Render(render) => render.run(),
        Step::Push(push) => push.run(),
        Step::Deploy(deploy) => deploy.run(),
    }
}

/// It becomes a part of the names of Jobs, after a hyphen.
fn version(text: &str) -> Result<String, String> {
    let good = |character: char| character.is_ascii_lowercase() || character.is_ascii_digit();
    let mut parts = text.split('.');
    if text.len() <= 40 && parts.all(|part| !part.is_empty() && part.chars().all(good)) {
        Ok(text.to_owned())
    } else {
        Err("1 to 40 of a-z and 0-9 are wanted, with single dots between them".to_owned())
    }
}

impl Render {
    fn run(&self) -> Result<()> {
        // A registry takes no capital letters, and an account may have them.
        let registry = self.registry.to_lowercase();
        let archives = archive::read(&self.images)?;
        let place = |(name, digest): (String, String)| {
            let place = format!("{registry}/{name}@{digest}");
            (name, place)
        };
        let images: Images = archives.into_iter().map(place).collect();
        let manifests = render::manifests(&self.overlay, &self.version, &images)?;
        make_anew(&self.out)?;
        let write = |name: &str, text: String| {
            let file = self.out.join(name);
            fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))
        };
        write("manifests.yaml", manifests)?;
        write(IMAGES, serde_json::to_string_pretty(&images)? + "\n")?;
        write("images.sha256", checksums(&images))?;
        for image in images.values() {
            println!("{image}");
        }
        println!("wrote {}", self.out.display());
        Ok(())
    }
}

/// Makes the folder of a release, empty. One that is there has to be one: nothing else is removed.
fn make_anew(folder: &Path) -> Result<()> {
    match fs::read_dir(folder).map(Iterator::count) {
        Ok(entries) if entries > 0 && !folder.join(IMAGES).exists() => {
            bail!("{} holds other things than a release", folder.display());
        }
        Ok(_) => fs::remove_dir_all(folder)?,
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| folder.display().to_string()),
    }
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))
}

/// A line of `sha256sum` for each image, as signers of provenance read them.
fn checksums(images: &Images) -> String {
    let line = |image: &String| {
        let (name, digest) = image.split_once("@sha256:").expect("an image has a digest");
        format!("{digest}  {name}\n")
    };
    images.values().map(line).collect()
}

impl Push {
    fn run(&self) -> Result<()> {
        let archives = archive::read(&self.images)?;
        for (name, image) in read_images(&self.from)? {
            let digest = archives
                .get(&name)
                .with_context(|| format!("no archive of {name}"))?;
            if !image.ends_with(&format!("@{digest}")) {
                bail!("the release wants {image}, and the archive is {digest}");
            }
            let mut skopeo = command("skopeo");
            skopeo
                .args(["copy", "--preserve-digests"])
                .arg(format!(
                    "oci-archive:{}",
                    archive::file(&self.images, &name).display()
                ))
                .arg(format!("docker://{image}"));
            run_shown(&mut skopeo)?;
        }
        Ok(())
    }
}

fn read_images(release: &Path) -> Result<Images> {
    let file = release.join(IMAGES);
    let text =
        fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} names no images", file.display()))
}

impl Deploy {
    fn run(&self) -> Result<()> {
        // Commands run at the root of the checkout, wherever this was started.
        let file = std::path::absolute(self.from.join("manifests.yaml"))?;
        let yaml =
            fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let manifests = Manifests::parse(&yaml).with_context(|| file.display().to_string())?;
        let kubeconfig = self
            .kubeconfig
            .as_deref()
            .map(std::path::absolute)
            .transpose()?;
        for mut step in steps(&file, kubeconfig.as_deref(), &manifests)? {
            run_shown(&mut step)?;
        }
        Ok(())
    }
}

/// The commands that deploy, in their order.
fn steps(file: &Path, kubeconfig: Option<&Path>, manifests: &Manifests) -> Result<Vec<Command>> {
    // Nobody can change an image behind its digest; a tag would be somebody's promise.
    let loose = render::without_digest(manifests);
    if !loose.is_empty() {
        bail!("not by digest: {}", loose.join(", "));
    }
    let mut namespaces = manifests.of_kind("Namespace").map(name);
    let (Some(namespace), None) = (namespaces.next(), namespaces.next()) else {
        bail!("{} has not exactly one Namespace", file.display());
    };
    let kubectl = || {
        let mut kubectl = command("kubectl");
        if let Some(file) = kubeconfig {
            kubectl.arg("--kubeconfig").arg(file);
        }
        kubectl
    };
    let mut apply = kubectl();
    // What somebody has changed by hand meanwhile is the release's again: it is what was approved.
    apply.args(["apply", "--server-side", "--force-conflicts", "--filename"]);
    apply.arg(file);
    let mut steps = vec![apply];
    // New pods do not start before; a migration that fails is to be told as such.
    for job in manifests.of_kind("Job") {
        let mut wait = kubectl();
        wait.args(["wait", &format!("job/{}", name(job))]);
        wait.args(["--namespace", text(job, "/metadata/namespace")]);
        wait.args(["--for", "condition=Complete"]);
        wait.args(["--timeout", MIGRATION_TIMEOUT]);
        steps.push(wait);
    }
    let mut rollout = kubectl();
    rollout.args(["rollout", "status", "deployment"]);
    rollout.args(["--namespace", namespace, "--selector", SELECTOR]);
    rollout.args(["--timeout", ROLLOUT_TIMEOUT]);
    steps.push(rollout);
    Ok(steps)
}

fn run_shown(command: &mut Command) -> Result<()> {
    println!("$ {}", process::shown(command));
    let ended = watch(command)?;
    if !ended.status.success() {
        bail!("{} ended with {}", process::shown(command), ended.status);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_fits_into_the_name_of_a_job() {
        assert!(version("3f2a9c1d0b7e").is_ok() && version("0.1.0").is_ok());
        for wrong in ["", "v-1", "Main", ".1", "1.", "0..1", &"a".repeat(41)] {
            assert!(version(wrong).is_err(), "{wrong}");
        }
    }

    fn shown_steps(manifests: &str) -> Result<Vec<String>> {
        let manifests = Manifests::parse(manifests).unwrap();
        let (file, kubeconfig) = (Path::new("/r/manifests.yaml"), Path::new("/k"));
        let steps = steps(file, Some(kubeconfig), &manifests)?;
        Ok(steps.iter().map(process::shown).collect())
    }

    #[test]
    fn a_release_is_applied_migrated_and_then_rolled_out() {
        let manifests = "\
kind: Namespace
metadata: {name: shop}
---
kind: Job
metadata: {name: a-migrate-1, namespace: shop}
spec: {template: {spec: {containers: [{image: \"a@sha256:1\"}]}}}
";
        let kubectl = "kubectl --kubeconfig /k";
        assert_eq!(
            shown_steps(manifests).unwrap(),
            [
                format!(
                    "{kubectl} apply --server-side --force-conflicts --filename /r/manifests.yaml"
                ),
                format!(
                    "{kubectl} wait job/a-migrate-1 --namespace shop --for condition=Complete --timeout 11m"
                ),
                format!(
                    "{kubectl} rollout status deployment --namespace shop --selector {SELECTOR} --timeout 15m"
                ),
            ]
        );
        let loose = shown_steps(&manifests.replace("@sha256", "")).unwrap_err();
        assert_eq!(loose.to_string(), "not by digest: a:1");
        let nowhere = shown_steps(&manifests.replace("Namespace", "Service")).unwrap_err();
        assert!(nowhere.to_string().contains("Namespace"), "{nowhere}");
    }

    #[test]
    fn a_folder_is_made_anew_only_where_it_held_a_release() {
        let folder = tempfile::tempdir().unwrap();
        let release = folder.path().join("a/release");
        make_anew(&release).unwrap();
        make_anew(&release).unwrap();
        fs::write(release.join("something"), "").unwrap();
        assert!(make_anew(&release).is_err());
        assert!(release.join("something").exists());
        fs::write(release.join(IMAGES), "{}").unwrap();
        make_anew(&release).unwrap();
        assert_eq!(fs::read_dir(&release).unwrap().count(), 0);
    }

    #[test]
    fn images_are_listed_as_checksums() {
        let images = Images::from([("edge".to_owned(), "ghcr.io/x/edge@sha256:ab".to_owned())]);
        assert_eq!(checksums(&images), "ab  ghcr.io/x/edge\n");
    }
}
