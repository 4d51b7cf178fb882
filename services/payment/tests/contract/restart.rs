//! A restart on the same SQLite file, also by a newer version.

use crate::suite::crash::{create, only_payment, sold};
use crate::suite::fuse::Fuse;
use crate::suite::world::{Buy, World};
use kernel::{CaptureId, PaymentId};
use mesh_store::{Sqlite, SqliteConfig};
use payment::error::Error;
use payment::ledger::Source;
use payment::store::sqlite::MIGRATIONS;
use payment::store::{SqliteStore, Store as _};
use sqlx::migrate::Migrator;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _};

/// The next process on the same file need not wait until the leases of the last one run out.
#[tokio::test]
async fn a_restart_goes_on_at_once() {
    let world = World::new().await;
    let fuse = Fuse::at(12);
    let doomed = world.process_with(&fuse);
    let buy = Buy {
        order_ref: Some("restart".into()),
        ..Buy::some()
    };
    tokio::select! {
        biased;
        () = fuse.blown() => {}
        _ = create(&doomed, &world, "restart", &buy) => panic!("ran through"),
    }
    let next = world.process();
    assert_eq!(
        next.worker.run_once().await.unwrap(),
        0,
        "the lease is not free"
    );
    assert!(matches!(
        create(&next, &world, "restart", &buy).await,
        Err(Error::InFlight)
    ));
    assert_eq!(world.storage.sqlite().end_leases().await.unwrap(), 1);
    assert_eq!(next.worker.run_once().await.unwrap(), 1);
    create(&next, &world, "restart", &buy).await.unwrap();
    assert!(sold(&only_payment(&world, "restart").await));
    world.check().await;
}

/// Migration 10 makes the tables of the ledger anew: what was booked before is booked, and guarded, after it.
#[tokio::test]
async fn an_upgrade_keeps_the_books() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("payment.db");
    let mut options = SqliteConnectOptions::new().filename(&path);
    options = options.create_if_missing(true).foreign_keys(true);
    let mut connection = options.connect().await.unwrap();
    let older = MIGRATIONS.iter().filter(|migration| migration.version < 10);
    let older = Migrator::with_migrations(older.cloned().collect());
    older
        .run_direct(None, &mut connection, false)
        .await
        .unwrap();
    let (payment, capture) = (PaymentId::generate(0), CaptureId::generate(0));
    let booked = format!(
        "INSERT INTO payments (id, principal, order_ref, customer_ref, currency, amount_minor, captured_minor,
             refunded_minor, items, state, capture_method, payment_method, provider, late_success, created_at_us,
             updated_at_us, version)
         VALUES ('{payment}', 'shop', '1', '', 'USD', 5, 5, 0, '[]', 'SUCCEEDED', 'automatic', 'tok', 'p', 0, 1, 1, 1);
         INSERT INTO ledger_transactions VALUES ('txn_1', 'capture', '{payment}', '{capture}', 7);
         INSERT INTO ledger_postings VALUES ('txn_1', 0, 'assets:provider:p', 'USD', 5),
             ('txn_1', 1, 'income:sales', 'USD', -5);"
    );
    sqlx::raw_sql(AssertSqlSafe(booked))
        .execute(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();

    let config = SqliteConfig {
        path,
        ..SqliteConfig::default()
    };
    let sqlite = Sqlite::open(&config, &MIGRATIONS).await.unwrap();
    let entries = SqliteStore::new(sqlite.clone())
        .entries(None, None, 9)
        .await;
    let entries = entries.unwrap();
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].source, Source::Capture(capture));
    assert_eq!(entries[0].payment_id, Some(payment.to_string()));
    assert_eq!(entries[0].postings.len(), 2);
    for (statement, expected) in [
        ("DELETE FROM ledger_postings", "append-only"),
        ("UPDATE ledger_transactions SET id = ''", "append-only"),
        (
            "INSERT INTO ledger_postings VALUES ('txn_2', 0, 'a', 'USD', 1)",
            "FOREIGN KEY",
        ),
        (
            "INSERT INTO ledger_transactions VALUES ('txn_2', 'refund', NULL, 're_1', 7)",
            "CHECK",
        ),
    ] {
        let mut write = sqlite.begin().await.unwrap();
        let refused = sqlx::query(statement).execute(&mut *write).await;
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains(expected), "{statement}: {refused}");
    }
}
