//! Serves a disk whose power can be cut to the test that started it; see `tests::power_cut`.

use std::path::Path;

fn main() -> anyhow::Result<()> {
    let mount_point = std::env::args_os().nth(1);
    let mount_point =
        mount_point.ok_or_else(|| anyhow::anyhow!("usage: power-cut-disk DIRECTORY"))?;
    tests::power_cut::serve(
        Path::new(&mount_point),
        std::io::stdin().lock(),
        std::io::stdout(),
    )
}
