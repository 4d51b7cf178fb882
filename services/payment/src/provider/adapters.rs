//! The providers that the configuration names: made from their settings, each behind a circuit of its own.

use super::stripe::{self, Stripe};
use super::toss::{self, Toss};
use super::{Guarded, Provider, References};
use crate::config::ServiceConfig;
use crate::saga::Providers;
use anyhow::bail;
use mesh_runtime::Clock;
use std::sync::Arc;

/// Adds to the providers that are there those that are named and known here. A name that is neither, or a
/// provider without its secret, is an error that says so.
pub(crate) fn add(
    providers: &mut Providers,
    config: &ServiceConfig,
    references: &Arc<dyn References>,
    clock: &Clock,
) -> anyhow::Result<()> {
    for name in config.providers() {
        let made: Arc<dyn Provider> = match name {
            _ if providers.contains_key(name) => continue,
            stripe::NAME => Arc::new(Stripe::new(config.stripe.clone(), references.clone())?),
            toss::NAME => Arc::new(Toss::new(&config.toss, references.clone(), clock.clone())?),
            _ => bail!("provider \"{name}\" is not there"),
        };
        providers.insert(name.to_owned(), made);
    }
    for provider in providers.values_mut() {
        *provider = Arc::new(Guarded::new(
            provider.clone(),
            config.circuit,
            clock.clone(),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::references::ReferencesError;
    use crate::routing::{Choice, Route};
    use async_trait::async_trait;
    use mesh_runtime::config::Secret;

    struct NoNotes;

    #[async_trait]
    impl References for NoNotes {
        async fn note(&self, _: &str, _: &str, _: &str) -> Result<(), ReferencesError> {
            Err(ReferencesError("there are none".to_owned()))
        }

        async fn charge_named(&self, _: &str, _: &str) -> Result<Option<String>, ReferencesError> {
            Ok(None)
        }

        async fn find(&self, _: &str, _: &str) -> Result<Option<String>, ReferencesError> {
            Ok(None)
        }
    }

    fn made(config: &ServiceConfig) -> Result<Vec<String>, String> {
        let mut providers = Providers::new();
        let references: Arc<dyn References> = Arc::new(NoNotes);
        add(&mut providers, config, &references, &Clock::manual(0))
            .map_err(|error| error.to_string())?;
        Ok(providers.into_keys().collect())
    }

    fn routed_to(provider: &str) -> ServiceConfig {
        let choice = Choice {
            name: provider.to_owned(),
            weight: 1,
        };
        let mut config = ServiceConfig {
            provider: "toss".to_owned(),
            routes: vec![Route {
                providers: vec![choice],
                ..Route::default()
            }],
            ..ServiceConfig::default()
        };
        config.toss.secret_key = Secret::new("test_sk_1");
        config
    }

    #[test]
    fn what_is_named_must_be_there_with_its_secret() {
        let unknown = made(&routed_to("strype")).unwrap_err();
        assert_eq!(unknown, "provider \"strype\" is not there");
        let without_key = made(&routed_to("stripe")).unwrap_err();
        assert!(
            without_key.starts_with("stripe.secret_key: is needed"),
            "{without_key}"
        );
        let mut config = routed_to("stripe");
        config.stripe.url = "http://127.0.0.1:1".to_owned();
        config.toss.url.clone_from(&config.stripe.url);
        config.stripe.secret_key = Secret::new("sk_test_1");
        config.stripe.webhook_secrets = vec![Secret::new("whsec_1")];
        assert_eq!(
            made(&config),
            Ok(vec!["stripe".to_owned(), "toss".to_owned()])
        );
    }

    #[test]
    fn no_secret_is_shown_with_the_configuration() {
        let mut config = routed_to("stripe");
        config.stripe.secret_key = Secret::new("sk_live_canary");
        config.stripe.webhook_secrets = vec![Secret::new("whsec_canary")];
        let shown = format!("{config:?} {}", serde_json::to_string(&config).unwrap());
        assert!(
            !shown.contains("canary") && !shown.contains("test_sk_1"),
            "{shown}"
        );
    }
}
