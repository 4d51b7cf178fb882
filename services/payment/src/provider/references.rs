//! Under which name a provider knows what we call by our own reference.
//!
//! Real providers give names of their own and want to hear those. The adapters note them here; what was not noted
//! because a process died in between is looked up at the provider by our reference. So a lost note costs a call
//! and never money. Deliberately missing: anything that the provider could not tell again.

use async_trait::async_trait;

/// Why a name could not be noted or read. Nothing was sent to the provider because of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the names that providers give cannot be reached: {0}")]
pub struct ReferencesError(pub String);

/// The names, by provider and our own reference. Shared as `Arc<dyn References>`.
#[async_trait]
pub trait References: Send + Sync {
    /// Notes a name, on disk when it returns. One that was noted before stays.
    async fn note(
        &self,
        provider: &str,
        reference: &str,
        provider_ref: &str,
    ) -> Result<(), ReferencesError>;

    /// The charge's reference under which a name was noted.
    async fn charge_named(
        &self,
        provider: &str,
        provider_ref: &str,
    ) -> Result<Option<String>, ReferencesError>;

    /// The name that was noted.
    async fn find(
        &self,
        provider: &str,
        reference: &str,
    ) -> Result<Option<String>, ReferencesError>;
}

impl From<ReferencesError> for super::ProviderError {
    fn from(error: ReferencesError) -> Self {
        Self::Unavailable(error.to_string())
    }
}
