//! The private PostgreSQL: durable, restartable, and gone afterwards.

use xtask::{
    process::{collect, command},
    servers::Postgres,
};

#[test]
fn a_server_starts_survives_a_crash_and_leaves_nothing() {
    let mut postgres = Postgres::start().unwrap();
    let psql = |postgres: &Postgres, statement: &str| {
        let mut psql = command(postgres.programs().join("psql"));
        psql.args(["-qAt", "-c", statement]).arg(postgres.url());
        collect(&mut psql).unwrap().text.trim().to_owned()
    };
    psql(&postgres, "CREATE TABLE kept AS SELECT 7 AS seven");
    postgres.restart_immediately().unwrap();
    assert_eq!(psql(&postgres, "SELECT seven FROM kept"), "7");
    assert_eq!(psql(&postgres, "SHOW fsync"), "on");
    let folder = postgres.folder().to_owned();
    drop(postgres);
    assert!(!folder.exists());
    let left = collect(command("pgrep").args(["-f", &folder.to_string_lossy()])).unwrap();
    assert_eq!(left.text.trim(), "");
}
