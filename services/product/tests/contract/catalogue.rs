//! Products: creating, changing, deleting, watching.

use std::sync::Arc;

use product::{
    error::Error,
    product::{Field, VariantOption},
    store::{ChangeKind, Store, Update},
};
use prost::Message as _;

use crate::harness::{
    START_US, adjust, at, create, draft, id, keyed, krw, on_every_store, reserve, stocked, units,
    usd, variant,
};

on_every_store! {
    a_product_reads_back_as_it_was_created
    handles_and_skus_are_unique
    a_stale_etag_is_refused
    a_mask_changes_its_fields_and_no_others
    an_update_that_changes_nothing_is_no_change
    variants_are_matched_by_sku
    a_deleted_product_is_found_but_not_sold
    the_same_key_gives_the_same_bytes
    a_refused_call_leaves_its_key_free
    the_log_can_be_resumed_from_every_revision
    missing_products_are_named
}

fn update(product: &proto::commerce::product::v1::Product, fields: &[Field]) -> Update {
    Update {
        id: id(product),
        fields: fields.to_vec(),
        draft: draft("Changed", vec![variant("A", 7)]),
        etag: product.etag.clone(),
    }
}

async fn a_product_reads_back_as_it_was_created(store: Arc<dyn Store>) {
    let mut draft = draft("머그컵 Mug", vec![variant("MUG-S", 3), variant("MUG-L", 0)]);
    draft.tags = vec!["a b".into(), "컵".into()];
    draft.variants[1].variant.prices = vec![usd(1000), krw(13_000)];
    draft.variants[1].variant.options = vec![VariantOption {
        name: "Size".into(),
        value: "L\"'\\".into(),
    }];
    let created = create(&*store, &draft, START_US).await;
    assert_eq!(created.handle, "머그컵-mug");
    assert_eq!(created.variants[0].available_quantity, 3);
    let codes: Vec<&str> = created.variants[1]
        .prices
        .iter()
        .map(|price| price.currency_code.as_str())
        .collect();
    assert_eq!(codes, ["KRW", "USD"]);
    let view = store.get(id(&created), START_US).await.unwrap();
    assert_eq!(product::wire::product(&view), created);
    assert_eq!(view.product.tags, draft.tags);
    assert_eq!(
        view.product.variants[1].options,
        draft.variants[1].variant.options
    );
}

async fn handles_and_skus_are_unique(store: Arc<dyn Store>) {
    let first = create(&*store, &draft("Tea", vec![variant("TEA", 1)]), START_US).await;
    let second = create(&*store, &draft("Tea!", vec![variant("TEA-2", 1)]), START_US).await;
    assert_eq!(
        (first.handle.as_str(), second.handle.as_str()),
        ("tea", "tea-2")
    );
    let taken = store
        .create(&at(START_US), &draft("Other", vec![variant("TEA", 1)]))
        .await;
    assert!(matches!(taken, Err(Error::SkuTaken { product_id, .. }) if product_id == first.id));
    let mut named = draft("Other", vec![variant("OTHER", 1)]);
    named.handle = "tea".into();
    let taken = store.create(&at(START_US), &named).await;
    assert!(matches!(taken, Err(Error::HandleTaken { product_id, .. }) if product_id == first.id));
    // What was refused left nothing behind.
    assert!(matches!(
        store.stock("OTHER", START_US).await,
        Err(Error::SkusNotFound(_))
    ));
    named.handle = "other".into();
    create(&*store, &named, START_US).await;
}

async fn a_stale_etag_is_refused(store: Arc<dyn Store>) {
    let first = stocked(&*store, "A", 1).await;
    let second = store
        .update(&at(START_US), &update(&first, &[Field::Title]))
        .await
        .unwrap();
    assert_ne!(second.resource.etag, first.etag);
    let stale = store
        .update(&at(START_US), &update(&first, &[Field::Vendor]))
        .await;
    assert!(matches!(stale, Err(Error::EtagMismatch { .. })));
    let stale = store.delete(&at(START_US), id(&first), &first.etag).await;
    assert!(matches!(stale, Err(Error::EtagMismatch { .. })));
    // Stock is not part of the product: its changes do not make an etag stale.
    adjust(&*store, "A", 5, START_US).await.unwrap();
    store
        .delete(&at(START_US), id(&first), &second.resource.etag)
        .await
        .unwrap();
}

async fn a_mask_changes_its_fields_and_no_others(store: Arc<dyn Store>) {
    let before = stocked(&*store, "A", 1).await;
    let after = store
        .update(&at(START_US + 1), &update(&before, &[Field::Title]))
        .await
        .unwrap()
        .resource;
    assert_eq!(after.title, "Changed");
    let mut expected = before.clone();
    expected.title.clone_from(&after.title);
    expected.etag.clone_from(&after.etag);
    expected.update_time = after.update_time;
    assert_eq!(after, expected);
    assert_ne!(after.update_time, before.update_time);
}

async fn an_update_that_changes_nothing_is_no_change(store: Arc<dyn Store>) {
    let before = stocked(&*store, "A", 1).await;
    let revision = store.revision().await.unwrap();
    let mut same = update(&before, &[Field::Variants, Field::Vendor]);
    same.draft.vendor = "Vendor".into();
    let after = store
        .update(&at(START_US + 9), &same)
        .await
        .unwrap()
        .resource;
    assert_eq!(after, before);
    assert_eq!(store.revision().await.unwrap(), revision);
}

async fn variants_are_matched_by_sku(store: Arc<dyn Store>) {
    let before = stocked(&*store, "A", 1).await;
    let mut update = update(&before, &[Field::Variants]);
    update.etag.clear();
    update.draft.variants = vec![variant("B", 4), variant("A", 9)];
    let after = store.update(&at(START_US), &update).await.unwrap().resource;
    let skus: Vec<(&str, i32)> = after
        .variants
        .iter()
        .map(|v| (v.sku.as_str(), v.available_quantity))
        .collect();
    assert_eq!(
        skus,
        [("B", 4), ("A", 1)],
        "the stock of a variant that exists is not reset"
    );

    update.draft.variants = vec![variant("B", 0)];
    let refused = store.update(&at(START_US), &update).await;
    assert!(matches!(
        refused,
        Err(Error::VariantHasStock { on_hand: 1, .. })
    ));
    adjust(&*store, "A", -1, START_US).await.unwrap();
    store.update(&at(START_US), &update).await.unwrap();
    assert!(matches!(
        store.stock("A", START_US).await,
        Err(Error::SkusNotFound(_))
    ));

    // The SKU is free again, for another product too.
    let other = create(&*store, &draft("Other", vec![variant("A", 2)]), START_US).await;
    assert_eq!(other.variants[0].available_quantity, 2);
    update.draft.variants = vec![variant("A", 0)];
    let taken = store.update(&at(START_US), &update).await;
    assert!(matches!(taken, Err(Error::SkuTaken { .. })));
}

async fn a_deleted_product_is_found_but_not_sold(store: Arc<dyn Store>) {
    let product = stocked(&*store, "A", 5).await;
    let deleted = store
        .delete(&at(START_US), id(&product), "")
        .await
        .unwrap()
        .resource;
    assert!(deleted.delete_time.is_some());
    assert_eq!(
        store
            .get(id(&product), START_US)
            .await
            .unwrap()
            .product
            .deleted_at_us,
        Some(START_US)
    );
    let refused = reserve(&*store, &[("A", 1)], 60, START_US).await;
    assert!(matches!(refused, Err(Error::SkusNotFound(skus)) if skus == ["A"]));
    let again = store.delete(&at(START_US), id(&product), "").await;
    assert!(matches!(again, Err(Error::InvalidState { .. })));
    let changed = store
        .update(&at(START_US), &update(&deleted, &[Field::Title]))
        .await;
    assert!(matches!(changed, Err(Error::InvalidState { .. })));
    let back = store
        .undelete(&at(START_US), id(&product))
        .await
        .unwrap()
        .resource;
    assert!(back.delete_time.is_none());
    assert!(matches!(
        store.undelete(&at(START_US), id(&product)).await,
        Err(Error::InvalidState { .. })
    ));
    assert_eq!(units(&*store, "A", START_US).await, (5, 0, 5));
    reserve(&*store, &[("A", 1)], 60, START_US).await.unwrap();
}

async fn the_same_key_gives_the_same_bytes(store: Arc<dyn Store>) {
    let draft = draft("Tea", vec![variant("TEA", 1)]);
    let first = store
        .create(&keyed("k1", "tea", START_US), &draft)
        .await
        .unwrap();
    assert!(!first.replayed);
    adjust(&*store, "TEA", 9, START_US).await.unwrap(); // What is answered is what was answered.
    let again = store
        .create(&keyed("k1", "tea", START_US + 5), &draft)
        .await
        .unwrap();
    assert!(again.replayed);
    assert_eq!(
        again.resource.encode_to_vec(),
        first.resource.encode_to_vec()
    );
    let other = store.create(&keyed("k1", "coffee", START_US), &draft).await;
    assert!(matches!(other, Err(Error::KeyReused)));
    assert_eq!(store.revision().await.unwrap(), 1);
}

async fn a_refused_call_leaves_its_key_free(store: Arc<dyn Store>) {
    let origin = keyed("k1", "delete", START_US);
    let product = stocked(&*store, "A", 1).await;
    let refused = store.delete(&origin, id(&product), "v9").await;
    assert!(matches!(refused, Err(Error::EtagMismatch { .. })));
    let deleted = store.delete(&origin, id(&product), "v1").await.unwrap();
    assert!(!deleted.replayed);
    assert!(
        store
            .delete(&origin, id(&product), "v1")
            .await
            .unwrap()
            .replayed
    );
}

async fn the_log_can_be_resumed_from_every_revision(store: Arc<dyn Store>) {
    let mut revisions = store.revisions();
    let product = stocked(&*store, "A", 1).await;
    let product = store
        .update(&at(START_US), &update(&product, &[Field::Title]))
        .await
        .unwrap()
        .resource;
    store.delete(&at(START_US), id(&product), "").await.unwrap();
    store.undelete(&at(START_US), id(&product)).await.unwrap();
    adjust(&*store, "A", 1, START_US).await.unwrap(); // Not a change of the product.
    assert_eq!(*revisions.borrow_and_update(), 4);
    let all = store.changes(0, 100).await.unwrap();
    let kinds: Vec<ChangeKind> = all.iter().map(|change| change.kind).collect();
    let expected = [
        ChangeKind::Created,
        ChangeKind::Updated,
        ChangeKind::Deleted,
        ChangeKind::Undeleted,
    ];
    assert_eq!(kinds, expected);
    for from in 0..=4 {
        let rest = store.changes(from, 100).await.unwrap();
        assert_eq!(rest[..], all[usize::try_from(from).unwrap()..]);
    }
    assert_eq!(store.changes(1, 2).await.unwrap()[..], all[1..3]);
    for outside in [-1, 5] {
        let refused = store.changes(outside, 1).await;
        assert!(matches!(
            refused,
            Err(Error::RevisionOutOfRange { last: 4, .. })
        ));
    }
}

async fn missing_products_are_named(store: Arc<dyn Store>) {
    let product = stocked(&*store, "A", 1).await;
    let known = id(&product);
    let unknown = kernel::ProductId::generate(START_US);
    let missing = store.batch_get(&[known, unknown], &[], START_US).await;
    assert!(matches!(missing, Err(Error::ProductsNotFound(ids)) if ids == [unknown.to_string()]));
    let missing = store
        .batch_get(&[known], &["A".into(), "B".into()], START_US)
        .await;
    assert!(matches!(missing, Err(Error::SkusNotFound(skus)) if skus == ["B"]));
    let found = store
        .batch_get(&[known], &["A".into()], START_US)
        .await
        .unwrap();
    assert_eq!(found.len(), 2);
    assert_eq!(found[0], found[1]);
    assert!(matches!(
        store.get(unknown, START_US).await,
        Err(Error::ProductsNotFound(_))
    ));
}
