//! Stripe's settings.

use mesh_runtime::config::Secret;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Stripe's settings, read only where it is the provider of something.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StripeConfig {
    /// Where its API is; plain HTTP only on this machine.
    pub url: String,
    /// Where it takes files of evidence; plain HTTP only on this machine.
    pub files_url: String,
    /// The secret key, `sk_…`, or better a restricted one, `rk_…`, that may write PaymentIntents, refunds, disputes and
    /// files and read balance transactions.
    pub secret_key: Secret,
    /// The file that holds it, instead.
    pub secret_key_file: Option<PathBuf>,
    /// The secrets of the webhook endpoint, `whsec_…`: several while one takes over from another.
    pub webhook_secrets: Vec<Secret>,
    /// The file that holds them, one a line, instead.
    pub webhook_secrets_file: Option<PathBuf>,
    /// How old a webhook's signature may be, in seconds.
    pub webhook_tolerance_s: u32,
    /// Where a customer's browser comes back to after authenticating. Without it, a card that asks for that is declined.
    pub return_url: String,
    /// The kinds of payment methods that are taken, by Stripe's names.
    pub payment_method_types: Vec<String>,
    /// Whether an authorisation may be captured in several parts: the account must have multicapture.
    pub multicapture: bool,
    /// How long an authorisation holds where Stripe does not say it of the card, in seconds.
    pub authorization_ttl_s: u32,
    /// How long after a command its search may not find what it did, in seconds.
    pub search_lag_s: u32,
    /// How long connecting may take, in milliseconds.
    pub connect_timeout_ms: u32,
}

impl Default for StripeConfig {
    fn default() -> Self {
        Self {
            url: "https://api.stripe.com".to_owned(),
            files_url: "https://files.stripe.com".to_owned(),
            secret_key: Secret::default(),
            secret_key_file: None,
            webhook_secrets: Vec::new(),
            webhook_secrets_file: None,
            webhook_tolerance_s: 300,
            return_url: String::new(),
            payment_method_types: vec!["card".to_owned()],
            multicapture: false,
            authorization_ttl_s: 7 * 24 * 3_600,
            search_lag_s: 60,
            connect_timeout_ms: 5_000,
        }
    }
}
