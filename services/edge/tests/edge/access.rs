//! Who may do what: keys, scopes, audiences, and an edge without keys.

use std::{fs, path::Path};

use reqwest::Response;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::harness::{Edge, detail, json};

fn key(principal: &str, scopes: &str, key: &str) -> String {
    let hash = hex::encode(Sha256::digest(key.as_bytes()));
    format!("[[key]]\nprincipal = \"{principal}\"\nscopes = [{scopes}]\nsha256 = \"{hash}\"\n\n")
}

async fn with_keys(file: &Path) -> Edge {
    Edge::with(|config| {
        config.keys.file = Some(file.to_owned());
        config.keys.reload_interval_ms = 20;
    })
    .await
}

async fn ask(edge: &Edge, key: &str) -> Response {
    let request = edge
        .request("GET", "/v1/notes/a")
        .header("authorization", format!("Bearer {key}"));
    request.send().await.unwrap()
}

#[tokio::test]
async fn keys_open_what_their_scopes_allow() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.toml");
    fs::write(
        &file,
        key("shop", "", "k-shop") + &key("boss", "\"operator\"", "k-boss"),
    )
    .unwrap();
    let edge = with_keys(&file).await;

    let (status, note) = json(ask(&edge, "k-shop").await).await;
    assert_eq!(status, 200);
    assert!(
        note["text"].as_str().unwrap().starts_with("shop [] "),
        "{note}"
    );
    let by_header = edge
        .request("GET", "/v1/notes/a")
        .header("x-api-key", "k-boss")
        .send()
        .await;
    let (_, note) = json(by_header.unwrap()).await;
    assert!(
        note["text"]
            .as_str()
            .unwrap()
            .starts_with("boss [operator] "),
        "{note}"
    );

    for (key, verb, path, status, reason) in [
        ("", "GET", "/v1/notes/a", 401, "INVALID_API_KEY"),
        ("wrong", "GET", "/v1/notes/a", 401, "INVALID_API_KEY"),
        ("wrong", "POST", "/v1/notes", 401, "INVALID_API_KEY"),
        ("k-shop", "POST", "/v1/notes", 403, "SCOPE_MISSING"),
        ("k-boss", "POST", "/v1/notes:forget", 404, "NO_SUCH_PATH"),
    ] {
        let mut request = edge
            .request(verb, path)
            .header("content-type", "application/json")
            .body("");
        if !key.is_empty() {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        let response = request.send().await.unwrap();
        assert_eq!(
            response.headers().contains_key("www-authenticate"),
            status == 401
        );
        let (found, error) = json(response).await;
        assert_eq!(
            (found, detail(&error, "ErrorInfo")["reason"].as_str()),
            (status, Some(reason))
        );
    }
    // What needs no key needs none here either.
    assert_eq!(edge.send("POST", "/v1/hooks/bank", "x").await.status(), 200);
    for page in ["/", "/docs", "/openapi.json", "/healthz"] {
        assert_eq!(edge.get(page).await.status(), 200, "{page}");
    }
    let document: Value = edge.get("/openapi.json").await.json().await.unwrap();
    let security = |path: &str, verb: &str| document["paths"][path][verb]["security"].clone();
    assert_eq!(security("/v1/notes/{id}", "get"), json!([{"apiKey": []}]));
    assert_eq!(
        security("/v1/notes", "post"),
        json!([{"apiKey": ["operator"]}])
    );
    assert_eq!(security("/v1/hooks/{sender}", "post"), json!([]));
    edge.stop().await;
}

#[tokio::test]
async fn changed_keys_count_without_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.toml");
    let replace = |text: &str| {
        let next = folder.path().join("next.toml");
        fs::write(&next, text).unwrap();
        fs::rename(&next, &file).unwrap();
    };
    replace(&key("old", "", "k-old"));
    let edge = with_keys(&file).await;
    assert_eq!(ask(&edge, "k-old").await.status(), 200);

    let until = async |key: &str, status: u16| {
        let turned = async { while ask(&edge, key).await.status() != status {} };
        tokio::time::timeout(crate::harness::PATIENCE, turned)
            .await
            .expect("keys are reloaded");
    };
    replace(&key("new", "", "k-new"));
    until("k-new", 200).await;
    assert_eq!(ask(&edge, "k-old").await.status(), 401);

    edge.stop().await;
}

#[tokio::test]
async fn an_edge_without_keys_serves_this_machine_only() {
    let edge = Edge::start().await;
    for (name, value, status) in [
        ("host", "localhost:1", 200),
        ("host", "evil.example", 403),
        ("origin", "https://evil.example", 403),
        ("origin", "null", 403),
    ] {
        let request = edge.request("GET", "/v1/notes/a").header(name, value);
        assert_eq!(
            request.send().await.unwrap().status(),
            status,
            "{name}: {value}"
        );
    }
    let own = edge.url("");
    let same = edge
        .request("GET", "/v1/notes/a")
        .header("origin", own)
        .send()
        .await;
    assert_eq!(same.unwrap().status(), 200);
    edge.stop().await;
}
