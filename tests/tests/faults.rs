//! The short forms of `cargo xtask faults`: the same harness, two minutes instead of fifteen, always with the
//! same seed. `cargo xtask test` runs them by themselves, for they kill what others would stand on.

use std::path::PathBuf;
use std::time::Duration;

use tests::faults::fallback::fallback;
use tests::faults::house::Programs;
use tests::faults::provider::adversary;
use tests::faults::refusal::refusal;
use tests::faults::{Plan, mixed, outages};

const SEED: u32 = 2026;

fn plan(seconds: u64) -> Plan {
    let folder = std::env::var_os(xtask::faults::PROGRAMS_VARIABLE);
    let folder = folder.expect("`cargo xtask test` says where the programs are");
    Plan {
        seed: SEED,
        duration: Duration::from_secs(seconds),
        customers: 8,
        programs: Programs {
            folder: PathBuf::from(folder),
        },
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_processes_and_servers_lose_and_repeat_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let report = mixed(&plan(120), folder.path()).await.unwrap();
    print!("{report}");
    assert!(report.violations.is_empty(), "{report}");
    assert!(report.payments > 0 && report.kills() > 10, "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_goes_wrong_in_every_way_charges_nobody_twice() {
    let folder = tempfile::tempdir().unwrap();
    let report = adversary(&plan(0), 300, folder.path()).await.unwrap();
    print!("{report}");
    assert!(report.violations.is_empty(), "{report}");
    assert!(report.payments >= 300 && report.kills() > 0, "{report}");
    for fault in [
        "authorize unknown_before",
        "authorize unknown_after",
        "authorize late",
        "webhook late, accepted",
        "webhook duplicated, accepted",
        "webhook reordered, accepted",
        "webhook forged, refused",
        "webhook lost, lost",
    ] {
        assert!(report.happened.contains_key(fault), "{fault}: {report}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn money_that_the_provider_refuses_to_give_back_waits_for_a_person() {
    let folder = tempfile::tempdir().unwrap();
    let outage = refusal(&plan(0), folder.path()).await.unwrap();
    print!("{outage}");
    assert!(outage.violations.is_empty(), "{outage}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_provider_payments_fall_back_where_nothing_was_sent() {
    let folder = tempfile::tempdir().unwrap();
    let outage = fallback(&plan(0), folder.path()).await.unwrap();
    print!("{outage}");
    assert!(outage.violations.is_empty(), "{outage}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_broker_every_write_is_answered_and_no_event_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let outage = outages::broker(&plan(20), folder.path()).await.unwrap();
    print!("{outage}");
    assert!(outage.violations.is_empty(), "{outage}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_database_calls_fail_at_once_and_recover_by_themselves() {
    let folder = tempfile::tempdir().unwrap();
    let outage = outages::postgres(&plan(1), folder.path()).await.unwrap();
    print!("{outage}");
    assert!(outage.violations.is_empty(), "{outage}");
}
