//! Asks a service for its health by gRPC (`grpc.health.v1`), as a kubelet does.
//!
//! Deliberately without TLS: a service that wants certificates is asked at its admin endpoint (`/readyz`).

use std::{io::Write, time::Duration};

use anyhow::{Context as _, ensure};
use tonic::transport::Endpoint;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

/// How long a service may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Whom to ask, and for what.
#[derive(clap::Args)]
pub(crate) struct Health {
    /// Where the service serves gRPC.
    #[arg(value_name = "http://HOST:PORT")]
    service: String,
    /// Names of health: startup, readiness, liveness, or the full name of a gRPC service.
    #[arg(value_name = "NAME", default_value = "readiness")]
    names: Vec<String>,
}

/// Prints a line for each name; an error where one does not serve.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn run(health: Health, out: &mut impl Write) -> anyhow::Result<()> {
    let endpoint = Endpoint::from_shared(health.service.clone())?
        .connect_timeout(ANSWER_TIMEOUT)
        .timeout(ANSWER_TIMEOUT);
    let channel = endpoint.connect().await;
    let mut client = HealthClient::new(channel.with_context(|| health.service.clone())?);
    let mut silent = Vec::new();
    for name in health.names {
        let request = HealthCheckRequest {
            service: name.clone(),
        };
        let answer = client.check(request).await;
        let answer = answer.with_context(|| format!("{}: {name:?}", health.service))?;
        let status = answer.get_ref().status();
        writeln!(out, "{name} {}", status.as_str_name())?;
        if status != ServingStatus::Serving {
            silent.push(name);
        }
    }
    ensure!(
        silent.is_empty(),
        "{}: not serving: {}",
        health.service,
        silent.join(", ")
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Serves health from a thread of its own, for `run` has a runtime of its own; where.
    fn serving() -> String {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        listener.set_nonblocking(true).unwrap();
        std::thread::spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let (reporter, service) = tonic_health::server::health_reporter();
                for (name, status) in [
                    ("liveness", tonic_health::ServingStatus::Serving),
                    ("readiness", tonic_health::ServingStatus::NotServing),
                ] {
                    reporter.set_service_status(name, status).await;
                }
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                let incoming = tonic::transport::server::TcpIncoming::from(listener);
                let server = tonic::transport::Server::builder().add_service(service);
                server.serve_with_incoming(incoming).await.unwrap();
            });
        });
        format!("http://{address}")
    }

    fn asked(service: &str, names: &[&str]) -> (String, anyhow::Result<()>) {
        let mut out = Vec::new();
        let health = Health {
            service: service.to_owned(),
            names: names.iter().map(|&name| name.to_owned()).collect(),
        };
        let outcome = run(health, &mut out);
        (String::from_utf8(out).unwrap(), outcome)
    }

    #[test]
    fn what_serves_is_told_and_what_does_not_is_an_error() {
        let service = serving();
        let (said, outcome) = asked(&service, &["liveness"]);
        assert!(outcome.is_ok() && said == "liveness SERVING\n", "{said}");
        let (said, outcome) = asked(&service, &["liveness", "readiness"]);
        assert_eq!(said, "liveness SERVING\nreadiness NOT_SERVING\n");
        let error = outcome.unwrap_err().to_string();
        assert_eq!(error, format!("{service}: not serving: readiness"));
        let error = asked(&service, &["nobody"]).1.unwrap_err();
        assert!(format!("{error:#}").starts_with(&format!("{service}: \"nobody\": ")));
    }
}
