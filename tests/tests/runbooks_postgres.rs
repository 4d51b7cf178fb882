//! The runbooks for backup and restore in docs/operations.md, command by command, on servers that are lost.
//!
//! A PostgreSQL of the test's own is thrown away under a shop that has sold, another one takes its place from
//! the backup, and the shop has to be sound and go on selling.

#![expect(
    clippy::unwrap_used,
    reason = "a scenario that cannot go on has failed"
)]

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tests::eventually;
use tests::orders::{lines, manual_order, order, put_on_sale, stock};
use tests::rest::Rest;
use tests::shop::{Options, Shop};
use xtask::process::output;
use xtask::servers::Postgres;

/// What was sold before the loss.
struct Sold {
    paid: Value,
    authorised: Value,
}

async fn shop_on(postgres: &Postgres) -> Shop {
    Shop::start_with(Options {
        postgres: Some(postgres.url()),
        ..Options::default()
    })
    .await
}

/// Sells one mug for good and authorises two.
async fn sell(rest: &Rest, number: u32) -> Sold {
    let paid = format!("PAID-{number}");
    let buy = order(&paid, &[("MUG-1", 1)]);
    let paid = rest.post_once("/v1/payments", &paid, &buy).await.ok();
    assert_eq!(paid["state"], "SUCCEEDED");
    let buy = manual_order(&format!("AUTHORISED-{number}"), &[("MUG-1", 2)]);
    let authorised = rest.post("/v1/payments", &buy).await.ok();
    assert_eq!(authorised["state"], "REQUIRES_CAPTURE");
    Sold { paid, authorised }
}

/// What was sold can be repeated, captured and refunded, and more can be sold.
async fn goes_on(rest: &Rest, sold: &Sold, number: u32) {
    let order_ref = sold.paid["orderRef"].as_str().unwrap();
    let buy = order(order_ref, &[("MUG-1", 1)]);
    let again = rest.post_once("/v1/payments", order_ref, &buy).await;
    assert_eq!(again.headers["idempotency-replayed"], "true");
    let payment = |payment: &Value, verb: &str| {
        format!("/v1/payments/{}{verb}", payment["id"].as_str().unwrap())
    };
    let take = json!({"lines": lines(&[("MUG-1", 1)]), "final": true});
    let captured = rest
        .post(&payment(&sold.authorised, ":capture"), &take)
        .await;
    assert_eq!(captured.ok()["state"], "SUCCEEDED");
    let back = rest
        .post(&payment(&sold.paid, "/refunds"), &json!({}))
        .await;
    assert_eq!(back.ok()["state"], "SUCCEEDED");
    sell(rest, number).await;
}

fn psql(postgres: &Postgres, database: &str, sql: &str) -> String {
    let mut psql = postgres.tool("psql");
    psql.args(["-qXAt", "-v", "ON_ERROR_STOP=1", "-c", sql]);
    psql.arg(postgres.url_of("postgres", database));
    output(&mut psql).unwrap().trim().to_owned()
}

fn dump(postgres: &Postgres, database: &str, file: &Path) {
    let mut dump = postgres.tool("pg_dump");
    dump.arg("--format=custom").arg("--file").arg(file);
    output(dump.arg(postgres.url_of("postgres", database))).unwrap();
}

fn restore(postgres: &Postgres, database: &str, file: &Path) {
    psql(postgres, "postgres", &format!("CREATE DATABASE {database}"));
    let mut restore = postgres.tool("pg_restore");
    restore.args(["--exit-on-error", "--dbname"]);
    restore.arg(postgres.url_of("postgres", database)).arg(file);
    output(&mut restore).unwrap();
}

/// Lets the transaction ids of a stopped cluster begin where no revision of an earlier one can be.
fn begin_epoch(postgres: &Postgres, epoch: &str) {
    let mut reset = postgres.tool("pg_resetwal");
    reset.args(["--epoch", epoch, "--pgdata"]);
    output(reset.arg(postgres.folder().join("data"))).unwrap();
}

/// Nothing is there before it is whole.
const ARCHIVING: &str = "test ! -f FOLDER/%f && cp %p FOLDER/%f.new && mv FOLDER/%f.new FOLDER/%f";
const NEXT_EPOCH: &str = "SELECT (pg_current_xact_id()::text::bigint >> 32) + 1";
const FORGET_PAYMENT_CHANGES: &str = "BEGIN; TRUNCATE payment_changes; \
    UPDATE payment_changes_swept SET revision = payment_changes_settled(); COMMIT";
const FORGET_PRODUCT_CHANGES: &str = "BEGIN; TRUNCATE watch_log; \
    UPDATE watch_state SET last_revision = last_revision + 1000000, \
        trimmed_through = last_revision + 1000000; COMMIT";

#[tokio::test(flavor = "multi_thread")]
async fn a_shop_restored_from_dumps_into_a_new_cluster_goes_on() {
    let mut lost = Postgres::start().unwrap();
    lost.stop();
    begin_epoch(&lost, "1"); // As one that has had many transactions.
    lost.start_again().unwrap();
    let mut shop = shop_on(&lost).await;
    put_on_sale(shop.rest(), "MUG-1", 1250, 100).await;
    let sold = sell(shop.rest(), 1).await;
    shop.drain_events().await;
    shop.stop_payment().await;
    shop.stop_product().await;
    let databases = shop.databases();
    let [product, payment] = &databases;
    let files = databases.each_ref().map(|name| lost.folder().join(name));
    for (database, file) in databases.iter().zip(&files) {
        dump(&lost, database, file);
    }
    let seen = psql(&lost, payment, "SELECT max(revision) FROM payment_changes");
    let epoch = psql(&lost, payment, NEXT_EPOCH);

    let mut new = Postgres::start().unwrap();
    for (database, file) in databases.iter().zip(&files) {
        restore(&new, database, file);
    }
    let next = psql(&new, payment, "SELECT payment_changes_settled()");
    let number = |text: &str| text.parse::<i64>().unwrap();
    assert!(
        number(&next) < number(&seen),
        "without what follows {seen} would come again, after {next}"
    );
    new.stop();
    begin_epoch(&new, &epoch);
    new.start_again().unwrap();
    psql(&new, payment, FORGET_PAYMENT_CHANGES);
    psql(&new, product, FORGET_PRODUCT_CHANGES);

    new.stop();
    lost.stop_immediately();
    take_place(&lost, &new.folder().join("data"));
    lost.start_again().unwrap();
    shop.start_product().await;
    shop.start_payment().await;
    let (on_hand, reserved, _) = stock(shop.rest(), "MUG-1").await;
    assert_eq!((on_hand, reserved), (99, 2));
    for watch in ["payments", "products"] {
        let resumed = format!("/v1/{watch}:watch?resumeRevision={seen}");
        let refused = shop.rest().get(&resumed).await;
        assert_eq!(
            refused.status,
            400,
            "a watcher has to begin anew: {}",
            refused.text()
        );
    }
    goes_on(shop.rest(), &sold, 2).await;
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shop_recovered_from_a_base_backup_and_its_log_has_lost_nothing() {
    let mut postgres = Postgres::start().unwrap();
    let (archive, base) = (
        postgres.folder().join("archive"),
        postgres.folder().join("base"),
    );
    psql(
        &postgres,
        "postgres",
        &format!("COPY (SELECT 1) TO PROGRAM 'mkdir {}'", archive.display()),
    );
    let keep = ARCHIVING.replace("FOLDER", &archive.display().to_string());
    psql(&postgres, "postgres", "ALTER SYSTEM SET archive_mode = on");
    psql(
        &postgres,
        "postgres",
        &format!("ALTER SYSTEM SET archive_command = '{keep}'"),
    );
    postgres.stop();
    postgres.start_again().unwrap();

    let mut shop = shop_on(&postgres).await;
    put_on_sale(shop.rest(), "MUG-1", 1250, 100).await;
    sell(shop.rest(), 1).await;
    let mut backup = postgres.tool("pg_basebackup");
    backup
        .args(["--checkpoint=fast", "--wal-method=none", "--pgdata"])
        .arg(&base);
    output(backup.arg("--dbname").arg(postgres.url())).unwrap();
    let sold = sell(shop.rest(), 2).await;
    shop.drain_events().await;
    shop.stop_payment().await;
    shop.stop_product().await;
    let last = psql(
        &postgres,
        "postgres",
        "SELECT pg_walfile_name(pg_switch_wal())",
    );
    let archived = format!("SELECT last_archived_wal >= '{last}' FROM pg_stat_archiver");
    eventually("the log is archived", || async {
        psql(&postgres, "postgres", &archived) == "t"
    })
    .await;

    postgres.stop_immediately();
    let fetch = format!("\nrestore_command = 'cp {}/%f %p'\n", archive.display());
    let settings = base.join("postgresql.auto.conf");
    let kept = fs::read_to_string(&settings).unwrap();
    fs::write(&settings, kept + &fetch).unwrap();
    fs::write(base.join("recovery.signal"), "").unwrap();
    take_place(&postgres, &base);
    postgres.start_again().unwrap();
    eventually("it has recovered", || async {
        psql(&postgres, "postgres", "SELECT pg_is_in_recovery()") == "f"
    })
    .await;
    shop.start_product().await;
    shop.start_payment().await;
    goes_on(shop.rest(), &sold, 3).await;
    shop.close().await;
}

#[test]
fn the_runbook_says_what_is_tried_here() {
    let runbook = include_str!("../../docs/operations.md");
    for command in [
        NEXT_EPOCH,
        FORGET_PAYMENT_CHANGES,
        FORGET_PRODUCT_CHANGES,
        ARCHIVING,
        "pg_dump --format=custom",
        "pg_restore --exit-on-error",
        "pg_resetwal --epoch 1 --pgdata",
        "pg_basebackup --checkpoint=fast --wal-method=none",
    ] {
        let command = command.replace("FOLDER", "/backup/wal");
        assert!(runbook.contains(&command), "{command}");
    }
}

/// Puts restored data where a cluster's own was.
fn take_place(postgres: &Postgres, data: &Path) {
    let lost = postgres.folder().join("data");
    fs::remove_dir_all(&lost).unwrap();
    fs::rename(data, &lost).unwrap();
}
