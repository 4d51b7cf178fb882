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
