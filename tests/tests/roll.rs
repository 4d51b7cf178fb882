//! The short form of `cargo xtask roll`: two rolls of each service instead of twenty, at a third of the rate, since
//! programs for tests are slow. `cargo xtask test` runs it by itself.

use std::path::PathBuf;
use std::time::Duration;

use tests::faults::house::Programs;
use tests::roll::{Plan, SERVICES, house, roll};

#[test]
fn rolling_restarts_under_load_fail_no_request() {
    if let Err(why) = house::install() {
        println!("SKIPPED rolling_restarts_under_load_fail_no_request: {why:#}");
        return;
    }
    let folder = std::env::var_os(xtask::faults::PROGRAMS_VARIABLE);
    let folder = folder.expect("`cargo xtask test` says where the programs are");
    let plan = Plan {
        programs: Programs {
            folder: PathBuf::from(folder),
        },
        rolls: 2,
        rate: 100,
        drain_wait: Duration::from_millis(500),
    };
    let logs = tempfile::tempdir().unwrap();
    let report = roll(&plan, logs.path()).unwrap();
    print!("{report}");
    assert_eq!(report.failed(), 0, "{report}");
    assert!(report.violations.is_empty(), "{report}");
    assert_eq!(report.rows.len(), SERVICES.len());
    for row in &report.rows {
        assert_eq!(row.restarts, 4);
        assert!(
            row.tally.requests > 100 && row.tally.purchases > 0,
            "{report}"
        );
    }
}
