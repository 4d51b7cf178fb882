//! One part of the shop as a task of its own, that can be stopped and whose end is noticed.

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A running part.
pub(crate) struct Part {
    name: &'static str,
    shutdown: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Part {
    /// Runs a part. `ended` is cancelled when it ends without having been told to, or with an error.
    pub(crate) fn start<F>(
        name: &'static str,
        ended: &CancellationToken,
        run: impl FnOnce(CancellationToken) -> F,
    ) -> Self
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let shutdown = CancellationToken::new();
        let running = run(shutdown.clone());
        let (told, ended) = (shutdown.clone(), ended.clone());
        let task = mesh::spawn(async move {
            let noticed = ended.drop_guard(); // However it ends, a panic included.
            let outcome = running.await;
            if told.is_cancelled() && outcome.is_ok() {
                noticed.disarm();
            }
            outcome
        });
        Self {
            name,
            shutdown,
            task,
        }
    }

    /// Tells the part to stop and waits until it has.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        self.shutdown.cancel();
        let ended = (&mut self.task).await;
        ended
            .with_context(|| format!("{} panicked", self.name))?
            .context(self.name)
    }
}

impl Drop for Part {
    /// Without an owner it stops by itself.
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// Listens where told, and says so when it cannot.
pub(crate) async fn listen(
    key: &str,
    address: std::net::SocketAddr,
) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address} ({key})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_part_stops_when_told() {
        let ended = CancellationToken::new();
        let part = Part::start("part", &ended, |shutdown| async move {
            shutdown.cancelled().await;
            Ok(())
        });
        part.stop().await.unwrap();
        assert!(!ended.is_cancelled());
    }

    /// As a service does one of whose background tasks is gone.
    #[tokio::test]
    async fn a_part_that_tells_itself_is_noticed() {
        let ended = CancellationToken::new();
        let part = Part::start("part", &ended, |shutdown| async move {
            shutdown.cancel();
            anyhow::bail!("a task is gone")
        });
        ended.cancelled().await;
        assert!(part.stop().await.is_err());
    }

    #[tokio::test]
    async fn an_end_that_nobody_asked_for_is_noticed() {
        for panics in [false, true] {
            let ended = CancellationToken::new();
            let part = Part::start("part", &ended, move |_| async move {
                assert!(!panics, "as told");
                anyhow::bail!("as told")
            });
            ended.cancelled().await;
            let error = part.stop().await.unwrap_err().to_string();
            assert!(error.starts_with("part"), "{error}");
        }
    }
}
