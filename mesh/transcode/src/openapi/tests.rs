//! The document of the library contract, looked at piece by piece.

use super::*;
use crate::testing;

fn library() -> Value {
    let (schema, router) = testing::library();
    let settings = Settings {
        title: "Library",
        version: "1",
        description: "Books.",
        servers: &["/".to_owned()],
        security_schemes: json!({"key": {"type": "http", "scheme": "bearer"}}),
        security: &|rpc| {
            if rpc.name() == "GetBook" {
                json!([])
            } else {
                json!([{"key": []}])
            }
        },
        refine: &|field, schema| {
            if field == "t.Book.title" {
                schema.insert("maxLength".to_owned(), 255.into());
            }
        },
    };
    document(schema, router, &settings)
}

fn parameters(operation: &Value) -> Vec<String> {
    let list = operation["parameters"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let text = |v: &Value| v.as_str().unwrap().to_owned();
    list.iter()
        .map(|p| format!("{} {}", text(&p["in"]), text(&p["name"])))
        .collect()
}

#[test]
fn every_endpoint_is_described() {
    let document = library();
    let mut found = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (verb, operation) in item.as_object().unwrap() {
            assert!(!operation["summary"].as_str().unwrap().is_empty());
            assert_eq!(
                operation["responses"]["default"]["$ref"],
                "#/components/responses/Error"
            );
            found.push(format!(
                "{} {verb} {path}",
                operation["operationId"].as_str().unwrap()
            ));
        }
    }
    assert_eq!(
        found,
        [
            "GetBook get /v1/books/{id}",
            "UpdateBook patch /v1/books/{id}",
            "ListBooks get /v1/books",
            "CreateBook post /v1/books",
            "StampBook post /v1/books/{id}:stamp",
            "Import post /v1/books:import",
            "Export get /v1/books:export",
            "Watch get /v1/books:watch",
            "Echo post /v1/echo",
            "Echo_2 get /v1/echo/{text}",
        ]
    );
    let get = &document["paths"]["/v1/books/{id}"]["get"];
    assert_eq!(get["summary"], "One book by its name");
    assert_eq!(
        get["description"],
        "One book by its name. Errors: NOT_FOUND.\n\nA second paragraph."
    );
    assert_eq!(get["security"], json!([]));
    assert_eq!(get["tags"], json!(["Library"]));
    assert_eq!(
        document["tags"],
        json!([{"name": "Library", "description": "Keeps books."}])
    );
}

#[test]
fn parameters_are_those_that_the_transcoder_reads() {
    let document = library();
    let paths = &document["paths"];
    assert_eq!(
        parameters(&paths["/v1/books"]["get"]),
        [
            "query pageSize",
            "query pageToken",
            "query kinds",
            "query age.addedAfter",
            "query age.within",
            "query soldMin",
        ]
    );
    assert_eq!(
        parameters(&paths["/v1/books/{id}"]["patch"]),
        [
            "path id",
            "query updateMask",
            "query requestId",
            "header Idempotency-Key",
            "header If-Match"
        ]
    );
    assert_eq!(
        parameters(&paths["/v1/books"]["post"]),
        ["header Idempotency-Key"]
    );
    assert_eq!(
        parameters(&paths["/v1/books:import"]["post"]),
        ["query language"]
    );
    assert_eq!(
        paths["/v1/books:import"]["post"]["parameters"][0]["required"],
        true
    );
    let list = &paths["/v1/books"]["get"]["parameters"];
    assert_eq!(
        list[0],
        json!({
            "name": "pageSize", "in": "query", "description": "How many.",
            "schema": {"format": "int32", "minimum": i32::MIN, "maximum": i32::MAX, "type": "integer"},
        })
    );
    assert_eq!(
        list[2]["schema"]["items"]["enum"],
        json!(["KIND_UNSPECIFIED", "NOVEL", "MANUAL"])
    );
    assert_eq!(list[3]["schema"]["format"], "date-time");
}

#[test]
fn bodies_allow_what_is_read_and_no_more() {
    let document = library();
    let body = |path: &str, verb: &str| {
        document["paths"][path][verb]["requestBody"]["content"]["application/json"]["schema"]
            .clone()
    };
    assert_eq!(
        body("/v1/books", "post")["$ref"],
        "#/components/schemas/CreateBookRequestInput"
    );
    let schemas = &document["components"]["schemas"];
    let input = &schemas["BookInput"];
    assert_eq!(input["additionalProperties"], false);
    assert_eq!(input["required"], json!(["title"]));
    let names: Vec<_> = input["properties"]
        .as_object()
        .unwrap()
        .keys()
        .cloned()
        .collect();
    assert_eq!(names, ["title", "pages", "kind", "etag", "printRun"]);
    assert_eq!(input["properties"]["title"]["maxLength"], 255);
    assert_eq!(input["properties"]["title"]["type"], "string");
    assert_eq!(input["properties"]["title"]["minLength"], 1);
    assert_eq!(input["properties"]["etag"].get("minLength"), None);
    assert_eq!(
        input["properties"]["etag"]["type"],
        json!(["string", "null"])
    );
    assert_eq!(
        input["properties"]["printRun"]["type"],
        json!(["integer", "string", "null"])
    );
    assert_eq!(input["properties"]["printRun"]["writeOnly"], true);
    assert_eq!(
        input["properties"]["kind"]["enum"],
        json!(["KIND_UNSPECIFIED", "NOVEL", "MANUAL", null])
    );
    // A PATCH requires nothing; what the path says is not said again.
    let patch = body("/v1/books/{id}", "patch");
    assert_eq!(patch.get("required"), None);
    let stamp = body("/v1/books/{id}:stamp", "post");
    let names: Vec<_> = stamp["properties"]
        .as_object()
        .unwrap()
        .keys()
        .cloned()
        .collect();
    assert_eq!(names, ["stamp"]);
    let everything = &schemas["EverythingInput"]["properties"];
    assert_eq!(
        everything["inner"]["anyOf"],
        json!([{"$ref": "#/components/schemas/EverythingInput"}, {"type": "null"}])
    );
    assert_eq!(
        everything["i64"]["type"],
        json!(["string", "integer", "null"])
    );
    assert_eq!(
        everything["byNumber"]["additionalProperties"]["$ref"],
        "#/components/schemas/Book.PageInput"
    );
}

#[test]
fn answers_promise_what_is_always_written() {
    let document = library();
    let book = &document["components"]["schemas"]["Book"];
    assert_eq!(
        book["required"],
        json!(["id", "title", "pages", "kind", "etag", "soldCount"])
    );
    assert_eq!(book["properties"]["soldCount"]["type"], "string");
    assert_eq!(book["properties"]["soldCount"]["readOnly"], true);
    assert_eq!(book["properties"]["createTime"]["format"], "date-time");
    assert_eq!(book["properties"].get("printRun"), None);
    assert_eq!(book.get("additionalProperties"), None);
    let ok = |path: &str, verb: &str| document["paths"][path][verb]["responses"]["200"].clone();
    let get = ok("/v1/books/{id}", "get");
    assert_eq!(
        get["content"]["application/json"]["schema"]["$ref"],
        "#/components/schemas/Book"
    );
    assert_eq!(get["description"], "The book.");
    let watch = ok("/v1/books:watch", "get");
    let kinds: Vec<_> = watch["content"]
        .as_object()
        .unwrap()
        .keys()
        .cloned()
        .collect();
    assert_eq!(kinds, ["application/x-ndjson", "text/event-stream"]);
    assert!(
        ok("/v1/books:export", "get")["content"]
            .get("*/*")
            .is_some()
    );
}

#[test]
fn every_reference_leads_somewhere() {
    fn walk(value: &Value, document: &Value) {
        match value {
            Value::Object(members) => {
                if let Some(Value::String(to)) = members.get("$ref") {
                    let pointer = to.strip_prefix('#').unwrap();
                    let target = document.pointer(pointer);
                    assert!(target.is_some_and(Value::is_object), "{to}");
                }
                members.values().for_each(|inner| walk(inner, document));
            }
            Value::Array(items) => items.iter().for_each(|inner| walk(inner, document)),
            _ => {}
        }
    }
    let document = library();
    walk(&document, &document);
}

#[test]
fn the_document_is_the_same_every_time() {
    assert_eq!(library().to_string(), library().to_string());
}
