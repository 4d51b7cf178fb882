//! The images: each program starts from its archive as in a cluster, and says that it is healthy.

use std::fs;

use anyhow::Result;

use super::{Place, Verdict};
use crate::image;

pub(super) fn run(place: &Place) -> Result<Verdict> {
    if let Err(reason) = image::available() {
        return Ok(Verdict::Skipped(format!("{reason:#}")));
    }
    let folder = place.log("images");
    image::make_debug(&folder)?;
    let names: Vec<_> = image::PROGRAMS.iter().map(|program| program.name).collect();
    let reports = image::run_all(&folder, &names)?.to_string();
    fs::write(place.log("images.txt"), &reports)?;
    Ok(Verdict::Ok(format!("{} images ran", names.len())))
}
