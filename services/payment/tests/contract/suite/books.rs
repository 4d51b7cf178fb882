//! The ledger: read in pages, summed up by account, and never changed.

use crate::suite::world::{Buy, World, owned};
use kernel::{Currency, PaymentId};
use payment::ledger::Source;
use payment::refund::Wanted;
use payment::store::LedgerEntry;

#[tokio::test]
async fn entries_come_newest_first_and_sum_up_to_the_accounts() {
    let world = World::new().await;
    let process = world.process();
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(process.create(&world, Buy::some()).await.unwrap().id);
        world.clock.advance(1);
    }
    let wanted = Wanted::Lines(owned(&[("A", 1)]));
    process
        .refund(&world, &ids[1], wanted, false)
        .await
        .unwrap();
    let store = world.storage.store();

    let mut entries: Vec<LedgerEntry> = Vec::new();
    loop {
        let after = entries
            .last()
            .map(|entry| (entry.recorded_at_us, entry.id.clone()));
        let page = store.entries(None, after, 3).await.unwrap();
        if page.is_empty() {
            break;
        }
        entries.extend(page);
    }
    let payments: Vec<&str> = entries
        .iter()
        .map(|entry| entry.payment_id.as_deref().unwrap())
        .collect();
    assert_eq!(payments, [&*ids[1], &*ids[2], &*ids[1], &*ids[0]]);
    let refund = &entries[0];
    let usd = Currency::parse("USD").unwrap();
    assert!(matches!(refund.source, Source::Refund(_)));
    assert!(matches!(entries[1].source, Source::Capture(_)));
    let provider = "assets:provider:simulator".to_owned();
    let expected = [
        ("income:refunds".to_owned(), usd, 100),
        (provider, usd, -100),
    ];
    assert_eq!(refund.postings, expected);

    let id = PaymentId::parse(&ids[1]).unwrap();
    let of_one = store.entries(Some(id), None, 10).await.unwrap();
    assert_eq!(of_one, [entries[0].clone(), entries[2].clone()]);

    let accounts = store.accounts(Some(usd)).await.unwrap();
    let balances: Vec<(&str, i64)> = accounts
        .iter()
        .map(|account| (account.account.as_str(), account.balance_minor))
        .collect();
    let expected = [
        ("assets:provider:simulator", 3 * 450 - 100),
        ("income:refunds", 100),
        ("income:sales", -3 * 450),
    ];
    assert_eq!(balances, expected);
    let euro = Currency::parse("EUR").unwrap();
    assert_eq!(store.accounts(Some(euro)).await.unwrap(), []);
    world.check().await;
}

#[tokio::test]
async fn nobody_changes_the_books() {
    let world = World::new().await;
    world.process().create(&world, Buy::some()).await.unwrap();
    for statement in [
        "UPDATE ledger_postings SET amount_minor = amount_minor + 1",
        "DELETE FROM ledger_postings",
        "UPDATE ledger_transactions SET recorded_at_us = 0",
        "DELETE FROM ledger_transactions",
    ] {
        let refused = world.storage.execute(statement).await.unwrap_err();
        assert!(refused.contains("append-only"), "{statement}: {refused}");
    }
    world.check().await;
}
