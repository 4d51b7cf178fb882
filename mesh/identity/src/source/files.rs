//! Identity from PEM files: what cert-manager, a CSI driver, SPIRE's helper or `meshctl certs` writes.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use async_trait::async_trait;
use rustls_pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer, pem::PemObject,
};

use super::{Source, SourceError};
use crate::{FilesConfig, Material, TrustDomain, poll::Poll};

/// Reads files, and reads them again when one has changed.
#[derive(Debug)]
pub struct Files {
    certificate: PathBuf,
    key: PathBuf,
    bundle: PathBuf,
    crls: Vec<PathBuf>,
    federated: BTreeMap<TrustDomain, PathBuf>,
    poll: Poll,
}

impl Files {
    /// Reads nothing yet.
    pub fn new(config: &FilesConfig) -> Self {
        let FilesConfig {
            certificate,
            key,
            bundle,
            crls,
            federated,
            reload_interval_ms,
        } = config.clone();
        let mut paths = vec![certificate.clone(), key.clone(), bundle.clone()];
        paths.extend(crls.iter().cloned());
        paths.extend(federated.values().cloned());
        Self {
            certificate,
            key,
            bundle,
            crls,
            federated,
            poll: Poll::new(paths, Duration::from_millis(reload_interval_ms)),
        }
    }

    /// `contents` in the order in which `new` has listed the paths.
    fn read(&self, contents: Vec<Vec<u8>>) -> Result<Material, SourceError> {
        let mut contents = contents.into_iter();
        let mut next = || contents.next().unwrap_or_default();
        let chain = certificates(&self.certificate, &next())?;
        let key = PrivateKeyDer::from_pem_slice(&next())
            .map_err(|error| unfit(&self.key, format!("holds no private key: {error}")))?;
        let bundle = certificates(&self.bundle, &next())?;
        let mut crls = Vec::new();
        for path in &self.crls {
            let lists = CertificateRevocationListDer::pem_slice_iter(&next())
                .collect::<Result<Vec<_>, _>>()
                .map_err(|error| unfit(path, format!("is no list of CRLs: {error}")))?;
            crls.extend(lists);
        }
        let mut federated = BTreeMap::new();
        for (trust_domain, path) in &self.federated {
            federated.insert(trust_domain.clone(), certificates(path, &next())?);
        }
        Ok(Material {
            chain,
            key,
            bundle,
            federated,
            crls,
        })
    }
}

#[async_trait]
impl Source for Files {
    async fn next(&mut self) -> Result<Material, SourceError> {
        let contents = self.poll.next().await?;
        self.read(contents)
    }

    fn name(&self) -> String {
        format!("files \"{}\"", self.certificate.display())
    }
}

fn certificates(
    path: &std::path::Path,
    content: &[u8],
) -> Result<Vec<CertificateDer<'static>>, SourceError> {
    let certificates = CertificateDer::pem_slice_iter(content)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| unfit(path, format!("is no list of certificates: {error}")))?;
    if certificates.is_empty() {
        return Err(unfit(path, "holds no certificate".to_owned()));
    }
    Ok(certificates)
}

fn unfit(path: &std::path::Path, reason: String) -> SourceError {
    SourceError::Content {
        path: path.to_owned(),
        reason,
    }
}
