//! What a valid product is, what a mask does, what a version says.

use proptest::prelude::*;

use super::*;

fn variant(sku: &str) -> VariantDraft {
    VariantDraft {
        variant: Variant {
            sku: sku.to_owned(),
            options: Vec::new(),
            prices: vec![price("USD", 199)],
            barcode: String::new(),
            weight_grams: 0,
            columns: BTreeMap::new(),
        },
        initial_quantity: None,
    }
}

fn price(code: &str, amount_minor: i64) -> Money {
    Money::new(kernel::Currency::parse(code).unwrap(), amount_minor).unwrap()
}

fn draft() -> Draft {
    Draft {
        title: "Tea".to_owned(),
        description_html: String::new(),
        vendor: String::new(),
        category: String::new(),
        tags: Vec::new(),
        status: None,
        handle: String::new(),
        variants: vec![variant("TEA")],
    }
}

fn create(draft: &Draft) -> Result<Product, Error> {
    Product::create(ProductId::generate(1_000), draft, 1_000)
}

fn refused_fields(result: Result<impl std::fmt::Debug, Error>) -> Vec<String> {
    match result {
        Err(Error::Invalid(invalid)) => invalid.into_iter().map(|invalid| invalid.field).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_rule_names_its_field() {
    type Break = fn(&mut Draft);
    let cases: Vec<(&str, Break)> = vec![
        ("product.title", |draft| draft.title.clear()),
        ("product.title", |draft| draft.title = " \u{3000}".into()),
        ("product.title", |draft| draft.title = "가".repeat(256)),
        ("product.title", |draft| draft.title = "a\0".into()),
        ("product.description_html", |draft| {
            draft.description_html = "a".repeat(65_537);
        }),
        ("product.vendor", |draft| draft.vendor = "a".repeat(256)),
        ("product.category", |draft| draft.category = "a\nb".into()),
        ("product.tags[1]", |draft| {
            draft.tags = vec!["a".into(), "a".into()];
        }),
        ("product.tags[0]", |draft| draft.tags = vec!["a,b".into()]),
        ("product.tags[0]", |draft| draft.tags = vec![" a".into()]),
        ("product.tags[0]", |draft| draft.tags = vec![String::new()]),
        ("product.tags", |draft| {
            draft.tags = (0..251).map(|n| n.to_string()).collect();
        }),
        ("product.handle", |draft| draft.handle = "Tea".into()),
        ("product.handle", |draft| draft.handle = "a b".into()),
        ("product.variants", |draft| draft.variants.clear()),
        ("product.variants", |draft| {
            draft.variants = (0..101).map(|n| variant(&n.to_string())).collect();
        }),
        ("product.variants[1].sku", |draft| {
            draft.variants.push(variant("TEA"));
        }),
        ("product.variants[0].sku", |draft| {
            draft.variants[0].variant.sku = "a/b".into();
        }),
        ("product.variants[0].barcode", |draft| {
            draft.variants[0].variant.barcode = "1".repeat(65);
        }),
        ("product.variants[0].weight_grams", |draft| {
            draft.variants[0].variant.weight_grams = -1;
        }),
        ("product.variants[0].prices", |draft| {
            draft.variants[0].variant.prices.clear();
        }),
        ("product.variants[0].prices[0].amount_minor", |draft| {
            draft.variants[0].variant.prices = vec![price("USD", -1)];
        }),
        ("product.variants[0].prices[1].currency_code", |draft| {
            draft.variants[0].variant.prices.push(price("USD", 1));
        }),
        ("product.variants[0].initial_quantity", |draft| {
            draft.variants[0].initial_quantity = Some(-1);
        }),
        ("product.variants[0].options", |draft| {
            draft.variants[0].variant.options = ["a", "b", "c", "d"]
                .map(|name| VariantOption {
                    name: name.into(),
                    value: "x".into(),
                })
                .to_vec();
        }),
        ("product.variants[0].options[0].value", |draft| {
            draft.variants[0].variant.options = vec![VariantOption {
                name: "Size".into(),
                value: String::new(),
            }];
        }),
        ("product.variants[0].options[1].name", |draft| {
            let option = VariantOption {
                name: "Size".into(),
                value: "L".into(),
            };
            draft.variants[0].variant.options = vec![option.clone(), option];
        }),
    ];
    for (field, change) in cases {
        let mut draft = draft();
        change(&mut draft);
        assert_eq!(refused_fields(create(&draft)), [field]);
    }
    assert!(create(&draft()).is_ok());
}

#[test]
fn everything_that_is_wrong_is_named_at_once() {
    let mut draft = draft();
    draft.title.clear();
    draft.variants[0].variant.prices.clear();
    assert_eq!(
        refused_fields(create(&draft)),
        ["product.title", "product.variants[0].prices"]
    );
}

#[test]
fn a_mask_names_known_fields() {
    let paths = |paths: &[&str]| paths.iter().map(ToString::to_string).collect::<Vec<_>>();
    let fields = Field::parse_mask(&paths(&["title", "variants", "title"])).unwrap();
    assert_eq!(fields, [Field::Title, Field::Variants]);
    for unknown in ["", "*", "id", "etag", "variants.sku", "descriptionHtml"] {
        let refused = refused_fields(Field::parse_mask(&paths(&["title", unknown])));
        assert_eq!(refused, ["update_mask.paths[1]"]);
    }
}

#[test]
fn an_update_takes_the_named_fields_only() {
    let mut draft = draft();
    draft.handle = "tea".into();
    let before = create(&draft).unwrap();
    let mut other = draft;
    other.title = "Green tea".into();
    other.vendor = "Maker".into();
    other.status = Some(Status::Archived);
    for (field, check) in [
        (
            Field::Title,
            (|after: &Product| after.title == "Green tea") as fn(&Product) -> bool,
        ),
        (Field::Vendor, |after| after.vendor == "Maker"),
        (Field::Status, |after| after.status == Status::Archived),
    ] {
        let after = before
            .update(&[field], &other, "v1", 2_000)
            .unwrap()
            .unwrap();
        assert!(check(&after));
        assert_eq!(
            (after.etag(), after.updated_at_us),
            ("v2".to_owned(), 2_000)
        );
        let changed = [
            after.title != before.title,
            after.vendor != before.vendor,
            after.status != before.status,
        ];
        assert_eq!(changed.iter().filter(|changed| **changed).count(), 1);
    }
    assert_eq!(
        before
            .update(&[Field::Category], &other, "", 2_000)
            .unwrap(),
        None
    );
    assert!(matches!(
        before.update(&[Field::Title], &other, "v2", 2_000),
        Err(Error::EtagMismatch { .. })
    ));
    other.status = None;
    assert_eq!(
        refused_fields(before.update(&[Field::Status], &other, "", 0)),
        ["product.status"]
    );
    other.handle = String::new();
    assert_eq!(
        refused_fields(before.update(&[Field::Handle], &other, "", 0)),
        ["product.handle"]
    );
}

#[test]
fn columns_of_a_file_survive_an_update_of_variants() {
    let mut before = create(&draft()).unwrap();
    before.handle = "tea".into();
    before.variants[0]
        .columns
        .insert("Image Src".into(), "a.jpg".into());
    let mut other = draft();
    other.variants = vec![variant("NEW"), variant("TEA")];
    let after = before
        .update(&[Field::Variants], &other, "", 0)
        .unwrap()
        .unwrap();
    assert!(after.variants[0].columns.is_empty());
    assert_eq!(after.variants[1].columns["Image Src"], "a.jpg");
}

#[test]
fn deletion_is_taken_back_once() {
    let product = create(&draft()).unwrap();
    let deleted = product.delete("v1", 5_000).unwrap();
    assert_eq!((deleted.deleted_at_us, deleted.version), (Some(5_000), 2));
    assert!(matches!(
        deleted.delete("", 6_000),
        Err(Error::InvalidState { .. })
    ));
    assert!(matches!(
        deleted.update(&[], &draft(), "", 0),
        Err(Error::InvalidState { .. })
    ));
    let back = deleted.undelete(7_000).unwrap();
    assert_eq!((back.deleted_at_us, back.version), (None, 3));
    assert!(matches!(
        back.undelete(8_000),
        Err(Error::InvalidState { .. })
    ));
}

#[test]
fn handles_are_made_from_titles() {
    let id = ProductId::generate(0);
    let first = |title: &str| handles(title, id).next().unwrap();
    assert_eq!(first("Let's Get It Up!"), "let-s-get-it-up");
    assert_eq!(first("텀블러 500ml"), "텀블러-500ml");
    assert_eq!(first("--- ÀÉ ---"), "àé");
    assert_eq!(first("!!!"), "product");
    let all: Vec<String> = handles("Tea", id).collect();
    assert_eq!(all[1], "tea-2");
    assert!(all.last().unwrap().starts_with("tea-prd-"));
}

proptest! {
    #[test]
    fn every_handle_made_of_a_title_is_valid(title in ".{1,300}") {
        for handle in handles(&title, ProductId::generate(0)) {
            prop_assert_eq!(check_handle("handle", &handle), Ok(()));
        }
    }

    #[test]
    fn a_title_is_judged_without_panic(title in ".{0,300}") {
        let mut draft = draft();
        draft.title = title;
        let _ = create(&draft);
    }
}
