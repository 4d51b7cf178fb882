//! `GET /healthz`: whether every service that the edge routes to is there, and the edge is not about to stop.
//!
//! A service is asked for its liveness. Its readiness is one replica's own: that one is about to stop, or has lost
//! its database, takes no edge out of traffic.

use std::{sync::Arc, time::Duration};

use axum::{extract::State, response::Response};
use futures_util::future::join_all;
use http::{HeaderValue, StatusCode, header};
use mesh::{CallContext, Client, Principal};
use serde_json::{Map, Value, json};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::{app::App, negotiate::JSON};

/// The name under which every server of the mesh says that it is there.
const LIVENESS: &str = "liveness";

pub(crate) async fn handle(State(app): State<Arc<App>>) -> Response {
    let (ready, destinations) = check(&app).await;
    let status = if ready { "ready" } else { "not ready" };
    let body = json!({"status": status, "destinations": destinations});
    let mut response = Response::new(body.to_string().into());
    if !ready {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(JSON));
    response
}

/// Asks every destination at the same time.
async fn check(app: &App) -> (bool, Map<String, Value>) {
    if app.stopping.is_cancelled() {
        return (false, Map::new());
    }
    let timeout = Duration::from_millis(app.config.limits.health_timeout_ms);
    let asked = app.destinations.iter().map(|(name, client)| async move {
        let asking = CallContext::root(Principal::anonymous()).scope(ask(client.clone()));
        let serving = tokio::time::timeout(timeout, asking).await.unwrap_or(false);
        (name.clone(), serving)
    });
    let mut answers = join_all(asked).await;
    answers.sort();
    let ready = answers.iter().all(|(_, serving)| *serving);
    let word = |serving| if serving { "serving" } else { "not serving" };
    (
        ready,
        answers
            .into_iter()
            .map(|(name, serving)| (name, word(serving).into()))
            .collect(),
    )
}

async fn ask(client: Client) -> bool {
    let request = HealthCheckRequest {
        service: LIVENESS.to_owned(),
    };
    match HealthClient::new(client).check(request).await {
        Ok(answer) => answer.get_ref().status() == ServingStatus::Serving,
        Err(_) => false,
    }
}
