//! Every route that a contract declares is served, and documented.

use std::collections::BTreeSet;

use prost_reflect::{DescriptorPool, DynamicMessage, Value};
use reqwest::Method;
use tests::shop::Shop;

/// How many routes the contracts have at least: a test that found none would show nothing.
const ROUTES_MIN: usize = 25;

#[tokio::test(flavor = "multi_thread")]
async fn every_annotated_route_is_served_and_documented() {
    let shop = Shop::start().await;
    let document = shop.rest().get("/openapi.json").await.ok();
    let documented = documented(&document);
    let routes = annotated();
    assert!(routes.len() >= ROUTES_MIN, "{routes:?}");
    for (verb, template) in &routes {
        // A verb that nobody has: a path that is served answers which ones it takes, and does nothing.
        let path = template.replace(['{', '}'], "");
        let unknown = Method::from_bytes(b"BREW").unwrap();
        let request = shop.rest().request(unknown, &path);
        let answer = shop.rest().send(request).await.unwrap();
        assert_eq!(answer.status, 405, "{verb} {path}: {}", answer.text());
        let allowed = answer.headers["allow"].to_str().unwrap();
        let allowed: Vec<_> = allowed.split(", ").collect();
        assert!(
            allowed.contains(&verb.as_str()),
            "{verb} {path}: {allowed:?}"
        );
        assert!(
            documented.contains(&(verb.clone(), nameless(template))),
            "{verb} {template}"
        );
    }
    let nowhere = shop.rest().get("/v1/nothing").await;
    assert_eq!(nowhere.status, 404);
    shop.close().await;
}

/// Verb and path of every operation that the document has words about.
fn documented(document: &serde_json::Value) -> BTreeSet<(String, String)> {
    let paths = document["paths"].as_object().unwrap();
    let operations = paths.iter().flat_map(|(path, operations)| {
        let operations = operations.as_object().unwrap();
        operations
            .iter()
            .map(move |(verb, operation)| (path, verb, operation))
    });
    operations
        .filter(|(.., operation)| {
            !operation["description"]
                .as_str()
                .unwrap_or_default()
                .is_empty()
        })
        .map(|(path, verb, _)| (verb.to_uppercase(), nameless(path)))
        .collect()
}

/// A path template without the names of its variables, which a document may shorten.
fn nameless(template: &str) -> String {
    let parts = template
        .split('{')
        .map(|part| part.split_once('}').map_or(part, |(_, rest)| rest));
    parts.collect::<Vec<_>>().join("{}")
}

/// Verb and path template of every `google.api.http` rule of the shop.
fn annotated() -> Vec<(String, String)> {
    let pool = DescriptorPool::decode(proto::FILE_DESCRIPTOR_SET).unwrap();
    let http = pool.get_extension_by_name("google.api.http").unwrap();
    let services: Vec<_> = pool.services().collect();
    let methods = services
        .iter()
        .flat_map(prost_reflect::ServiceDescriptor::methods);
    methods
        .map(|method| method.options())
        .filter(|options| options.has_extension(&http))
        .flat_map(|options| bindings(options.get_extension(&http).as_message().unwrap()))
        .collect()
}

fn bindings(rule: &DynamicMessage) -> Vec<(String, String)> {
    let verbs = ["get", "put", "post", "delete", "patch"];
    let paths = verbs
        .iter()
        .filter(|verb| rule.has_field_by_name(verb))
        .map(|verb| {
            let path = rule.get_field_by_name(verb).unwrap();
            (verb.to_uppercase(), path.as_str().unwrap().to_owned())
        });
    let more = rule.get_field_by_name("additional_bindings").unwrap();
    let more = more
        .as_list()
        .unwrap_or_default()
        .iter()
        .filter_map(Value::as_message);
    paths.chain(more.flat_map(bindings)).collect()
}
