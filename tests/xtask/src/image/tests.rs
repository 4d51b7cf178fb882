//! Images of a program of this machine: how they are made does not depend on what it is.

use std::{collections::BTreeSet, fs};

use serde_json::Value;

use super::{archive::Image, *};

pub(super) fn provenance() -> Provenance {
    Provenance {
        title: "true".to_owned(),
        about: "does nothing".to_owned(),
        version: "0.1.0".to_owned(),
        revision: "0123abc".to_owned(),
        licences: "MIT OR Apache-2.0".to_owned(),
        source: Some("https://git.example/shop".to_owned()),
        epoch: 1_700_000_000,
        created: "2023-11-14T22:13:20Z".to_owned(),
    }
}

/// An image of `true`, with the crates of xtask itself.
fn make(out: &Path) -> Made {
    let dependencies = sbom::Dependencies::read().unwrap();
    let fixture = Path::new("/bin/true");
    image(&provenance(), fixture, &[], &dependencies, "xtask", out).unwrap()
}

#[test]
fn a_program_that_names_a_folder_of_its_builder_is_refused() {
    let (out, dependencies) = (
        tempfile::tempdir().unwrap(),
        sbom::Dependencies::read().unwrap(),
    );
    // Every program names its loader.
    let loader = [(PathBuf::from("/lib64/ld-linux"), "/loader")];
    let fixture = Path::new("/bin/true");
    let refused = image(
        &provenance(),
        fixture,
        &loader,
        &dependencies,
        "xtask",
        out.path(),
    );
    let error = refused.err().unwrap().to_string();
    assert_eq!(
        error,
        "true names /lib64/ld-linux: another machine would build other bytes"
    );
}

#[test]
fn an_image_is_what_its_digests_say_and_the_same_bytes_each_time() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (made, again) = (make(one.path()), make(other.path()));
    assert_eq!(
        (made.digest.as_str(), made.bytes),
        (again.digest.as_str(), again.bytes)
    );
    assert!(fs::read(&made.path).unwrap() == fs::read(&again.path).unwrap());

    let image = Image::open(&made.path).unwrap();
    let config = &image.config["config"];
    assert_eq!(
        (
            config["User"].as_str(),
            config["Entrypoint"][0].as_str(),
            config["Labels"]["org.opencontainers.image.revision"].as_str(),
            config["Labels"]["org.opencontainers.image.source"].as_str(),
            config["Labels"]["org.opencontainers.image.licenses"].as_str(),
        ),
        (
            Some("65532:65532"),
            Some("/app/true"),
            Some("0123abc"),
            Some("https://git.example/shop"),
            Some("MIT OR Apache-2.0"),
        )
    );
    let paths: BTreeSet<_> = image.paths().into_iter().collect();
    for path in [
        "app/true",
        "usr/local/share/sbom/true.cdx.json",
        "etc/passwd",
        "etc/group",
        "etc/ssl/certs/ca-certificates.crt",
        "data/",
    ] {
        assert!(paths.contains(path), "{path} is not in {paths:?}");
    }
    assert!(paths.iter().any(|path| path.contains("/libc.so.")));
    let programs = paths
        .iter()
        .filter(|path| path.contains("bin/") || path.starts_with("app/"));
    let programs: Vec<_> = programs.filter(|path| !path.ends_with('/')).collect();
    assert_eq!(programs, ["app/true"], "no shell, nothing else");

    let bill = fs::read(one.path().join("true.cdx.json")).unwrap();
    let bill: Value = serde_json::from_slice(&bill).unwrap();
    let components = bill["components"].as_array().unwrap();
    let listed = |name: &str| components.iter().any(|component| component["name"] == name);
    assert!(listed("serde_json") && !listed("xtask"), "crates");
    let libc = components.iter().find(|component| {
        let name = component["name"].as_str().unwrap_or_default();
        component["type"] == "file" && name.contains("/libc.so.")
    });
    assert_eq!(libc.unwrap()["hashes"][0]["alg"], "SHA-256");
}

#[test]
fn a_changed_byte_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let path = make(folder.path()).path;
    let good = fs::read(&path).unwrap();
    // Somewhere in each blob: entries of a tar file begin at multiples of 512.
    let mut at = 0;
    let mut tried = 0;
    for entry in tar::Archive::new(good.as_slice()).entries().unwrap() {
        let entry = entry.unwrap();
        at = usize::try_from(entry.raw_file_position()).unwrap();
        let mut bad = good.clone();
        bad[at] ^= 1;
        fs::write(&path, bad).unwrap();
        let error = Image::open(&path).map(drop).unwrap_err();
        assert!(!format!("{error:#}").is_empty());
        tried += 1;
    }
    assert!(at > 0 && tried == 7, "{tried}"); // Three layers, configuration, manifest, index, layout.
    fs::write(&path, &good).unwrap();
    assert!(Image::open(&path).is_ok());
}
