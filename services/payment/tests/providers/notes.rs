//! Names that providers give, in memory.

use async_trait::async_trait;
use payment::provider::references::{References, ReferencesError};
use std::collections::BTreeMap;
use std::sync::Mutex;

/// The names, by our own reference.
#[derive(Default)]
pub(crate) struct Notes(Mutex<BTreeMap<String, String>>);

#[async_trait]
impl References for Notes {
    async fn note(&self, _: &str, reference: &str, name: &str) -> Result<(), ReferencesError> {
        let mut names = self.0.lock().unwrap();
        names
            .entry(reference.to_owned())
            .or_insert_with(|| name.to_owned());
        Ok(())
    }

    async fn charge_named(
        &self,
        _: &str,
        provider_ref: &str,
    ) -> Result<Option<String>, ReferencesError> {
        let names = self.0.lock().unwrap();
        let found = names
            .iter()
            .find(|(reference, name)| reference.starts_with("att_") && *name == provider_ref);
        Ok(found.map(|(reference, _)| reference.clone()))
    }

    async fn find(&self, _: &str, reference: &str) -> Result<Option<String>, ReferencesError> {
        Ok(self.0.lock().unwrap().get(reference).cloned())
    }
}
