//! The pages in a real browser: Debian's Chromium, driven by its own driver through selenium.
//!
//! The script `tests/verify/browser.py` says what is looked at.

use std::fs;

use anyhow::Result;

use super::{Place, Verdict, tools};
use crate::{
    debian,
    process::{collect, command},
    shop::Shop,
};

pub(super) fn run(place: &Place) -> Result<Verdict> {
    let tools = debian::ensure("chromium", "chromium")
        .and_then(|()| debian::ensure("chromedriver", "chromium-driver"))
        .and_then(|()| tools::python(place));
    let python = match tools {
        Ok(python) => python,
        Err(reason) => return Ok(Verdict::Skipped(format!("{reason:#}"))),
    };
    let shop = Shop::start(&place.logs, "browser")?;
    let ended = collect(
        command(python.join("python"))
            .arg(Place::config("browser.py"))
            .arg(shop.url())
            .arg(&place.logs),
    )?;
    fs::write(place.log("browser.txt"), &ended.text)?;
    let looked_at = ended.text.lines().last().unwrap_or_default().to_owned();
    Ok(Verdict::of(ended, looked_at))
}
