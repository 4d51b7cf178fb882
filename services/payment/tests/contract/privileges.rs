//! What the schema refuses: to the service's own role, to whoever writes past the service, and to a release that
//! is newer than it.

use crate::storage::Storage;
use crate::suite::world::{Buy, World};
use kernel::PaymentId;
use mesh_store::{Durability, Postgres};
use payment::store::postgres;
use sqlx::{AssertSqlSafe, Connection as _};

#[tokio::test]
async fn the_role_of_the_service_only_adds_to_the_books() {
    let storage = Storage::fresh(Durability::Relaxed).await;
    let role = format!("payment_role_{:016x}", rand::random::<u64>());
    storage
        .execute(&format!("CREATE ROLE {role}"))
        .await
        .unwrap();
    payment::store::migrate(storage.config(), &role)
        .await
        .unwrap();
    let mut connection = sqlx::PgConnection::connect(&storage.config().url)
        .await
        .unwrap();
    let mut run = async |sql: String| {
        let done = sqlx::query(AssertSqlSafe(sql))
            .execute(&mut connection)
            .await;
        done.map(drop).map_err(|error| error.to_string())
    };
    run(format!("SET ROLE {role}")).await.unwrap();
    for table in [
        "payments",
        "attempts",
        "captures",
        "refunds",
        "ledger_balances",
        "payment_changes",
    ] {
        run(format!("DELETE FROM {table}")).await.unwrap();
    }
    for (table, column) in [
        ("ledger_transactions", "payment_id"),
        ("ledger_postings", "account"),
        ("payment_history", "payment_id"),
        ("audit_log", "outcome"),
    ] {
        run(format!("INSERT INTO {table} SELECT * FROM {table}"))
            .await
            .unwrap();
        for statement in [
            format!("DELETE FROM {table}"),
            format!("UPDATE {table} SET {column} = {column}"),
            format!("TRUNCATE {table}"),
            format!("DROP TABLE {table}"),
            format!("ALTER TABLE {table} DISABLE TRIGGER ALL"),
        ] {
            let refused = run(statement.clone()).await.unwrap_err();
            let expected = ["permission denied", "must be owner", "does not exist"];
            assert!(
                expected.iter().any(|part| refused.contains(part)),
                "{statement}: {refused}"
            );
        }
    }
    run("RESET ROLE".into()).await.unwrap();
    run(format!("DROP OWNED BY {role}")).await.unwrap();
    run(format!("DROP ROLE {role}")).await.unwrap();
}

/// Whoever writes past the service: the table itself says no.
#[tokio::test]
async fn the_schema_holds_what_must_hold() {
    let world = World::new().await;
    let created = world.process().create(&world, Buy::some()).await.unwrap();
    let id = PaymentId::parse(&created.id).unwrap().uuid();
    let posting = "INSERT INTO ledger_postings SELECT id, 9, 'income:sales', 'USD', 1 FROM ledger_transactions";
    let more = "captured_minor = amount_minor + 1";
    for (statement, reason) in [
        (posting.to_owned(), "do not sum to zero"),
        (
            format!("UPDATE payments SET {more} WHERE id = '{id}'"),
            "payments_check",
        ),
        (
            format!("UPDATE payments SET state = 'LOST' WHERE id = '{id}'"),
            "state_check",
        ),
        (
            "UPDATE captures SET amount_minor = 0".to_owned(),
            "amount_minor_check",
        ),
        (
            "UPDATE captures SET captured_at_us = NULL".to_owned(),
            "captures_check",
        ),
        (
            format!("DELETE FROM payments WHERE id = '{id}'"),
            "foreign key",
        ),
    ] {
        let refused = world.storage.execute(&statement).await.unwrap_err();
        assert!(refused.contains(reason), "{statement}: {refused}");
    }
    world.check().await;
}

#[tokio::test]
async fn a_schema_without_the_newest_migration_is_refused() {
    let storage = Storage::fresh(Durability::Relaxed).await;
    storage
        .execute("DELETE FROM _sqlx_migrations")
        .await
        .unwrap();
    let refused = Postgres::connect(storage.config(), &postgres::MIGRATIONS).await;
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("migrate"), "{refused}");
}
