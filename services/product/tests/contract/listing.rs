//! Lists, filters, orders, tokens and search.

use std::sync::Arc;

use product::{
    listing::{ListQuery, SearchQuery},
    product::Status,
    store::{SalesEntry, SalesEvent, Store},
};

use crate::harness::{START_US, at, create, draft, id, on_every_store, titles, variant};

on_every_store! {
    filters_select
    orders_sort_and_pages_join
    a_list_says_where_to_watch_from
    words_are_found_in_english
    words_are_found_in_korean
    the_index_follows_the_catalogue
    search_pages_join
}

async fn filters_select(store: Arc<dyn Store>) {
    for (index, (title, category, vendor)) in [
        ("Alpha", "Rock", "X"),
        ("Beta's", "Rock \"n\" Roll", "Y"),
        ("감마", "Tea", "X"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut draft = draft(title, vec![variant(&format!("S{index}"), 1)]);
        draft.category = category.into();
        draft.vendor = vendor.into();
        draft.tags = vec![format!("t{index}"), "all".into()];
        draft.status = (index == 2).then_some(Status::Draft);
        let created = create(
            &*store,
            &draft,
            START_US + i64::try_from(index).unwrap() * 1_000_000,
        )
        .await;
        let sales = SalesEvent {
            consumer: "product".into(),
            message_id: uuid::Uuid::now_v7(),
            entries: vec![SalesEntry {
                product_id: created.id,
                currency_code: "USD".into(),
                quantity: 10 * i64::try_from(index).unwrap(),
                amount_minor: 1,
            }],
        };
        assert!(store.add_sales(&sales, START_US).await.unwrap());
    }
    for (filter, expected) in [
        ("", vec!["Alpha", "Beta's", "감마"]),
        ("title = Alpha", vec!["Alpha"]),
        ("title != Alpha", vec!["Beta's", "감마"]),
        ("title : et", vec!["Beta's"]),
        ("title : 마", vec!["감마"]),
        ("title : \"a's\"", vec!["Beta's"]),
        ("title = \"%\"", vec![]),
        ("title : \"%\"", vec![]),
        ("category = \"Rock \\\"n\\\" Roll\"", vec!["Beta's"]),
        ("category = Rock OR category = Tea", vec!["Alpha", "감마"]),
        ("NOT category = Rock AND vendor = X", vec!["감마"]),
        ("NOT (category = Rock OR vendor = Y)", vec!["감마"]),
        ("status = DRAFT", vec!["감마"]),
        ("status != DRAFT", vec!["Alpha", "Beta's"]),
        ("tags : t1", vec!["Beta's"]),
        ("tags = all AND tags != t1", vec!["Alpha", "감마"]),
        ("sku = S2", vec!["감마"]),
        ("sku != S2", vec!["Alpha", "Beta's"]),
        ("handle = alpha", vec!["Alpha"]),
        ("sold_quantity > 9", vec!["Beta's", "감마"]),
        ("sold_quantity = 20", vec!["감마"]),
        ("sold_quantity <= 0", vec!["Alpha"]),
        (
            "create_time >= 2026-01-01T00:00:01Z",
            vec!["Beta's", "감마"],
        ),
        ("update_time < 2026-01-01T00:00:01Z", vec!["Alpha"]),
    ] {
        assert_eq!(
            titles(&*store, filter, "title", 10).await,
            expected,
            "{filter}"
        );
    }
}

async fn orders_sort_and_pages_join(store: Arc<dyn Store>) {
    for (index, (title, category)) in [
        ("b", "x"),
        ("a", "y"),
        ("a", "x"),
        ("c", "x"),
        ("b", "y"),
        ("b", "x"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut draft = draft(title, vec![variant(&format!("S{index}"), 1)]);
        draft.category = category.into();
        draft.handle = format!("{title}-{category}-{index}");
        create(
            &*store,
            &draft,
            START_US + i64::try_from(index / 2).unwrap(),
        )
        .await;
    }
    for (order_by, expected) in [
        ("", ["b-x-5", "b-y-4", "c-x-3", "a-x-2", "a-y-1", "b-x-0"]),
        (
            "create_time",
            ["b-x-0", "a-y-1", "a-x-2", "c-x-3", "b-y-4", "b-x-5"],
        ),
        (
            "title",
            ["a-y-1", "a-x-2", "b-x-0", "b-y-4", "b-x-5", "c-x-3"],
        ),
        (
            "title desc, category",
            ["c-x-3", "b-x-0", "b-x-5", "b-y-4", "a-x-2", "a-y-1"],
        ),
        (
            "category desc, title",
            ["a-y-1", "b-y-4", "a-x-2", "b-x-0", "b-x-5", "c-x-3"],
        ),
        (
            "sold_quantity desc",
            ["b-x-5", "b-y-4", "c-x-3", "a-x-2", "a-y-1", "b-x-0"],
        ),
        (
            "update_time, title desc",
            ["b-x-0", "a-y-1", "c-x-3", "a-x-2", "b-x-5", "b-y-4"],
        ),
    ] {
        for page_size in 1..=7 {
            let mut handles = Vec::new();
            let mut token = String::new();
            loop {
                let query = ListQuery::parse(page_size, &token, "", order_by, false).unwrap();
                let page = store.list(&query, START_US).await.unwrap();
                handles.extend(page.views.into_iter().map(|view| view.product.handle));
                token = page.next_page_token;
                if token.is_empty() {
                    break;
                }
            }
            assert_eq!(handles, expected, "{order_by} by {page_size}");
        }
    }
}

async fn a_list_says_where_to_watch_from(store: Arc<dyn Store>) {
    let query = ListQuery::parse(0, "", "", "", false).unwrap();
    assert_eq!(store.list(&query, START_US).await.unwrap().revision, 0);
    let product = create(&*store, &draft("A", vec![variant("A", 1)]), START_US).await;
    let page = store.list(&query, START_US).await.unwrap();
    assert_eq!(page.revision, 1);
    assert_eq!(store.changes(page.revision, 10).await.unwrap(), []);
    store.delete(&at(START_US), id(&product), "").await.unwrap();
    assert_eq!(store.list(&query, START_US).await.unwrap().views, []);
    let deleted = ListQuery::parse(0, "", "", "", true).unwrap();
    assert_eq!(store.list(&deleted, START_US).await.unwrap().views.len(), 1);
}

async fn found(store: &dyn Store, query: &str) -> Vec<String> {
    let query = SearchQuery::parse(query, 0, "").unwrap();
    let page = store.search(&query, START_US).await.unwrap();
    page.views
        .into_iter()
        .map(|view| view.product.title)
        .collect()
}

async fn words_are_found_in_english(store: Arc<dyn Store>) {
    let mut first = draft("Balls to the Wall", vec![variant("TRACK-00002", 1)]);
    first.description_html = "<p class=\"rock\">From an <em>album</em> of 1983</p>".into();
    first.vendor = "Accept".into();
    first.tags = vec!["Über".into()];
    create(&*store, &first, START_US).await;
    let second = draft("Albums and walls", vec![variant("TRACK-00021", 1)]);
    create(&*store, &second, START_US).await;
    let (one, two) = ("Balls to the Wall", "Albums and walls");
    for (query, expected) in [
        ("wall", vec![one, two]),
        ("WALL the", vec![one]),
        ("wall balls", vec![one]),
        ("ball wall", vec![]),
        ("accept", vec![one]),
        ("uber", vec![one]),
        ("1983", vec![one]),
        ("class", vec![]),
        ("TRACK-00002", vec![one]),
        ("track-0000", vec![one]),
        ("track", vec![one, two]),
        ("album", vec![two, one]),
        ("nothing", vec![]),
        ("NOT wall", vec![]),
        ("wall\" OR \"x", vec![]),
    ] {
        let mut found = found(&*store, query).await;
        let mut expected = expected.clone();
        if query != "album" {
            found.sort();
            expected.sort_unstable();
        }
        assert_eq!(found, expected, "{query}"); // "album": a title counts more than a description.
    }
}

async fn words_are_found_in_korean(store: Arc<dyn Store>) {
    create(
        &*store,
        &draft("스테인리스 텀블러 500ml", vec![variant("KR-1", 1)]),
        START_US,
    )
    .await;
    create(
        &*store,
        &draft("유리컵세트", vec![variant("KR-2", 1)]),
        START_US,
    )
    .await;
    create(
        &*store,
        &draft("USB케이블 긴것", vec![variant("KR-3", 1)]),
        START_US,
    )
    .await;
    let (tumbler, cups, cable) = ("스테인리스 텀블러 500ml", "유리컵세트", "USB케이블 긴것");
    for (query, expected) in [
        ("텀블러", vec![tumbler]),
        ("블러", vec![tumbler]),
        ("인리", vec![tumbler]),
        ("컵", vec![cups]),
        ("트", vec![cups]),
        ("컵세", vec![cups]),
        ("유리 세트", vec![cups]),
        ("컵유리", vec![]),
        ("케이블", vec![cable]),
        ("usb케이", vec![cable]),
        ("스테인 500", vec![tumbler]),
        ("블러케이", vec![]),
    ] {
        assert_eq!(found(&*store, query).await, expected, "{query}");
    }
}

async fn the_index_follows_the_catalogue(store: Arc<dyn Store>) {
    let product = create(&*store, &draft("Before", vec![variant("A", 1)]), START_US).await;
    let update = product::store::Update {
        id: id(&product),
        fields: vec![product::product::Field::Title],
        draft: draft("After", vec![variant("A", 1)]),
        etag: String::new(),
    };
    store.update(&at(START_US), &update).await.unwrap();
    assert!(found(&*store, "before").await.is_empty());
    assert_eq!(found(&*store, "after").await, ["After"]);
    store.delete(&at(START_US), id(&product), "").await.unwrap();
    assert!(found(&*store, "after").await.is_empty());
    store.undelete(&at(START_US), id(&product)).await.unwrap();
    assert_eq!(found(&*store, "after").await, ["After"]);
}

async fn search_pages_join(store: Arc<dyn Store>) {
    for index in 0..25 {
        let words = "tea ".repeat(1 + index % 3);
        let title = format!("{words}{index}");
        create(
            &*store,
            &draft(&title, vec![variant(&format!("S{index}"), 1)]),
            START_US,
        )
        .await;
    }
    let all = found(&*store, "tea").await;
    assert_eq!(all.len(), 20, "the default page");
    let mut joined = Vec::new();
    let mut token = String::new();
    loop {
        let query = SearchQuery::parse("tea", 7, &token).unwrap();
        let page = store.search(&query, START_US).await.unwrap();
        joined.extend(page.views.into_iter().map(|view| view.product.title));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(joined.len(), 25);
    assert_eq!(joined[..20], all[..]);
    joined.sort();
    joined.dedup();
    assert_eq!(joined.len(), 25);
}
