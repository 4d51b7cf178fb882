//! gRPC's official interoperability tests: the mesh, as client and as server, against PyPI's grpcio.
//!
//! The crate `interop` is the mesh's side; the script `tests/verify/interop.py` is the other one and says what
//! each case has to show.

use std::fs;

use anyhow::Result;

use super::{Place, Verdict, tools};
use crate::{
    checkout,
    process::{cargo, collect, command},
};

/// Where the contract of the tests and its imports lie.
const PROTOS: [&str; 2] = ["tests/interop/proto", "mesh/proto/proto"];

/// In a build of its own, so that tonic's TLS is in no other.
pub(super) fn tonic_tls(place: &Place) -> Result<Verdict> {
    let mut tests = cargo();
    tests.args(["test", "--package", "interop", "--test", "reloading"]);
    let ended = collect(tests.args(["--features", "tonic-tls"]))?;
    fs::write(place.log("tonic-tls.txt"), &ended.text)?;
    Ok(Verdict::of(ended, "both kinds of server"))
}

pub(super) fn run(place: &Place) -> Result<Verdict> {
    let python = match tools::python(place) {
        Ok(python) => python,
        Err(reason) => return Ok(Verdict::Skipped(format!("{reason:#}"))),
    };
    let [interop, meshctl] = ["interop", "meshctl"].map(checkout::build);
    let ended = collect(
        command(python.join("python"))
            .arg(Place::config("interop.py"))
            .args([interop?, meshctl?])
            .args(PROTOS.map(|folder| checkout::root().join(folder))),
    )?;
    fs::write(place.log("interop.txt"), &ended.text)?;
    let sum = ended.text.lines().last().unwrap_or_default().to_owned();
    Ok(Verdict::of(ended, sum))
}
