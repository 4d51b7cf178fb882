//! `cargo xtask image`: an OCI image archive of each program, made without any container engine and without a base image.
//!
//! An archive is an OCI image layout (image-spec v1.1) in a tar file: `skopeo copy oci-archive:…` pushes it, `ctr images
//! import` and `kind load image-archive` load it. Three layers, from what changes least to what changes most in size:
//!
//! 1. the system: the shared libraries that the program needs at the paths where the loader looks, the loader, the
//!    certificates of public authorities, a user without rights. Programs with the same libraries share it.
//! 2. the program, stripped.
//! 3. its bill of materials (CycloneDX), at [`sbom::FOLDER`]. A layer and not an OCI referrer, because it then goes wherever
//!    the image goes: through `skopeo copy`, mirrors, `ctr images import` and `kind load`, most of which leave referrers
//!    behind, and scanners find it in the file system. The same file lies beside the archive.
//!
//! The same commit makes the same bytes on every machine with the same compiler and libraries: programs name no folder of
//! the machine that built them, entries are sorted, and the only time is that of the commit, or `SOURCE_DATE_EPOCH`. Deliberately missing: shell, package manager, anything that a program would have to be told apart
//! for. Pushing is skopeo's work.

mod archive;
mod contents;
mod layer;
mod libraries;
mod provenance;
mod runc;
mod sbom;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};

pub use self::runc::{available, run_all};
use self::{archive::Archive, provenance::Provenance};
use crate::{checkout, process::command};

/// A program that has an image.
#[derive(Debug)]
pub struct Program {
    /// Of the binary and of the image.
    pub name: &'static str,
    package: &'static str,
    about: &'static str,
}

/// What is deployed.
pub const PROGRAMS: &[Program] = &[
    Program {
        name: "product",
        package: "product",
        about: "the product service",
    },
    Program {
        name: "payment",
        package: "payment",
        about: "the payment service",
    },
    Program {
        name: "edge",
        package: "edge",
        about: "the REST edge",
    },
    Program {
        name: "simulator",
        package: "payment",
        about: "a payment provider that moves no money",
    },
    Program {
        name: "meshctl",
        package: "commerce-mesh-ctl",
        about: "looks into and operates running services",
    },
];

/// What tests a cluster from inside; built when it is named.
pub const CLUSTER_TESTS: [Program; 2] = [
    Program {
        name: "check",
        package: "tests",
        about: "checks every invariant of a shop",
    },
    Program {
        name: "visitor",
        package: "tests",
        about: "asks a shop from inside a cluster",
    },
];

/// The largest archive that is still called small, in bytes.
pub const ARCHIVE_BYTES_MAX: u64 = 40 << 20;
/// What the names of all images begin with, before a registry is put in front.
pub const REPOSITORY: &str = "commerce-mesh";

/// Which images, and where to.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Options {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    make: Make,
}

#[derive(clap::Subcommand)]
enum Action {
    /// Starts images from their archives with runc, asks each for its health, and stops it. Needs root.
    Run {
        /// Which ones.
        #[arg(required = true, value_name = "NAME", value_parser = clap::builder::PossibleValuesParser::new(PROGRAMS.iter().map(|program| program.name)))]
        names: Vec<String>,
        /// The folder of the archives.
        #[arg(long, value_name = "FOLDER")]
        out: Option<PathBuf>,
    },
}

/// How to make them.
#[derive(clap::Args)]
pub struct Make {
    /// Which ones; by default all that are deployed. `check` and `visitor` are for `cargo xtask k8s smoke`.
    #[arg(value_name = "NAME", value_parser = names())]
    names: Vec<String>,
    /// Where the archives go [default: target/image].
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Programs as they are built for tests: large, slow, and there in a moment.
    #[arg(long)]
    debug: bool,
    /// Where the source is published, for the image's labels.
    #[arg(long, value_name = "URL")]
    source: Option<String>,
    /// The time of everything in the images, in seconds [default: that of the commit].
    #[arg(long, env = "SOURCE_DATE_EPOCH", value_name = "SECONDS")]
    epoch: Option<u64>,
}

fn names() -> Vec<&'static str> {
    let all = PROGRAMS.iter().chain(&CLUSTER_TESTS);
    all.map(|program| program.name).collect()
}

/// Makes the archives and says how large they are, or runs them.
pub fn run(options: &Options) -> Result<()> {
    match &options.action {
        Some(Action::Run { names, out }) => {
            let names: Vec<_> = names.iter().map(String::as_str).collect();
            let reports = run_all(&folder(out.as_deref())?, &names)?;
            print!("{reports}");
            Ok(())
        }
        None => make(&options.make),
    }
}

fn folder(named: Option<&Path>) -> Result<PathBuf> {
    match named {
        Some(folder) => Ok(std::path::absolute(folder)?),
        None => Ok(checkout::target()?.join("image")),
    }
}

/// Makes the archives of all that is deployed from programs as they are built for tests.
pub fn make_debug(out: &Path) -> Result<()> {
    make(&Make {
        names: Vec::new(),
        out: Some(out.to_owned()),
        debug: true,
        source: None,
        epoch: None,
    })
}

fn make(make: &Make) -> Result<()> {
    let all = PROGRAMS.iter().chain(&CLUSTER_TESTS);
    let wanted: Vec<_> = if make.names.is_empty() {
        PROGRAMS.iter().collect()
    } else {
        all.filter(|program| make.names.iter().any(|name| name == program.name))
            .collect()
    };
    let binaries = build(&wanted, !make.debug)?;
    let unnamed: Vec<_> = if make.debug {
        Vec::new()
    } else {
        checkout::builders_places()?
    };
    let out = folder(make.out.as_deref())?;
    fs::create_dir_all(&out).with_context(|| format!("cannot create {}", out.display()))?;
    let dependencies = sbom::Dependencies::read()?;
    println!("{:<10} {:>9}  {:<71}  archive", "image", "size", "digest");
    let mut too_large = Vec::new();
    for (program, binary) in wanted.iter().zip(&binaries) {
        let provenance = Provenance::of(program, make)?;
        let made = image(
            &provenance,
            binary,
            &unnamed,
            &dependencies,
            program.package,
            &out,
        )?;
        println!(
            "{:<10} {:>6.1} MB  {:<71}  {}",
            program.name,
            megabytes(made.bytes),
            made.digest,
            made.path.display()
        );
        if made.bytes > ARCHIVE_BYTES_MAX {
            too_large.push(program.name);
        }
    }
    // A debug program is large by its nature.
    ensure!(
        make.debug || too_large.is_empty(),
        "larger than {} MB: {}",
        ARCHIVE_BYTES_MAX >> 20,
        too_large.join(", ")
    );
    Ok(())
}

/// Only the programs that are wanted: a release build of everything else takes long and is not looked at.
fn build(programs: &[&Program], release: bool) -> Result<Vec<PathBuf>> {
    let names: Vec<_> = programs.iter().map(|program| program.name).collect();
    if release {
        let packages: Vec<_> = programs.iter().map(|program| program.package).collect();
        checkout::build_released(&packages, &names)
    } else {
        checkout::build_all(&names, false)
    }
}

/// An archive that was written.
struct Made {
    path: PathBuf,
    bytes: u64,
    /// Of the manifest: what a cluster pulls by.
    digest: String,
}

/// Makes one archive, and beside it the bill of materials. A program that names one of the `unnamed` places is refused.
fn image(
    provenance: &Provenance,
    binary: &Path,
    unnamed: &[(PathBuf, &str)],
    dependencies: &sbom::Dependencies,
    package: &str,
    out: &Path,
) -> Result<Made> {
    let name = &provenance.title;
    let stripped = strip(binary)?;
    for (place, _) in unnamed {
        let place = place.as_os_str().as_encoded_bytes();
        ensure!(
            !stripped.windows(place.len()).any(|part| part == place),
            "{name} names {}: another machine would build other bytes",
            String::from_utf8_lossy(place)
        );
    }
    let libraries = libraries::needed_by(binary)?;
    let bill = sbom::bill(provenance, dependencies, package, &libraries)?;
    let layers = [
        ("the system", contents::system(&libraries)?),
        ("the program", contents::program(name, stripped)),
        ("the bill of materials", contents::bill(name, &bill)),
    ];
    let archive = Archive::build(provenance, layers)?;
    fs::write(out.join(format!("{name}.cdx.json")), &bill)?;
    let path = out.join(format!("{name}.oci.tar"));
    let bytes = archive.to_bytes()?;
    fs::write(&path, &bytes).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(Made {
        path,
        bytes: bytes.len() as u64,
        digest: archive.digest().to_owned(),
    })
}

/// The program without symbols and debug information.
fn strip(binary: &Path) -> Result<Vec<u8>> {
    let folder = tempfile::tempdir()?;
    let stripped = folder.path().join("stripped");
    let mut strip = command("strip");
    strip.args(["--strip-all", "-o"]).arg(&stripped).arg(binary);
    let ended = crate::process::collect(&mut strip)?;
    if !ended.status.success() {
        bail!("strip (Debian package binutils): {}", ended.text.trim());
    }
    Ok(fs::read(stripped)?)
}

#[expect(clippy::cast_precision_loss, reason = "sizes far below 2^52")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

#[cfg(test)]
mod tests;
