//! Connections that break off, and callers who do.

use std::time::Duration;

use mesh_store::{Postgres, PostgresConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::database::{Database, migrations};

/// What becomes of a connection.
#[derive(Clone, Copy)]
enum Fate {
    /// It ends before anything is said.
    Refused,
    /// It ends after the client has spoken so many times: within the handshake, or at a question.
    CutAfter(usize),
    Kept,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_starts_as_soon_as_its_connections_last() {
    let database = Database::create().await;
    database.migrate(1, "", &[]).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = &database.config.url;
    let server = server_of(url);
    let through = url.replace(&server, &listener.local_addr().unwrap().to_string());
    let gateway = mesh::spawn(async move {
        let early = [Fate::Refused, Fate::Refused].into_iter();
        let later = (1..6).map(Fate::CutAfter);
        for fate in early.chain(later).chain(std::iter::repeat(Fate::Kept)) {
            let (client, _) = listener.accept().await.unwrap();
            mesh::spawn(pass(client, server.clone(), fate));
        }
    });
    let config = PostgresConfig {
        url: through,
        acquire_timeout_ms: 500,
        ..database.config.clone()
    };
    let postgres = Postgres::connect(&config, &migrations(1)).await.unwrap();
    postgres.close().await;
    gateway.abort();
    database.drop().await;
}

/// Host and port of a URL.
fn server_of(url: &str) -> String {
    let (_, after) = url.split_once('@').unwrap();
    let (server, _) = after.split_once('/').unwrap();
    server.to_owned()
}

async fn pass(mut client: TcpStream, server: String, fate: Fate) -> std::io::Result<()> {
    let cut_after = match fate {
        Fate::Refused => return Ok(()),
        Fate::CutAfter(count) => count,
        Fate::Kept => usize::MAX,
    };
    let mut server = TcpStream::connect(server).await?;
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let asking = async {
        let mut chunk = [0; 4096];
        for _ in 0..cut_after {
            let count = from_client.read(&mut chunk).await?;
            if count == 0 {
                break;
            }
            to_server.write_all(&chunk[..count]).await?;
        }
        Ok(())
    };
    tokio::select! {
        ended = asking => ended,
        ended = copy(&mut from_server, &mut to_client) => ended.map(drop),
    }
}

/// What is dropped is the caller of a service who went away.
#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_begin_swallows_no_commit_of_the_next() {
    const ROWS: i64 = 300;
    let database = Database::create().await;
    database.migrate(1, "", &[]).await;
    let config = PostgresConfig {
        connections_max: 1,
        ..database.config.clone()
    };
    let postgres = Postgres::connect(&config, &migrations(1)).await.unwrap();
    for row in 0..ROWS {
        let patience = Duration::from_micros(row.unsigned_abs() * 10);
        drop(timeout(patience, postgres.begin()).await);
        sqlx::query("INSERT INTO note_1 VALUES ($1, 'committed')")
            .bind(row)
            .execute(postgres.pool())
            .await
            .unwrap();
    }
    let other = database.connect().await;
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM note_1")
        .fetch_one(other.pool())
        .await
        .unwrap();
    assert_eq!(rows, ROWS);
    other.close().await;
    postgres.close().await;
    database.drop().await;
}
