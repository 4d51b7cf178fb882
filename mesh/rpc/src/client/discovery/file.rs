//! The endpoints that a file lists, one per line; read again and again.

use std::{path::PathBuf, time::Duration};

use tokio::io::AsyncReadExt as _;

use super::{Discover, Failed, LookUp, source::parse_file};

/// The longest file that is read, in bytes: far more than all endpoints of a destination.
const BYTES_MAX: u64 = 4 << 20;

pub(super) struct File {
    pub(super) path: PathBuf,
    pub(super) interval: Duration,
}

impl File {
    async fn read(&self) -> Result<String, String> {
        let mut text = String::new();
        let file = tokio::fs::File::open(&self.path)
            .await
            .map_err(|error| error.to_string())?;
        let read = file.take(BYTES_MAX + 1).read_to_string(&mut text).await;
        match read {
            Ok(bytes) if bytes as u64 > BYTES_MAX => {
                Err(format!("is longer than {BYTES_MAX} bytes"))
            }
            Ok(_) => Ok(text),
            Err(error) => Err(error.to_string()),
        }
    }
}

impl Discover for File {
    fn look_up(&self) -> LookUp<'_> {
        Box::pin(async {
            let read = self.read().await;
            read.and_then(|text| parse_file(&text))
                .map_err(|reason| Failed::Broken(format!("{}: {reason}", self.path.display())))
        })
    }

    fn interval(&self) -> Option<Duration> {
        Some(self.interval)
    }
}
