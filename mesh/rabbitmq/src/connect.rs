//! One connection to the broker: TLS, credentials from files, a name, heartbeats, a limit of time.

use std::{path::Path, time::Duration};

use lapin::{
    Connection, ConnectionProperties,
    tcp::OwnedTLSConfig,
    uri::{AMQPAuthority, AMQPQueryString, AMQPUri, AMQPUserInfo},
};
use tokio::{fs, time::timeout};
use tracing::debug;

use crate::{RabbitMqConfig, RabbitMqError, error::chain};

/// Connects under a name that people see at the broker, to the first address that lets us in: they are tried in
/// turn, beginning with number `first`. Deliberately without lapin's own recovery: it does not recover
/// channels, so whoever uses one has to rebuild it anyway.
pub(crate) async fn connect(
    config: &RabbitMqConfig,
    name: &str,
    first: usize,
) -> Result<Connection, RabbitMqError> {
    let mut uris = config.uris()?;
    let turn = first % uris.len();
    uris.rotate_left(turn);
    let last = uris.pop().expect("a list with at least one address");
    for uri in uris {
        match connect_to(config, name, uri).await {
            Ok(connection) => return Ok(connection),
            Err(error) => debug!(
                connection = name,
                error = chain(&error),
                "the next one, then"
            ),
        }
    }
    connect_to(config, name, last).await
}

async fn connect_to(
    config: &RabbitMqConfig,
    name: &str,
    uri: AMQPUri,
) -> Result<Connection, RabbitMqError> {
    let url = shown(&uri);
    let uri = AMQPUri {
        authority: AMQPAuthority {
            userinfo: credentials(config).await?,
            ..uri.authority
        },
        query: AMQPQueryString {
            heartbeat: Some(config.heartbeat_seconds),
            connection_timeout: Some(config.connect_timeout_ms),
            ..uri.query
        },
        ..uri
    };
    let tls = OwnedTLSConfig {
        identity: None,
        cert_chain: match &config.ca_file {
            Some(path) => Some(read(path).await?),
            None => None,
        },
    };
    let failed = |source| RabbitMqError::Connect {
        url: url.clone(),
        source,
    };
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    let runtime = lapin::runtime::default_runtime().map_err(failed)?;
    let connecting = Connection::connect_uri_with_config(uri, properties, tls, runtime);
    match timeout(Duration::from_millis(config.connect_timeout_ms), connecting).await {
        Ok(connected) => connected.map_err(failed),
        Err(_) => Err(RabbitMqError::ConnectTimeout {
            url,
            timeout_ms: config.connect_timeout_ms,
        }),
    }
}

/// An address as people write it, without credentials.
fn shown(uri: &AMQPUri) -> String {
    let AMQPUri {
        scheme,
        authority: AMQPAuthority { host, port, .. },
        ..
    } = uri;
    format!("{scheme}://{host}:{port}")
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
