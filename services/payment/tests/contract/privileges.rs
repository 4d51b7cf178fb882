//! What the service's own role may do to a schema that another role has brought up.

use crate::storage::Storage;
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
    for table in ["ledger_transactions", "ledger_postings", "payment_history"] {
        run(format!("INSERT INTO {table} SELECT * FROM {table}"))
            .await
            .unwrap();
        for statement in [
            format!("DELETE FROM {table}"),
            format!("UPDATE {table} SET payment_id = payment_id"),
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
