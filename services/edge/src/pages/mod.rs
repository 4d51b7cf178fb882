//! What the edge says about itself: landing page, OpenAPI document, Swagger UI. All of it is made once at
//! start from the contract, and works without any other network.

mod landing;

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{Path, State},
    response::Response,
};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, header};
use mesh::Audience;
use mesh_transcode::{
    Router, Rpc, Schema,
    openapi::{self, Object, Settings},
};
use serde_json::{Value, json};
use utoipa_swagger_ui::Config as Swagger;

use crate::{app::App, auth::OPERATOR, config::Config, error::Refusal, negotiate::JSON};

/// The name of the security scheme in the OpenAPI document.
const SCHEME: &str = "apiKey";
/// Swagger UI draws its icons from data URLs and styles elements by attribute.
const DOCS_POLICY: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; \
    img-src 'self' data:; frame-ancestors 'none'; base-uri 'self'; form-action 'self'";
const LANDING_POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'";
/// How long browsers may keep the files of Swagger UI.
const DOCS_CACHE: &str = "public, max-age=3600";

/// The pages, ready to be sent.
pub(crate) struct Pages {
    landing: Bytes,
    openapi: Bytes,
    swagger: Arc<Swagger<'static>>,
}

impl Pages {
    pub(crate) fn new(
        config: &Config,
        schema: &Schema,
        router: &Router,
        audience: &dyn Fn(&str) -> Audience,
        with_keys: bool,
    ) -> Self {
        let document = document(config, schema, router, audience, with_keys);
        let swagger = Swagger::new(["/openapi.json"])
            .use_base_layout()
            .try_it_out_enabled(true)
            .display_request_duration(true)
            .default_models_expand_depth(0)
            .persist_authorization(false);
        Self {
            landing: landing::render(config, schema, router, audience).into(),
            openapi: document.to_string().into(),
            swagger: Arc::new(swagger),
        }
    }
}

fn document(
    config: &Config,
    schema: &Schema,
    router: &Router,
    audience: &dyn Fn(&str) -> Audience,
    with_keys: bool,
) -> Value {
    let security = |rpc: &Rpc| match audience(rpc.path()) {
        Audience::Public if with_keys => json!([{SCHEME: []}]),
        Audience::Operator if with_keys => json!([{SCHEME: [OPERATOR]}]),
        _ => json!([]),
    };
    let refine = |field: &str, schema: &mut Object| {
        if field.ends_with(".request_id") {
            schema.insert("maxLength".to_owned(), 200.into());
        }
    };
    let api = &config.api;
    let settings = Settings {
        title: &api.title,
        version: &api.version,
        description: &api.description,
        servers: &api.servers,
        security_schemes: security_schemes(with_keys),
        security: &security,
        refine: &refine,
    };
    openapi::document(schema, router, &settings)
}

/// Without keys there is nothing to show.
fn security_schemes(with_keys: bool) -> Value {
    if !with_keys {
        return json!({});
    }
    json!({
        SCHEME: {
            "type": "http",
            "scheme": "bearer",
            "description": "An API key. Operations that list `operator` need a key of that scope.",
        },
    })
}

fn page(content_type: &str, body: Bytes, extra: &[(HeaderName, &'static str)]) -> Response {
    let mut response = Response::new(Body::from(body));
    let headers = response.headers_mut();
    headers.extend(HeaderValue::from_str(content_type).map(|value| (header::CONTENT_TYPE, value)));
    for (name, value) in extra {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// `GET /`.
pub(crate) async fn landing(State(app): State<Arc<App>>) -> Response {
    let policy = [(header::CONTENT_SECURITY_POLICY, LANDING_POLICY)];
    page(
        "text/html; charset=utf-8",
        app.pages.landing.clone(),
        &policy,
    )
}

/// `GET /openapi.json`.
pub(crate) async fn openapi(State(app): State<Arc<App>>) -> Response {
    page(JSON, app.pages.openapi.clone(), &[])
}

/// `GET /docs`.
pub(crate) async fn docs(State(app): State<Arc<App>>) -> Response {
    file(&app, "index.html")
}

/// `GET /docs/{file}`.
pub(crate) async fn docs_file(State(app): State<Arc<App>>, Path(name): Path<String>) -> Response {
    file(&app, &name)
}

/// Any other verb on a page.
pub(crate) async fn method_not_allowed() -> Response {
    Refusal::method_not_allowed("GET, HEAD").response("-")
}

fn file(app: &App, name: &str) -> Response {
    let found = utoipa_swagger_ui::serve(name, Arc::clone(&app.pages.swagger));
    let file = match found {
        Ok(Some(file)) => file,
        Ok(None) => return Refusal::not_found().response("-"),
        Err(error) => return Refusal::internal(&error).response("-"),
    };
    let bytes = if name == "index.html" {
        // The page is served as /docs too, where its relative links would lead astray.
        let html = String::from_utf8_lossy(&file.bytes);
        Bytes::from(html.replacen("<head>", "<head>\n    <base href=\"/docs/\">", 1))
    } else {
        Bytes::from(file.bytes.into_owned())
    };
    let mut headers = vec![
        (header::CONTENT_SECURITY_POLICY, DOCS_POLICY),
        (header::CACHE_CONTROL, DOCS_CACHE),
    ];
    if file.gzpipped {
        headers.push((header::CONTENT_ENCODING, "gzip"));
    }
    page(&file.content_type, bytes, &headers)
}
