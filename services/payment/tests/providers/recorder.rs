//! A server on loopback that writes down what it is asked and answers what it is told.

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;

/// A request as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

/// The server; it ends with the runtime of its test.
#[derive(Clone, Default)]
pub(crate) struct Recorder {
    seen: Arc<Mutex<Vec<Seen>>>,
    answers: Arc<Mutex<VecDeque<(u16, String)>>>,
}

impl Recorder {
    /// Starts it; the URL is where it listens.
    pub(crate) async fn start() -> (Self, String) {
        let recorder = Self::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let app = Router::new().fallback(record).with_state(recorder.clone());
        mesh::spawn(async move { axum::serve(listener, app).await.unwrap() });
        (recorder, url)
    }

    /// Answers so, after what it was told before.
    pub(crate) fn answer(&self, status: u16, body: &str) {
        self.answers
            .lock()
            .unwrap()
            .push_back((status, body.to_owned()));
    }

    /// What came since it was last looked at.
    pub(crate) fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.seen.lock().unwrap())
    }
}

async fn record(State(recorder): State<Recorder>, request: Request<Body>) -> Response {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, 1 << 20).await.unwrap();
    let headers = parts.headers.iter();
    let headers =
        headers.map(|(name, value)| (name.as_str().to_owned(), value.to_str().unwrap().to_owned()));
    recorder.seen.lock().unwrap().push(Seen {
        method: parts.method.to_string(),
        path: parts.uri.to_string(),
        headers: headers.collect(),
        body: String::from_utf8(body.to_vec()).unwrap(),
    });
    let told = recorder.answers.lock().unwrap().pop_front();
    let (status, body) = told.expect("each request was expected");
    (StatusCode::from_u16(status).unwrap(), body).into_response()
}
