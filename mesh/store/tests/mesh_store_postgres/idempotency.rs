use mesh_store::{
    Postgres,
    idempotency::{Claim, Key, Pending, fingerprint},
    postgres::idempotency::{abandon, claim, complete, find, in_flight, in_flight_for, sweep},
};
use tokio::task::JoinSet;

use crate::database::Database;

fn key(request_id: &str) -> Key {
    Key {
        principal: "shop".into(),
        method: "/commerce.Payments/Create".into(),
        request_id: request_id.into(),
        fingerprint: fingerprint(b"amount 100"),
    }
}

async fn claim_now(postgres: &Postgres, key: &Key, reference: &str, now_us: i64) -> Claim {
    let mut write = postgres.begin().await.unwrap();
    let claim = claim(&mut write, key, reference, now_us).await.unwrap();
    write.commit().await.unwrap();
    claim
}

#[tokio::test(flavor = "multi_thread")]
async fn of_concurrent_claims_one_is_new() {
    let (database, postgres) = Database::open().await;
    let other = database.connect().await;
    let mut claims = JoinSet::new();
    for number in 0..100 {
        let postgres = if number % 2 == 0 { &postgres } else { &other }.clone();
        claims.spawn(
            async move { claim_now(&postgres, &key("k"), &format!("pay_{number}"), 1).await },
        );
    }
    let claims = claims.join_all().await;
    let new = claims.iter().filter(|claim| **claim == Claim::New);
    assert_eq!(new.count(), 1);
    let mut connection = postgres.pool().acquire().await.unwrap();
    let pending = in_flight(&mut connection, 2, 10).await.unwrap();
    let [Pending { reference, .. }] = &pending[..] else {
        panic!("{pending:?}")
    };
    let in_flight = Claim::InFlight {
        reference: reference.clone(),
    };
    let others = claims.iter().filter(|claim| **claim == in_flight);
    assert_eq!(others.count(), 99);
    drop(connection);
    database.drop().await;
}

/// Who meets a claim that is not committed yet waits for it, and takes the key if it is rolled back.
#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_is_rolled_back_leaves_its_key_to_the_next() {
    let (database, postgres) = Database::open().await;
    let mut first = postgres.begin().await.unwrap();
    let claimed = claim(&mut first, &key("k"), "first", 1).await.unwrap();
    assert_eq!(claimed, Claim::New);
    let mut second = JoinSet::new();
    second.spawn({
        let postgres = postgres.clone();
        async move { claim_now(&postgres, &key("k"), "second", 2).await }
    });
    first.rollback().await.unwrap();
    assert_eq!(second.join_next().await.unwrap().unwrap(), Claim::New);
    database.drop().await;
}

#[tokio::test]
async fn a_completed_key_replays_its_first_answer_to_the_same_request_only() {
    let (database, postgres) = Database::open().await;
    let answer: Vec<u8> = (0..=255).cycle().take(5_000).collect();
    let mut write = postgres.begin().await.unwrap();
    claim(&mut write, &key("k"), "", 1).await.unwrap();
    assert!(complete(&mut write, &key("k"), &answer, 2).await.unwrap());
    assert!(!complete(&mut write, &key("k"), b"other", 3).await.unwrap());
    write.commit().await.unwrap();
    let replay = claim_now(&postgres, &key("k"), "", 4).await;
    assert_eq!(replay, Claim::Replay(answer));
    let other = Key {
        fingerprint: fingerprint(b"amount 200"),
        ..key("k")
    };
    assert_eq!(claim_now(&postgres, &other, "", 5).await, Claim::Reused);
    let stranger = Key {
        principal: "other".into(),
        ..key("k")
    };
    assert_eq!(claim_now(&postgres, &stranger, "", 6).await, Claim::New);
    database.drop().await;
}

#[tokio::test]
async fn recovery_finds_what_is_in_flight_and_may_abandon_it() {
    let (database, postgres) = Database::open().await;
    claim_now(&postgres, &key("a"), "pay_1", 1).await;
    claim_now(&postgres, &key("b"), "pay_2", 2).await;
    let mut connection = postgres.pool().acquire().await.unwrap();
    let found = in_flight_for(&mut connection, "pay_2").await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].key, key("b"));
    let found = in_flight(&mut connection, 2, 10).await.unwrap();
    assert_eq!(found[0].reference, "pay_1");
    assert!(abandon(&mut connection, &key("a")).await.unwrap());
    assert!(!abandon(&mut connection, &key("a")).await.unwrap());
    assert_eq!(find(&mut connection, &key("a")).await.unwrap(), None);
    drop(connection);
    database.drop().await;
}

#[tokio::test]
async fn sweeping_is_bounded_and_leaves_what_is_in_flight() {
    let (database, postgres) = Database::open().await;
    let mut write = postgres.begin().await.unwrap();
    for number in 0..5_i64 {
        let key = key(&number.to_string());
        claim(&mut write, &key, "", number).await.unwrap();
        if number > 0 {
            complete(&mut write, &key, b"", number).await.unwrap();
        }
    }
    assert_eq!(sweep(&mut write, 4, 2).await.unwrap(), 2);
    assert_eq!(sweep(&mut write, 4, 2).await.unwrap(), 1);
    assert_eq!(sweep(&mut write, 4, 2).await.unwrap(), 0);
    assert!(find(&mut write, &key("0")).await.unwrap().is_some());
    assert!(find(&mut write, &key("3")).await.unwrap().is_none());
    write.commit().await.unwrap();
    database.drop().await;
}
