//! One connection to the broker: TLS, credentials from files, a name, heartbeats, a limit of time.

use std::{path::Path, time::Duration};

use lapin::{
    Connection, ConnectionProperties,
    tcp::OwnedTLSConfig,
    uri::{AMQPUri, AMQPUserInfo},
};
use tokio::{fs, time::timeout};

use crate::{RabbitMqConfig, RabbitMqError};

/// Connects under a name that people see at the broker. Deliberately without lapin's own recovery: it
/// does not recover channels, so whoever uses one has to rebuild it anyway.
pub(crate) async fn connect(
    config: &RabbitMqConfig,
    name: &str,
) -> Result<Connection, RabbitMqError> {
    let uri = AMQPUri {
        authority: lapin::uri::AMQPAuthority {
            userinfo: credentials(config).await?,
            ..config.uri()?.authority
        },
        query: lapin::uri::AMQPQueryString {
            heartbeat: Some(config.heartbeat_seconds),
            connection_timeout: Some(config.connect_timeout_ms),
            ..config.uri()?.query
        },
        ..config.uri()?
    };
    let tls = OwnedTLSConfig {
        identity: None,
        cert_chain: match &config.ca_file {
            Some(path) => Some(read(path).await?),
            None => None,
        },
    };
    let failed = |source| RabbitMqError::Connect {
        url: config.url.clone(),
        source,
    };
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    let runtime = lapin::runtime::default_runtime().map_err(failed)?;
    let connecting = Connection::connect_uri_with_config(uri, properties, tls, runtime);
    match timeout(Duration::from_millis(config.connect_timeout_ms), connecting).await {
        Ok(connected) => connected.map_err(failed),
        Err(_) => Err(RabbitMqError::ConnectTimeout {
            url: config.url.clone(),
            timeout_ms: config.connect_timeout_ms,
        }),
    }
}

async fn credentials(config: &RabbitMqConfig) -> Result<AMQPUserInfo, RabbitMqError> {
    let password = match &config.password_file {
        Some(path) => read(path).await?.trim_end_matches(['\r', '\n']).to_owned(),
        None => "guest".to_owned(),
    };
    Ok(AMQPUserInfo {
        username: config.user.clone(),
        password,
    })
}

async fn read(path: &Path) -> Result<String, RabbitMqError> {
    fs::read_to_string(path)
        .await
        .map_err(|source| RabbitMqError::File {
            path: path.display().to_string(),
            source,
        })
}
