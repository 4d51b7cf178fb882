//! The password in its file. One that has changed is used for every connection that is opened from then on, so that a
//! password is changed without a restart; connections that are open stay.

use std::time::Duration;

use sqlx::PgPool;
use tokio::time::sleep;
use tracing::{info, warn};

use super::{OpenError, PostgresConfig, open};

/// How often the file is looked at. A pool opens connections anew all the time, since each lives for half an hour at most.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What the file says, without the end of its line; `None` where no file is configured.
pub(super) fn read(config: &PostgresConfig) -> Result<Option<String>, OpenError> {
    let path = &config.password_file;
    if path.as_os_str().is_empty() {
        return Ok(None);
    }
    let text = std::fs::read_to_string(path).map_err(|source| OpenError::PasswordFile {
        path: path.clone(),
        source,
    })?;
    Ok(Some(text.trim_end_matches(['\r', '\n']).to_owned()))
}

/// Gives the pool the password that the file holds, whenever it is another one. Never ends.
pub(super) async fn follow(pool: PgPool, config: PostgresConfig) {
    let mut last = None; // The pool may have begun with an older one.
    loop {
        let found = read(&config).map_err(|error| error.to_string());
        if last.as_ref() != Some(&found) {
            match (&found, open::options(&config)) {
                (Ok(_), Ok(options)) => {
                    pool.set_connect_options(options);
                    if last.is_some() {
                        info!("new connections to postgres use the new password");
                    }
                }
                (Err(error), _) => warn!(error, "the password of postgres stays as it was"),
                (Ok(_), Err(error)) => warn!(%error, "the password of postgres stays as it was"),
            }
            last = Some(found);
        }
        sleep(LOOK_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use sqlx::{ConnectOptions as _, postgres::PgPoolOptions};
    use tokio_util::task::AbortOnDropHandle;

    use super::*;

    fn used(pool: &PgPool) -> Option<String> {
        let url = pool.connect_options().to_url_lossy();
        url.password().map(str::to_owned)
    }

    #[tokio::test(start_paused = true)]
    async fn a_changed_password_is_used_for_new_connections() {
        let folder = tempfile::tempdir().unwrap();
        let config = PostgresConfig {
            url: "postgres://shop@127.0.0.1:1/shop".to_owned(),
            password_file: folder.path().join("password"),
            ..PostgresConfig::default()
        };
        fs::write(&config.password_file, "one\n").unwrap();
        let pool = PgPoolOptions::new().connect_lazy_with(open::options(&config).unwrap());
        let following = follow(pool.clone(), config.clone());
        let _following = AbortOnDropHandle::new(mesh::spawn(following));
        sleep(LOOK_EVERY * 2).await;
        assert_eq!(used(&pool).as_deref(), Some("one"));

        fs::write(&config.password_file, "two\n").unwrap();
        sleep(LOOK_EVERY * 2).await;
        assert_eq!(used(&pool).as_deref(), Some("two"));

        fs::remove_file(&config.password_file).unwrap();
        sleep(LOOK_EVERY * 2).await;
        assert_eq!(used(&pool).as_deref(), Some("two"), "what was read last");

        fs::write(&config.password_file, "three").unwrap();
        sleep(LOOK_EVERY * 2).await;
        assert_eq!(used(&pool).as_deref(), Some("three"));
    }
}
