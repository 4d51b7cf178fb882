use mesh_store::postgres::inbox::{insert, sweep};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::database::Database;

#[tokio::test]
async fn an_event_is_new_once_for_each_consumer() {
    let (database, postgres) = Database::open().await;
    let id = Uuid::from_u128(1);
    let mut write = postgres.begin().await.unwrap();
    assert!(insert(&mut write, "one", id, 1).await.unwrap());
    write.rollback().await.unwrap();
    let mut write = postgres.begin().await.unwrap();
    let again = insert(&mut write, "one", id, 1).await.unwrap();
    assert!(again, "the first was rolled back");
    assert!(!insert(&mut write, "one", id, 2).await.unwrap());
    assert!(insert(&mut write, "two", id, 2).await.unwrap());
    write.commit().await.unwrap();
    database.drop().await;
}

/// A second delivery that comes while the first is being applied waits, and is then no second effect.
#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_waits_for_one_that_is_being_applied() {
    let (database, postgres) = Database::open().await;
    let id = Uuid::from_u128(1);
    let mut first = postgres.begin().await.unwrap();
    assert!(insert(&mut first, "one", id, 1).await.unwrap());
    let mut second = JoinSet::new();
    second.spawn({
        let postgres = postgres.clone();
        async move {
            let mut write = postgres.begin().await.unwrap();
            insert(&mut write, "one", id, 2).await.unwrap()
        }
    });
    first.commit().await.unwrap();
    assert!(!second.join_next().await.unwrap().unwrap());
    database.drop().await;
}

#[tokio::test]
async fn sweeping_is_bounded_and_takes_the_oldest_first() {
    let (database, postgres) = Database::open().await;
    let mut write = postgres.begin().await.unwrap();
    for number in 0..30_u32 {
        let id = Uuid::from_u128(1_000 - u128::from(number)); // The other way round than the time.
        insert(&mut write, "one", id, i64::from(number))
            .await
            .unwrap();
    }
    assert_eq!(sweep(&mut write, 20, 15).await.unwrap(), 15);
    let (swept, kept) = (Uuid::from_u128(1_000 - 14), Uuid::from_u128(1_000 - 15));
    assert!(insert(&mut write, "one", swept, 99).await.unwrap());
    assert!(!insert(&mut write, "one", kept, 99).await.unwrap());
    assert_eq!(sweep(&mut write, 20, 15).await.unwrap(), 5);
    assert_eq!(sweep(&mut write, 20, 15).await.unwrap(), 0);
    write.commit().await.unwrap();
    database.drop().await;
}
