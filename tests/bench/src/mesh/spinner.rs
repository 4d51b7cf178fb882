//! Keeps every processor awake: a loop on each that yields to whoever else wants it.

use std::{path::Path, thread};

use anyhow::Result;
use xtask::servers::program;

use super::stage::Process;

/// Loops until it is killed.
pub(crate) fn run() -> ! {
    loop {
        std::hint::spin_loop();
    }
}

/// One for each processor, in the scheduler's idle class (sched(7)), until the value is dropped.
pub(crate) fn start() -> Result<Vec<Process>> {
    let itself = std::env::current_exe()?;
    let processors = thread::available_parallelism()?.get();
    let one = |processor: usize| {
        let mut spinner = program(Path::new("chrt"), None);
        spinner.args(["--idle", "0", "taskset", "--cpu-list"]);
        spinner.arg(processor.to_string()).arg(&itself).arg("spin");
        Process::start(&mut spinner)
    };
    (0..processors).map(one).collect()
}
