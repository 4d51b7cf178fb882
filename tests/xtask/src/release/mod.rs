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
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use crate::process::{self, command, watch};

/// How long a workload may take until its new pods are ready.
const ROLLOUT_TIMEOUT: &str = "10m";
/// The label of everything that a release consists of, and the namespace that it lives in.
const SELECTOR: &str = "app.kubernetes.io/part-of=commerce-mesh";
const NAMESPACE: &str = "commerce";

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
    /// Applies a release and waits until its pods are ready (kubectl).
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
    if (1..=40).contains(&text.len()) && text.chars().all(|c| good(c) || c == '.') {
        Ok(text.to_owned())
    } else {
        Err("1 to 40 of a-z, 0-9 and dots are wanted".to_owned())
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
        if self.out.exists() {
            fs::remove_dir_all(&self.out)?;
        }
        fs::create_dir_all(&self.out)?;
        let write = |name: &str, text: String| {
            let file = self.out.join(name);
            fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))
        };
        write("manifests.yaml", manifests)?;
        write("images.json", serde_json::to_string_pretty(&images)? + "\n")?;
        write("images.sha256", checksums(&images))?;
        for image in images.values() {
            println!("{image}");
        }
        println!("wrote {}", self.out.display());
        Ok(())
    }
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
    let file = release.join("images.json");
    let text =
        fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} names no images", file.display()))
}

impl Deploy {
    fn run(&self) -> Result<()> {
        let manifests = self.from.join("manifests.yaml");
        let text = fs::read_to_string(&manifests)
            .with_context(|| format!("cannot read {}", manifests.display()))?;
        // Nobody can change an image behind its digest; a tag would be somebody's promise.
        let loose = render::without_digest(&text);
        if !loose.is_empty() {
            bail!("not by digest: {}", loose.join(", "));
        }
        run_shown(
            self.kubectl()
                .args(["apply", "--server-side", "--filename"])
                .arg(&manifests),
        )?;
        run_shown(self.kubectl().args([
            "rollout",
            "status",
            "deployment",
            "--namespace",
            NAMESPACE,
            "--selector",
            SELECTOR,
            "--timeout",
            ROLLOUT_TIMEOUT,
        ]))
    }

    fn kubectl(&self) -> std::process::Command {
        let mut kubectl = command("kubectl");
        if let Some(file) = &self.kubeconfig {
            kubectl.arg("--kubeconfig").arg(file);
        }
        kubectl
    }
}

fn run_shown(command: &mut std::process::Command) -> Result<()> {
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
        for wrong in ["", "v-1", "Main", &"a".repeat(41)] {
            assert!(version(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn images_are_listed_as_checksums() {
        let images = Images::from([("edge".to_owned(), "ghcr.io/x/edge@sha256:ab".to_owned())]);
        assert_eq!(checksums(&images), "ab  ghcr.io/x/edge\n");
    }
}
