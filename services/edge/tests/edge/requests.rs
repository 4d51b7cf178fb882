//! Unary methods: what reaches the service, and what its answers and errors become.

use serde_json::json;

use crate::harness::{Edge, detail, json};

#[tokio::test]
async fn an_answer_is_json_with_its_version_and_the_requests_id() {
    let edge = Edge::start().await;
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let request = edge
        .request("GET", "/v1/notes/a%2Fb?pageSize=3")
        .header("x-request-id", "req-7");
    let request = request.header("traceparent", format!("00-{trace}-b7ad6b7169203331-01"));
    let response = request.send().await.unwrap();
    let headers = response.headers().clone();
    assert_eq!(headers["x-request-id"], "req-7");
    assert_eq!(headers["etag"], "\"v1\"");
    assert_eq!(headers["content-type"], "application/json");
    assert_eq!(headers["x-content-type-options"], "nosniff");
    assert_eq!(headers["cache-control"], "no-store");
    let (status, body) = json(response).await;
    let text = format!("anonymous [operator] req-7 {trace}");
    assert_eq!(
        (status, body),
        (200, json!({"id": "a/b", "text": text, "etag": "v1"}))
    );

    // Without an id, or with one that cannot be logged, there is a new one.
    let response = edge
        .request("GET", "/v1/notes/a")
        .header("x-request-id", "a b")
        .send()
        .await;
    let id = response.unwrap().headers()["x-request-id"]
        .to_str()
        .unwrap()
        .to_owned();
    assert_eq!(id.len(), 36, "{id}");
    edge.stop().await;
}

#[tokio::test]
async fn errors_of_the_service_keep_their_details_and_lose_their_secrets() {
    let edge = Edge::start().await;
    let (status, error) = json(edge.get("/v1/notes/missing").await).await;
    assert_eq!(
        (status, &error["code"], &error["status"]),
        (404, &json!(5), &json!("NOT_FOUND"))
    );
    assert_eq!(error["message"], "note: NOTE_NOT_FOUND");
    assert_eq!(detail(&error, "ErrorInfo")["reason"], "NOTE_NOT_FOUND");
    assert_eq!(detail(&error, "ErrorInfo")["domain"], "note.edge");
    assert_eq!(
        detail(&error, "RequestInfo")["requestId"]
            .as_str()
            .unwrap()
            .len(),
        36
    );

    let (status, error) = json(edge.get("/v1/notes/wrong").await).await;
    assert_eq!(status, 400);
    let violations = &detail(&error, "BadRequest")["fieldViolations"];
    assert_eq!(violations[0]["field"], "note.pageSize");

    assert_eq!(edge.get("/v1/notes/full").await.status(), 429);
    for id in ["broken", "panic"] {
        let (status, error) = json(edge.get(&format!("/v1/notes/{id}")).await).await;
        assert_eq!(
            (status, &error["message"]),
            (500, &json!("internal error")),
            "{id}"
        );
        assert!(!error.to_string().contains("secret"), "{error}");
    }
    edge.stop().await;
}

#[tokio::test]
async fn a_call_ends_with_the_deadline_of_its_contract() {
    let edge = Edge::start().await;
    let (status, error) = json(edge.get("/v1/notes/slow").await).await;
    assert_eq!(
        (status, &error["status"]),
        (504, &json!("DEADLINE_EXCEEDED"))
    );
    edge.cancelled().await;
    edge.stop().await;
}

#[tokio::test]
async fn a_client_that_goes_away_cancels_its_call() {
    let edge = Edge::start().await;
    let asking = mesh::spawn(edge.request("GET", "/v1/notes/slow").send());
    edge.observed.event.notified().await;
    asking.abort();
    edge.cancelled().await;
    edge.stop().await;
}

#[tokio::test]
async fn wrong_requests_never_reach_the_service_and_are_told_why() {
    let edge = Edge::start().await;
    let deep = format!("{{\"text\":{}{}}}", "[".repeat(40), "]".repeat(40));
    let long = format!("{{\"text\":\"{}\"}}", "x".repeat(2 << 20));
    for (verb, path, body, status, field) in [
        ("GET", "/v1/notes/a?colour=red", "", 400, "colour"),
        ("GET", "/v1/notes/a?pageSize=x", "", 400, "pageSize"),
        ("GET", "/v1/notes/a?id=b", "", 400, "id"),
        ("GET", "/v1/notes/%zz", "", 400, "id"),
        ("GET", "/v1/notes/%ff", "", 400, "id"),
        ("GET", "/v1/notes/a", "{}", 400, "body"),
        ("POST", "/v1/notes", "{", 400, "body"),
        ("POST", "/v1/notes", "[]", 400, "note"),
        ("POST", "/v1/notes", "{\"text\":1}", 400, "note.text"),
        (
            "POST",
            "/v1/notes",
            "{\"text\":\"a\",\"text\":\"b\"}",
            400,
            "text",
        ),
        (
            "POST",
            "/v1/notes",
            "{\"colour\":\"a\"}",
            400,
            "note.colour",
        ),
        (
            "POST",
            "/v1/notes",
            &deep,
            400,
            "nested deeper than 32 levels",
        ),
        (
            "POST",
            "/v1/notes",
            &long,
            413,
            "body: longer than 1048576 bytes",
        ),
        ("GET", "/v1/other", "", 404, "no such path"),
        ("GET", "/v1/notes/", "", 404, "no such path"),
        ("PUT", "/v1/notes/a", "{}", 405, "GET, HEAD, OPTIONS, PATCH"),
        ("TRACE", "/v1/notes", "", 405, "OPTIONS, POST"),
        ("POST", "/docs", "", 405, "GET, HEAD"),
    ] {
        let response = edge.send(verb, path, body).await;
        assert!(response.headers().contains_key("x-request-id"));
        let allow = response.headers().get("allow").cloned();
        let (found, error) = json(response).await;
        assert_eq!(found, status, "{verb} {path}: {error}");
        assert!(
            error["message"].as_str().unwrap().contains(field),
            "{verb} {path}: {error}"
        );
        assert_eq!(allow.is_some(), status == 405, "{verb} {path}");
    }
    edge.stop().await;
}

#[tokio::test]
async fn bodies_are_json_and_answers_are_what_is_accepted() {
    let edge = Edge::start().await;
    for (content_type, status) in [
        (Some("application/json; charset=utf-8"), 200),
        (Some("application/x-www-form-urlencoded"), 415),
        (Some("text/plain"), 415),
        (None, 415),
    ] {
        let mut request = edge.request("POST", "/v1/notes").body("{\"text\":\"a\"}");
        if let Some(content_type) = content_type {
            request = request.header("content-type", content_type);
        }
        assert_eq!(
            request.send().await.unwrap().status(),
            status,
            "{content_type:?}"
        );
    }
    for (path, accept, status) in [
        ("/v1/notes/a", "text/html, application/json;q=0.1", 200),
        ("/v1/notes/a", "text/html", 406),
        ("/v1/notes:watch?ending=end", "application/x-ndjson", 200),
        ("/v1/notes:watch?ending=end", "application/json", 406),
        ("/v1/notes:export", "text/csv", 200),
    ] {
        let request = edge.request("GET", path).header("accept", accept);
        assert_eq!(
            request.send().await.unwrap().status(),
            status,
            "{path} {accept}"
        );
    }
    edge.stop().await;
}

#[tokio::test]
async fn the_idempotency_key_is_the_request_id_under_its_http_name() {
    let edge = Edge::start().await;
    let body = "{\"text\":\"a\"}";
    let create = |path: &str, key: Option<&str>| {
        let mut request = edge
            .request("POST", path)
            .header("content-type", "application/json");
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        request.body(body)
    };
    // The service answers the key that it got as the id.
    for (path, key, expected) in [
        ("/v1/notes", Some("k-1"), "k-1"),
        ("/v1/notes?requestId=k-2", None, "k-2"),
        ("/v1/notes?request_id=k-3", Some("k-3"), "k-3"),
    ] {
        let response = create(path, key).send().await.unwrap();
        assert_eq!(response.headers()["idempotency-key"], expected);
        let (status, note) = json(response).await;
        assert_eq!((status, &note["id"]), (200, &json!(expected)));
    }
    // Without one a key is made up and told, so that the command can be repeated.
    let response = create("/v1/notes", None).send().await.unwrap();
    let made_up = response.headers()["idempotency-key"]
        .to_str()
        .unwrap()
        .to_owned();
    assert!(!response.headers().contains_key("idempotency-replayed"));
    assert_eq!(json(response).await.1["id"], json!(made_up));

    let long = "k".repeat(201);
    for (path, key) in [
        ("/v1/notes?requestId=a", "b"),
        ("/v1/notes", ""),
        ("/v1/notes", "a b"),
        ("/v1/notes", long.as_str()),
    ] {
        let (status, error) = json(create(path, Some(key)).send().await.unwrap()).await;
        assert_eq!(status, 400, "{error}");
        assert!(
            error["message"]
                .as_str()
                .unwrap()
                .contains("Idempotency-Key"),
            "{error}"
        );
    }
    let twice = create("/v1/notes", Some("a")).header("idempotency-key", "a");
    assert_eq!(twice.send().await.unwrap().status(), 400);
    edge.stop().await;
}

#[tokio::test]
async fn replays_and_collisions_of_keys_are_told_apart() {
    let edge = Edge::start().await;
    let replayed = edge.send("POST", "/v1/notes", "{\"text\":\"again\"}").await;
    assert_eq!(replayed.headers()["idempotency-replayed"], "true");
    let reused = edge
        .send("POST", "/v1/notes", "{\"text\":\"reused\"}")
        .await;
    assert_eq!(reused.status(), 422);
    let in_flight = edge
        .send("POST", "/v1/notes", "{\"text\":\"in flight\"}")
        .await;
    assert_eq!(in_flight.headers()["retry-after"], "2");
    assert!(in_flight.headers().contains_key("idempotency-key"));
    let (status, error) = json(in_flight).await;
    assert_eq!(
        (status, &detail(&error, "RetryInfo")["retryDelay"]),
        (409, &json!("2.000s"))
    );
    edge.stop().await;
}

#[tokio::test]
async fn if_match_is_the_etag_and_answers_412_only_when_it_was_sent() {
    let edge = Edge::start().await;
    let patch = |if_match: Option<&str>, body: &'static str| {
        let mut request = edge.request("PATCH", "/v1/notes/n-1");
        if let Some(value) = if_match {
            request = request.header("if-match", value);
        }
        request
            .header("content-type", "application/json")
            .body(body)
    };
    // The service answers the mask, the text and the etag that it got.
    for (if_match, body, status, text) in [
        (None, "{\"text\":\"a\"}", 200, "text a "),
        (
            None,
            "{\"text\":\"a\",\"etag\":\"e\",\"id\":\"n-1\"}",
            200,
            "text a e",
        ),
        (Some("\"e\""), "{\"text\":\"a\"}", 200, "text a e"),
        (
            Some("\"e\""),
            "{\"text\":\"a\",\"etag\":\"e\"}",
            200,
            "text a e",
        ),
        (Some("*"), "{\"text\":\"a\"}", 200, "text a "),
        (Some("\"stale\""), "{\"text\":\"a\"}", 412, "ETAG_MISMATCH"),
        (
            None,
            "{\"text\":\"a\",\"etag\":\"stale\"}",
            409,
            "ETAG_MISMATCH",
        ),
        (Some("\"e\""), "{\"etag\":\"other\"}", 400, "If-Match"),
        (Some("e"), "{}", 400, "If-Match"),
        (Some("\"a\", \"b\""), "{}", 400, "If-Match"),
        (Some("W/\"e\""), "{}", 400, "If-Match"),
    ] {
        let (found, body) = json(patch(if_match, body).send().await.unwrap()).await;
        assert_eq!(found, status, "{if_match:?}: {body}");
        let said = if status == 200 {
            &body["text"]
        } else {
            &body["message"]
        };
        assert!(
            said.as_str().unwrap().contains(text),
            "{if_match:?}: {body}"
        );
    }
    let other = edge
        .request("GET", "/v1/notes/a")
        .header("if-match", "\"e\"")
        .send()
        .await;
    assert_eq!(other.unwrap().status(), 400);
    edge.stop().await;
}

#[tokio::test]
async fn head_and_options_answer_without_a_body() {
    let edge = Edge::start().await;
    let head = edge.request("HEAD", "/v1/notes/a").send().await.unwrap();
    assert_eq!(
        (head.status().as_u16(), &head.headers()["etag"]),
        (200, &"\"v1\"".parse().unwrap())
    );
    assert_eq!(head.text().await.unwrap(), "");
    let head = edge
        .request("HEAD", "/v1/notes:watch")
        .send()
        .await
        .unwrap();
    assert_eq!(head.headers()["content-type"], "application/x-ndjson");
    let options = edge.request("OPTIONS", "/v1/notes/a").send().await.unwrap();
    assert_eq!(options.status(), 204);
    assert_eq!(options.headers()["allow"], "GET, HEAD, OPTIONS, PATCH");
    assert_eq!(
        edge.request("OPTIONS", "/v1/none")
            .send()
            .await
            .unwrap()
            .status(),
        404
    );
    edge.stop().await;
}

#[tokio::test]
async fn a_webhook_reaches_its_service_untouched() {
    let edge = Edge::start().await;
    let request = edge
        .request("POST", "/v1/hooks/bank")
        .header("content-type", "application/json")
        .header("webhook-signature", "t=1,v1=ab")
        .header("x-other", "no")
        .header("mesh-principal", "boss")
        .header("authorization", "Basic x")
        .body("{ \"not\" :read }");
    let (status, answer) = json(request.send().await.unwrap()).await;
    assert_eq!(status, 200, "{answer}");
    let text = answer["note"]["text"].as_str().unwrap();
    let expected = "bank application/json { \"not\" :read } t=1,v1=ab - anonymous [] ";
    assert!(text.starts_with(expected), "{text}");
    edge.stop().await;
}
