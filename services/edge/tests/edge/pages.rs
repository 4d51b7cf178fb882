//! The pages: landing, documentation, health.

use serde_json::{Value, json};

use crate::harness::{Edge, json};

#[tokio::test]
async fn the_landing_page_lists_what_is_served_and_nothing_else() {
    let edge = Edge::start().await;
    let response = edge.get("/").await;
    assert_eq!(
        response.headers()["content-type"],
        "text/html; charset=utf-8"
    );
    let html = response.text().await.unwrap();
    for text in [
        "/v1/notes/{id}",
        "One note by its id",
        "Keeps notes.",
        "href=\"/docs\"",
        "no key",
    ] {
        assert!(html.contains(text), "{text}");
    }
    assert!(!html.contains("forget"), "INTERNAL methods are not shown");
    assert!(
        !html.contains("http://") && !html.contains("https://"),
        "nothing from elsewhere"
    );
    edge.stop().await;
}

#[tokio::test]
async fn swagger_ui_comes_from_here_alone() {
    let edge = Edge::start().await;
    for path in ["/docs", "/docs/"] {
        let response = edge.get(path).await;
        let policy = response.headers()["content-security-policy"]
            .to_str()
            .unwrap()
            .to_owned();
        assert!(policy.starts_with("default-src 'self'"), "{policy}");
        let html = response.text().await.unwrap();
        assert!(html.contains("<base href=\"/docs/\">") && html.contains("swagger-ui-bundle.js"));
    }
    for (file, media, text) in [
        ("swagger-ui-bundle.js", "text/javascript", "SwaggerUIBundle"),
        ("swagger-ui.css", "text/css", ".swagger-ui"),
        ("swagger-initializer.js", "text/javascript", "/openapi.json"),
    ] {
        let response = edge.get(&format!("/docs/{file}")).await;
        assert_eq!(response.status(), 200, "{file}");
        assert_eq!(response.headers()["content-type"], media);
        assert!(response.text().await.unwrap().contains(text), "{file}");
    }
    assert_eq!(edge.get("/docs/nothing.js").await.status(), 404);
    edge.stop().await;
}

#[tokio::test]
async fn the_openapi_document_describes_what_is_served() {
    let edge = Edge::start().await;
    let document: Value = edge.get("/openapi.json").await.json().await.unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    let paths: Vec<_> = document["paths"]
        .as_object()
        .unwrap()
        .keys()
        .cloned()
        .collect();
    assert_eq!(
        paths,
        [
            "/v1/notes/{id}",
            "/v1/notes",
            "/v1/notes:watch",
            "/v1/notes:import",
            "/v1/notes:export",
            "/v1/hooks/{sender}",
        ]
    );
    assert_eq!(
        document["paths"]["/v1/notes"]["post"]["security"],
        json!([])
    );
    edge.stop().await;
}

#[tokio::test]
async fn health_follows_the_services_behind() {
    let mut edge = Edge::start().await;
    let (status, health) = json(edge.get("/healthz").await).await;
    let ready = json!({"status": "ready", "destinations": {"note": "serving"}});
    assert_eq!((status, health), (200, ready));
    edge.stop_service().await;
    let (status, health) = json(edge.get("/healthz").await).await;
    assert_eq!(
        (status, &health["destinations"]["note"]),
        (503, &json!("not serving"))
    );
    // A service that is away is told as such, without a word about where it should be.
    let (status, error) = json(edge.get("/v1/notes/a").await).await;
    assert_eq!((status, &error["status"]), (503, &json!("UNAVAILABLE")));
    assert!(
        !error["message"].as_str().unwrap().contains("note"),
        "{error}"
    );
    edge.stop().await;
}

#[tokio::test]
async fn requests_are_counted_by_rpc() {
    let edge = Edge::start().await;
    edge.get("/v1/notes/missing").await;
    edge.get("/nowhere").await;
    let counted: Vec<_> = edge
        .registry
        .gather()
        .iter()
        .filter(|family| family.name() == "edge_requests_total")
        .flat_map(|family| family.get_metric().to_vec())
        .map(|metric| {
            let labels: Vec<_> = metric
                .get_label()
                .iter()
                .map(|l| l.value().to_owned())
                .collect();
            labels.join(" ")
        })
        .collect();
    assert_eq!(counted, ["- 404", "/edge.note.v1.NoteService/GetNote 404"]);
    edge.stop().await;
}
