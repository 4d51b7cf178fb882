//! Requests in, requests out: what is read, what is refused and under which name. A list of cases over one router, kept
//! together so that a reader sees whether a case is there.

use super::*;
use crate::{Router, testing};

fn ask(router: &Router, verb: &str, uri: &str, body: &str) -> Result<Request, BadRequest> {
    let (path, query) = uri
        .split_once('?')
        .map_or((uri, None), |(p, q)| (p, Some(q)));
    let found = router.find(verb, path).unwrap();
    found.request(
        query,
        RequestBody::Json(body.as_bytes()),
        &Limits::default(),
    )
}

/// The request as JSON, read back through the echo method.
fn shown(request: &Request) -> String {
    let mut out = String::new();
    crate::json::write::message(&mut out, &request.message, Path::Root).unwrap();
    out
}

#[test]
fn paths_queries_and_bodies_fill_the_request() {
    let (_, router) = testing::library();
    for (verb, uri, body, expected) in [
        ("GET", "/v1/books/a%2Fb", "", r#"{"id":"a/b"}"#),
        (
            "GET",
            "/v1/books?pageSize=5&page_token=a+b%26&kinds=NOVEL&kinds=MANUAL&sold_min=-9",
            "",
            r#"{"pageSize":5,"pageToken":"a b&","kinds":["NOVEL","MANUAL"],"soldMin":"-9"}"#,
        ),
        (
            "GET",
            "/v1/books?age.addedAfter=2026-01-01T00:00:00%2B09:00&age.within=1.5s&&",
            "",
            r#"{"pageSize":0,"pageToken":"","kinds":[],"age":{"addedAfter":"2025-12-31T15:00:00Z","within":"1.500s"},"soldMin":"0"}"#,
        ),
        (
            "POST",
            "/v1/books",
            r#"{"book":{"title":"A","pages":[{"number":1,"lineText":"x"},{"number":"2","line_text":null}]},"requestId":"k"}"#,
            r#"{"book":{"id":"","title":"A","pages":[{"number":1,"lineText":"x"},{"number":2,"lineText":""}],"kind":"KIND_UNSPECIFIED","etag":"","soldCount":"0"},"requestId":"k"}"#,
        ),
        ("POST", "/v1/books/7:stamp", "", r#"{"id":"7","stamp":""}"#),
        (
            "POST",
            "/v1/books/7:stamp",
            r#"{"stamp":"s"}"#,
            r#"{"id":"7","stamp":"s"}"#,
        ),
        (
            "POST",
            "/v1/books/7:stamp",
            r#"{"id":"7"}"#,
            r#"{"id":"7","stamp":""}"#,
        ),
    ] {
        let request = ask(router, verb, uri, body).unwrap();
        assert_eq!(shown(&request), expected, "{verb} {uri} {body}");
    }
}

/// Verb, URI, body and what is wrong with them.
const REFUSED: &[(&str, &str, &str, &str)] = &[
    // Query parameters.
    (
        "GET",
        "/v1/books?colour=red",
        "",
        "colour: no such query parameter",
    ),
    (
        "GET",
        "/v1/books?age.colour=red",
        "",
        "age.colour: no such query parameter",
    ),
    (
        "GET",
        "/v1/books?age=1",
        "",
        "age: no such query parameter; name one of its fields, as in `age.field`",
    ),
    (
        "GET",
        "/v1/books?pageSize.x=1",
        "",
        "pageSize.x: no such query parameter",
    ),
    (
        "GET",
        "/v1/books?age.within.seconds=1",
        "",
        "age.within.seconds: no such query parameter",
    ),
    ("GET", "/v1/books?=1", "", ": no such query parameter"),
    (
        "GET",
        "/v1/books?pageSize=1&pageSize=1",
        "",
        "pageSize: given more than once, but it takes one value",
    ),
    (
        "GET",
        "/v1/books?pageSize=0&page_size=1",
        "",
        "page_size: given more than once, but it takes one value",
    ),
    (
        "GET",
        "/v1/books?pageSize=",
        "",
        "pageSize: expected an integer between -2147483648 and 2147483647, got \"\"",
    ),
    (
        "GET",
        "/v1/books?pageSize=1.0",
        "",
        "pageSize: expected an integer between -2147483648 and 2147483647, got \"1.0\"",
    ),
    (
        "GET",
        "/v1/books?pageSize=2147483648",
        "",
        "pageSize: out of range: expected an integer between -2147483648 and 2147483647",
    ),
    (
        "GET",
        "/v1/books?kinds=novel",
        "",
        "kinds: expected one of KIND_UNSPECIFIED, NOVEL, MANUAL, got \"novel\"",
    ),
    (
        "GET",
        "/v1/books?kinds=1",
        "",
        "kinds: expected one of KIND_UNSPECIFIED, NOVEL, MANUAL, got \"1\"",
    ),
    (
        "GET",
        "/v1/books?age.addedAfter=now",
        "",
        "age.addedAfter: expected an RFC 3339 time such as \"2026-01-31T09:30:00Z\", got \"now\"",
    ),
    (
        "GET",
        "/v1/books?pageToken=%zz",
        "",
        "pageToken: malformed escape in `%zz`: `%` needs two hexadecimal digits",
    ),
    (
        "GET",
        "/v1/books?pageToken=%ff",
        "",
        "pageToken: `%ff` is not valid UTF-8",
    ),
    (
        "GET",
        "/v1/books/7?id=7",
        "",
        "id: is part of the path and cannot be given again",
    ),
    (
        "POST",
        "/v1/books?requestId=k",
        "{}",
        "requestId: no such query parameter",
    ),
    (
        "PATCH",
        "/v1/books/7?book.title=k",
        "{}",
        "book.title: belongs to the body, not to the query",
    ),
    (
        "PATCH",
        "/v1/books/7?updateMask=a%20b",
        "{}",
        "updateMask: expected field names joined by commas, got \"a b\"",
    ),
    // Bodies.
    ("GET", "/v1/books", "{}", "body: this request takes no body"),
    (
        "POST",
        "/v1/books",
        "[]",
        "body: expected an object, got an array",
    ),
    (
        "POST",
        "/v1/books",
        "null",
        "body: expected an object, got null",
    ),
    (
        "POST",
        "/v1/books",
        r#"{"colour":1}"#,
        "colour: no such field",
    ),
    (
        "POST",
        "/v1/books",
        r#"{"book":{"pages":[{},{"colour":1}]}}"#,
        "book.pages[1].colour: no such field",
    ),
    (
        "PATCH",
        "/v1/books/7",
        r#"{"colour":1}"#,
        "book.colour: no such field",
    ),
    (
        "POST",
        "/v1/books",
        r#"{"requestId":"a","request_id":"a"}"#,
        "request_id: given twice, also as `requestId`",
    ),
    (
        "POST",
        "/v1/books",
        r#"{"requestId":"a","requestId":"a"}"#,
        "requestId: occurs twice in the same object",
    ),
    (
        "POST",
        "/v1/books",
        r#"{"book":{"title":1}}"#,
        "book.title: expected a string, got a number",
    ),
    (
        "POST",
        "/v1/books",
        r#"{"book":"x"}"#,
        "book: expected an object, got a string",
    ),
    (
        "POST",
        "/v1/books",
        r#"{"book":{"pages":{}}}"#,
        "book.pages: expected an array, got an object",
    ),
    (
        "POST",
        "/v1/books",
        r#"{"book":{"pages":[null]}}"#,
        "book.pages[0]: null is not allowed in an array",
    ),
    (
        "POST",
        "/v1/books/7:stamp",
        r#"{"id":"8"}"#,
        "id: differs from what the path says",
    ),
    (
        "PATCH",
        "/v1/books/7",
        r#"{"id":"8"}"#,
        "book.id: differs from what the path says",
    ),
    // Every kind of field.
    (
        "POST",
        "/v1/echo",
        r#"{"text":true}"#,
        "text: expected a string, got a boolean",
    ),
    (
        "POST",
        "/v1/echo",
        r#"{"data":"*"}"#,
        "data: expected a base64 string: Invalid symbol 42, offset 0.",
    ),
    (
        "POST",
        "/v1/echo",
        r#"{"data":"abcde"}"#,
        "data: expected a base64 string: Invalid input length: 5",
    ),
    (
        "POST",
        "/v1/echo",
        r#"{"flag":"true"}"#,
        "flag: expected true or false, got a string",
    ),
    (
        "POST",
        "/v1/echo",
        r#"{"flag":1}"#,
        "flag: expected true or false, got a number",
    ),
    (
        "POST",
        "/v1/echo",
        r#"{"i32":1.5}"#,
        "i32: expected an integer between -2147483648 and 2147483647, got a number",
    ),
    (
        "POST",
        "/v1/echo",
        r#"{"i32":2147483648}"#,
        "i32: expected an integer between -2147483648 and 2147483647, got a number",
    ),
    (
        "POST",
        "/v1/echo",
        r#"{"i32":" 1"}"#,
        "i32: expected an integer between -2147483648 and 2147483647, got \" 1\"",
    ),
    (
        "POST",
        "/v1/echo",
        r#"{"i32":"1.5"}"#,
        "i32: expected an integer between -2147483648 and 2147483647, got \"1.5\"",
    ),
    (
        "POST",
        "/v1/echo",
        r#"{"i32":"1e10"}"#,
        "i32: out of range: expected an integer between -2147483648 and 2147483647",
    ),
    (
        "POST",
        "/v1/echo",
        r#"{"i32":true}"#,
        "i32: expected an integer between -2147483648 and 2147483647, got a boolean",
    ),
    (
        "POST",
        "/v1/echo",
        r#"{"i64":9223372036854775808}"#,
        "i64: expected an integer between -9223372036854775808 and 9223372036854775807, got a number",
    ),
    (
        "POST",
        "/v1/echo",
        r#"{"i64":"9223372036854775808"}"#,
        "i64: out of range: expected an integer between -9223372036854775808 and 9223372036854775807",
    ),
    (
        "POST",
        "/v1/echo",
        r#"{"i64":1e30}"#,
        "i64: out of range: expected an integer between -9223372036854775808 and 9223372036854775807",
    ),
    (
        "POST",
        "/v1/echo",
        r#"{"u32":-1}"#,
        "u32: expected an integer between 0 and 4294967295, got a number",
    ),
    (
        "POST",
        "/v1/echo",
        r#"{"u64":"-1"}"#,
        "u64: out of range: expected an integer between 0 and 18446744073709551615",
    ),
    (
        "POST",
        "/v1/echo",
        r#"{"f32":1e39}"#,
        "f32: out of range: too large for a float",
    ),
    (
        "POST",
        "/v1/echo",
        r#"{"f64":"x"}"#,
        "f64: expected a number, got \"x\"",
    ),
    (
        "POST",
        "/v1/echo",
        r#"{"f64":"inf"}"#,
        "f64: expected a number, got \"inf\"",
    ),
    (
        "POST",
        "/v1/echo",
        r#"{"f64":[]}"#,
        "f64: expected a number, got an array",
    ),
    (
        "POST",
        "/v1/echo",
        r#"{"kind":"PLAY"}"#,
        "kind: expected one of KIND_UNSPECIFIED, NOVEL, MANUAL, got \"PLAY\"",
    ),
    (
        "POST",
        "/v1/echo",
        r#"{"kind":1}"#,
        "kind: expected one of KIND_UNSPECIFIED, NOVEL, MANUAL, got a number",
    ),
    (
        "POST",
        "/v1/echo",
        r#"{"byName":{"a":"b"}}"#,
        "byName[\"a\"]: expected an integer between -2147483648 and 2147483647, got \"b\"",
    ),
    (
        "POST",
        "/v1/echo",
        r#"{"byName":[]}"#,
        "byName: expected an object, got an array",
    ),
    (
        "POST",
        "/v1/echo",
        r#"{"byName":{"a":null}}"#,
        "byName[\"a\"]: null is not allowed in a map",
    ),
    (
        "POST",
        "/v1/echo",
        r#"{"byNumber":{"x":{}}}"#,
        "byNumber[\"x\"]: key: expected an integer between -9223372036854775808 and 9223372036854775807, got \"x\"",
    ),
    (
        "POST",
        "/v1/echo",
        r#"{"byNumber":{"1":{},"01":{}}}"#,
        "byNumber[\"01\"]: the same key is given twice",
    ),
    (
        "POST",
        "/v1/echo",
        r#"{"byTruth":{"yes":""}}"#,
        "byTruth[\"yes\"]: key: expected true or false, got \"yes\"",
    ),
    (
        "POST",
        "/v1/echo",
        r#"{"time":1}"#,
        "time: expected an RFC 3339 time, got a number",
    ),
    (
        "POST",
        "/v1/echo",
        r#"{"times":["x"]}"#,
        "times[0]: expected an RFC 3339 time such as \"2026-01-31T09:30:00Z\", got \"x\"",
    ),
    (
        "POST",
        "/v1/echo",
        r#"{"span":"1"}"#,
        "span: expected a duration in seconds such as \"1.5s\", got \"1\"",
    ),
    (
        "POST",
        "/v1/echo",
        r#"{"mask":"a,,b"}"#,
        "mask: expected field names joined by commas, got \"a,,b\"",
    ),
    (
        "POST",
        "/v1/echo",
        r#"{"maybeNumber":{}}"#,
        "maybeNumber: expected an integer between -9223372036854775808 and 9223372036854775807, got an object",
    ),
    (
        "POST",
        "/v1/echo",
        r#"{"structure":[]}"#,
        "structure: expected an object, got an array",
    ),
    (
        "POST",
        "/v1/echo",
        r#"{"values":{}}"#,
        "values: expected an array, got an object",
    ),
    (
        "POST",
        "/v1/echo",
        r#"{"empty":{"a":1}}"#,
        "empty.a: no such field",
    ),
    (
        "POST",
        "/v1/echo",
        r#"{"any":{}}"#,
        "any.@type: expected the type of the message",
    ),
    (
        "POST",
        "/v1/echo",
        r#"{"any":{"@type":"x/t.No"}}"#,
        "any.@type: no such type: \"x/t.No\"",
    ),
    (
        "POST",
        "/v1/echo",
        r#"{"any":{"@type":"x/t.Book","no":1}}"#,
        "any.no: no such field",
    ),
    (
        "POST",
        "/v1/echo",
        r#"{"left":"a","right":1}"#,
        "right: only one of it and `left` may be given",
    ),
    (
        "GET",
        "/v1/echo/x?left=a&right=1",
        "",
        "right: only one of it and `left` may be given",
    ),
    (
        "POST",
        "/v1/echo",
        r#"{"nothing":0}"#,
        "nothing: expected one of NULL_VALUE, got a number",
    ),
];

#[test]
fn wrong_requests_are_refused_by_name() {
    let (_, router) = testing::library();
    for (verb, uri, body, expected) in REFUSED {
        let error = ask(router, verb, uri, body).unwrap_err().to_string();
        assert_eq!(error, *expected, "{verb} {uri} {body}");
    }
}

#[test]
fn several_mistakes_are_reported_together_up_to_a_limit() {
    let (_, router) = testing::library();
    let error = ask(
        router,
        "PATCH",
        "/v1/books/7?x=1&y=2",
        r#"{"a":1,"title":2}"#,
    )
    .unwrap_err();
    let fields: Vec<_> = error
        .violations()
        .iter()
        .map(|v| v.field.as_str())
        .collect();
    assert_eq!(fields, ["book.a", "book.title", "x", "y"]);

    let many: Vec<_> = (0..100).map(|i| format!("\"f{i}\":1")).collect();
    let error = ask(
        router,
        "POST",
        "/v1/books",
        &format!("{{{}}}", many.join(",")),
    )
    .unwrap_err();
    assert_eq!(error.violations().len(), crate::error::VIOLATIONS_MAX);
}

#[test]
fn long_names_are_clipped_in_errors() {
    let (_, router) = testing::library();
    let name = "é".repeat(10_000);
    let error = ask(router, "POST", "/v1/books", &format!("{{\"{name}\":1}}")).unwrap_err();
    assert_eq!(error.violations()[0].field.chars().count(), 65);
}

#[test]
fn bodies_have_limits() {
    let (_, router) = testing::library();
    let found = router.find("POST", "/v1/books").unwrap();
    let limits = Limits {
        body_bytes_max: 10,
        depth_max: 1,
    };
    let read = |text: &'static [u8]| found.request(None, RequestBody::Json(text), &limits);
    assert_eq!(
        read(b"{}         ").unwrap_err().to_string(),
        "body: longer than 10 bytes"
    );
    assert_eq!(
        read(b"{\"book\":{}}".get(..10).unwrap())
            .unwrap_err()
            .violations()[0]
            .field,
        "book"
    );
    assert!(read(b"{        }").is_ok());
}

#[test]
fn a_patch_names_what_it_changes() {
    let (_, router) = testing::library();
    let mask = |uri: &str, body: &str| {
        let request = ask(router, "PATCH", uri, body).unwrap();
        let mask = request.message.get_field_by_name("update_mask").unwrap();
        let paths = mask
            .as_message()
            .unwrap()
            .get_field_by_name("paths")
            .unwrap()
            .into_owned();
        let paths = paths
            .as_list()
            .unwrap()
            .iter()
            .map(|p| p.as_str().unwrap().to_owned());
        paths.collect::<Vec<_>>()
    };
    let uri = "/v1/books/7";
    // Output fields, the id and the etag are not changes; null clears a field.
    let whole =
        r#"{"soldCount":"1","kind":"NOVEL","etag":"e","id":"7","title":null,"createTime":null}"#;
    assert_eq!(mask(uri, whole), ["title", "kind"]);
    assert_eq!(mask(uri, r#"{"print_run":3}"#), ["print_run"]);
    assert_eq!(mask(uri, ""), Vec::<String>::new());
    assert_eq!(
        mask("/v1/books/7?updateMask=printRun,title", whole),
        ["print_run", "title"]
    );
    assert_eq!(
        mask("/v1/books/7?update_mask=print_run", whole),
        ["print_run"]
    );
}

#[test]
fn keys_and_etags_can_be_added() {
    let (_, router) = testing::library();
    let mut request = ask(router, "PATCH", "/v1/books/7", "{}").unwrap();
    assert_eq!((request.etag(), request.text("request_id")), (None, None));
    assert!(request.set_etag("v1") && request.set_text("request_id", "k"));
    assert_eq!(request.etag().as_deref(), Some("v1"));
    assert_eq!(request.text("request_id").as_deref(), Some("k"));
    assert!(!request.set_text("nope", "k"));

    let mut request = ask(router, "GET", "/v1/books", "").unwrap();
    assert!(!request.set_etag("v1"));
    assert!(
        router
            .find("PATCH", "/v1/books/7")
            .unwrap()
            .endpoint
            .takes_etag()
    );

    assert!(
        !router
            .find("POST", "/v1/books")
            .unwrap()
            .endpoint
            .takes_etag()
    );

    let mut watch = ask(router, "GET", "/v1/books:watch", "").unwrap();
    assert!(!watch.is_set("resume_revision"));
    watch.set_from_text("resume_revision", "17").unwrap();
    assert_eq!(shown(&watch), r#"{"resumeRevision":"17"}"#);
    let error = watch.set_from_text("resume_revision", "x").unwrap_err();
    assert_eq!(error.violations()[0].field, "resume_revision");
    assert!(watch.set_from_text("nope", "x").is_err());
}

#[test]
fn raw_bodies_go_through_in_pieces() {
    let (_, router) = testing::library();
    let found = router.find("POST", "/v1/books:import").unwrap();
    let body = RequestBody::Raw {
        content_type: "text/csv",
        data: b"a,b\n",
    };
    let first = found
        .request(Some("language=ko"), body, &Limits::default())
        .unwrap();
    assert_eq!(
        shown(&first),
        r#"{"language":"ko","file":{"contentType":"text/csv","data":"YSxiCg==","extensions":[]}}"#
    );
    for data in [&b""[..], b"x", &[7; 300]] {
        let chunk = found.endpoint.chunk(data);
        let message = DynamicMessage::decode(found.endpoint.input.clone(), chunk).unwrap();
        let file = message.get_field_by_name("file").unwrap().into_owned();
        let file = file.as_message().unwrap();
        assert_eq!(
            file.get_field_by_name("data").unwrap().as_bytes().unwrap(),
            data
        );
    }
    let books = router.find("POST", "/v1/books").unwrap();
    assert!(books.endpoint.chunk(b"x").is_empty());
    assert!(books.request(None, body, &Limits::default()).is_err());
}
