use tokio::task::JoinSet;

use super::*;
use crate::{Sqlite, idempotency::fingerprint, testing::open};

fn key(request_id: &str) -> Key {
    Key {
        principal: "shop".into(),
        method: "/commerce.Payments/Create".into(),
        request_id: request_id.into(),
        fingerprint: fingerprint(b"amount 100"),
    }
}

async fn claim_now(sqlite: &Sqlite, key: &Key, reference: &str, now_us: i64) -> Claim {
    let mut write = sqlite.begin().await.unwrap();
    let claim = claim(&mut write, key, reference, now_us).await.unwrap();
    write.commit().await.unwrap();
    claim
}

async fn complete_now(sqlite: &Sqlite, key: &Key, answer: &[u8], now_us: i64) -> bool {
    let mut write = sqlite.begin().await.unwrap();
    let completed = complete(&mut write, key, answer, now_us).await.unwrap();
    write.commit().await.unwrap();
    completed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_a_thousand_concurrent_claims_one_is_new() {
    let (_folder, sqlite) = open().await;
    let mut claims = JoinSet::new();
    for number in 0..1_000 {
        let sqlite = sqlite.clone();
        claims
            .spawn(async move { claim_now(&sqlite, &key("k"), &format!("pay_{number}"), 1).await });
    }
    let claims = claims.join_all().await;
    assert_eq!(
        claims.iter().filter(|claim| **claim == Claim::New).count(),
        1
    );
    let mut connection = sqlite.reader().acquire().await.unwrap();
    let pending = in_flight(&mut connection, 2, 10).await.unwrap();
    let [Pending { reference, .. }] = &pending[..] else {
        panic!("{pending:?}")
    };
    let in_flight = Claim::InFlight {
        reference: reference.clone(),
    };
    assert_eq!(
        claims.iter().filter(|claim| **claim == in_flight).count(),
        999
    );
}

#[tokio::test]
async fn a_completed_key_replays_its_first_answer_byte_for_byte() {
    let (_folder, sqlite) = open().await;
    let answer: Vec<u8> = (0..=255).cycle().take(5_000).collect();
    assert_eq!(claim_now(&sqlite, &key("k"), "pay_1", 1).await, Claim::New);
    assert!(complete_now(&sqlite, &key("k"), &answer, 2).await);
    assert!(!complete_now(&sqlite, &key("k"), b"another answer", 3).await);
    assert_eq!(
        claim_now(&sqlite, &key("k"), "pay_2", 4).await,
        Claim::Replay(answer.clone())
    );
    let mut connection = sqlite.reader().acquire().await.unwrap();
    let found = find(&mut connection, &key("k")).await.unwrap();
    assert_eq!(found, Some(Claim::Replay(answer)));
    assert_eq!(find(&mut connection, &key("other")).await.unwrap(), None);
}

#[tokio::test]
async fn an_empty_answer_is_an_answer() {
    let (_folder, sqlite) = open().await;
    claim_now(&sqlite, &key("k"), "pay_1", 1).await;
    assert!(complete_now(&sqlite, &key("k"), b"", 2).await);
    assert_eq!(
        claim_now(&sqlite, &key("k"), "pay_1", 3).await,
        Claim::Replay(vec![])
    );
}

#[tokio::test]
async fn the_same_key_with_another_request_is_reused_in_flight_and_completed() {
    let (_folder, sqlite) = open().await;
    let other = Key {
        fingerprint: fingerprint(b"amount 101"),
        ..key("k")
    };
    claim_now(&sqlite, &key("k"), "pay_1", 1).await;
    assert_eq!(claim_now(&sqlite, &other, "pay_2", 2).await, Claim::Reused);
    assert!(!complete_now(&sqlite, &other, b"theirs", 3).await);
    let mut write = sqlite.begin().await.unwrap();
    assert!(!abandon(&mut write, &other).await.unwrap());
    write.commit().await.unwrap();
    assert!(complete_now(&sqlite, &key("k"), b"ours", 4).await);
    assert_eq!(claim_now(&sqlite, &other, "pay_2", 5).await, Claim::Reused);
}

#[tokio::test]
async fn principals_and_methods_do_not_share_keys() {
    let (_folder, sqlite) = open().await;
    claim_now(&sqlite, &key("k"), "pay_1", 1).await;
    complete_now(&sqlite, &key("k"), b"secret", 1).await;
    let principal = Key {
        principal: "rival".into(),
        ..key("k")
    };
    let method = Key {
        method: "/commerce.Payments/Cancel".into(),
        ..key("k")
    };
    assert_eq!(claim_now(&sqlite, &principal, "pay_2", 2).await, Claim::New);
    assert_eq!(claim_now(&sqlite, &method, "pay_1", 2).await, Claim::New);
}

#[tokio::test]
async fn a_claim_lives_and_dies_with_its_transaction() {
    let (_folder, sqlite) = open().await;
    let mut write = sqlite.begin().await.unwrap();
    assert_eq!(
        claim(&mut write, &key("k"), "pay_1", 1).await.unwrap(),
        Claim::New
    );
    write.rollback().await;
    assert_eq!(claim_now(&sqlite, &key("k"), "pay_2", 2).await, Claim::New);
}

#[tokio::test]
async fn an_abandoned_key_is_new_again_and_an_answer_can_not_be_abandoned() {
    let (_folder, sqlite) = open().await;
    claim_now(&sqlite, &key("k"), "pay_1", 1).await;
    for (abandoned, completed) in [(true, false), (false, true)] {
        if completed {
            assert_eq!(claim_now(&sqlite, &key("k"), "pay_2", 2).await, Claim::New);
            complete_now(&sqlite, &key("k"), b"done", 3).await;
        }
        let mut write = sqlite.begin().await.unwrap();
        assert_eq!(abandon(&mut write, &key("k")).await.unwrap(), abandoned);
        write.commit().await.unwrap();
    }
    assert_eq!(
        claim_now(&sqlite, &key("k"), "pay_3", 4).await,
        Claim::Replay(b"done".into())
    );
}

#[tokio::test]
async fn recovery_finds_what_is_in_flight_by_age_and_by_reference() {
    let (_folder, sqlite) = open().await;
    for (request_id, reference, now_us) in [
        ("a", "pay_1", 10),
        ("b", "pay_2", 20),
        ("c", "pay_1", 30),
        ("d", "pay_1", 40),
    ] {
        claim_now(&sqlite, &key(request_id), reference, now_us).await;
    }
    complete_now(&sqlite, &key("c"), b"done", 50).await;
    let mut connection = sqlite.reader().acquire().await.unwrap();
    let ids = |pending: &[Pending]| -> Vec<String> {
        pending
            .iter()
            .map(|pending| pending.key.request_id.clone())
            .collect()
    };
    assert_eq!(
        ids(&in_flight(&mut connection, 40, 10).await.unwrap()),
        ["a", "b"]
    );
    assert_eq!(
        ids(&in_flight(&mut connection, 41, 2).await.unwrap()),
        ["a", "b"]
    );
    let of_payment = in_flight_for(&mut connection, "pay_1").await.unwrap();
    assert_eq!(ids(&of_payment), ["a", "d"]);
    assert_eq!(
        of_payment[0],
        Pending {
            key: key("a"),
            reference: "pay_1".into(),
            claimed_at_us: 10
        }
    );
    assert!(complete_now(&sqlite, &of_payment[0].key, b"recovered", 60).await);
    let replay = Claim::Replay(b"recovered".into());
    assert_eq!(claim_now(&sqlite, &key("a"), "pay_9", 70).await, replay);
}

#[tokio::test]
async fn sweeping_is_bounded_and_spares_the_young_and_those_in_flight() {
    let (_folder, sqlite) = open().await;
    for number in 0..30 {
        claim_now(&sqlite, &key(&format!("k{number}")), "pay_1", 0).await;
    }
    for number in 0..25 {
        complete_now(&sqlite, &key(&format!("k{number}")), b"done", number).await;
    }
    let swept = async |limit| {
        let mut write = sqlite.begin().await.unwrap();
        let swept = sweep(&mut write, 20, limit).await.unwrap();
        write.commit().await.unwrap();
        swept
    };
    assert_eq!(swept(15).await, 15);
    assert_eq!(
        claim_now(&sqlite, &key("k14"), "pay_1", 0).await,
        Claim::New,
        "the oldest go first"
    );
    assert_eq!(
        claim_now(&sqlite, &key("k15"), "pay_1", 0).await,
        Claim::Replay(b"done".into())
    );
    assert_eq!(swept(15).await, 5);
    assert_eq!(swept(15).await, 0);
    let mut connection = sqlite.reader().acquire().await.unwrap();
    assert_eq!(in_flight(&mut connection, 1, 100).await.unwrap().len(), 6);
}
