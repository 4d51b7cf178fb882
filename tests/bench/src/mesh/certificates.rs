//! A certificate authority for one run, and a certificate for either side: as files for the sidecars, as
//! configurations of rustls for tonic.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType,
};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
};

/// What servers are called in their certificates.
pub(crate) const SERVER_NAME: &str = "localhost";
const TRUST_DOMAIN: &str = "spiffe://bench.test";
/// Who may call the server.
const POLICY: &str = r#"
[[rule]]
name = "the client calls everything"
callers = ["spiffe://bench.test/client"]
methods = ["/*"]
"#;
/// What TLS agrees on.
const ALPN: &[u8] = b"h2";

/// Where the files are.
#[derive(Clone, Debug)]
pub(crate) struct Certificates {
    folder: PathBuf,
}

impl Certificates {
    /// Makes the authority, `client` and `server`.
    pub(crate) fn make(folder: &Path) -> Result<Certificates> {
        let mut params = CertificateParams::new(Vec::<String>::new())?;
        // OpenSSL takes a certificate that is called like its issuer for its own issuer.
        params
            .distinguished_name
            .push(DnType::CommonName, "authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        fs::write(folder.join("authority.pem"), authority.pem())?;
        fs::write(folder.join("policy.toml"), POLICY)?;
        for side in ["client", "server"] {
            let key = KeyPair::generate()?;
            let mut params = CertificateParams::new(vec![SERVER_NAME.to_owned()])?;
            params.distinguished_name.push(DnType::CommonName, side);
            let identity = format!("{TRUST_DOMAIN}/{side}");
            params
                .subject_alt_names
                .push(SanType::URI(identity.try_into()?));
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            params.extended_key_usages = vec![
                ExtendedKeyUsagePurpose::ServerAuth,
                ExtendedKeyUsagePurpose::ClientAuth,
            ];
            let certificate = params.signed_by(&key, &authority)?.pem();
            fs::write(folder.join(format!("{side}.pem")), &certificate)?;
            fs::write(folder.join(format!("{side}.key")), key.serialize_pem())?;
            // HAProxy wants both in one.
            let both = format!("{certificate}{}", key.serialize_pem());
            fs::write(folder.join(format!("{side}.both.pem")), both)?;
        }
        Ok(Certificates::of(folder))
    }

    /// Made before, by another process.
    pub(crate) fn of(folder: &Path) -> Certificates {
        Certificates {
            folder: folder.to_owned(),
        }
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// `authority.pem`, `policy.toml`, and of `client` and `server` each `.pem`, `.key` and `.both.pem`.
    pub(crate) fn file(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    /// Of a client that shows its certificate.
    pub(crate) fn client(&self) -> Result<ClientConfig> {
        let (chain, key) = self.own("client")?;
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(self.roots()?)
            .with_client_auth_cert(chain, key)?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(config)
    }

    /// Of a server that wants to see one.
    pub(crate) fn server(&self) -> Result<ServerConfig> {
        let (chain, key) = self.own("server")?;
        let roots = Arc::new(self.roots()?);
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider()).build()?;
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(config)
    }

    fn own(&self, side: &str) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
        let chain = self.folder.join(format!("{side}.pem"));
        let chain = CertificateDer::pem_file_iter(&chain)?.collect::<Result<_, _>>()?;
        let key = PrivateKeyDer::from_pem_file(self.folder.join(format!("{side}.key")))?;
        Ok((chain, key))
    }

    fn roots(&self) -> Result<RootCertStore> {
        let mut roots = RootCertStore::empty();
        let authority = CertificateDer::from_pem_file(self.folder.join("authority.pem"));
        roots
            .add(authority?)
            .context("the authority cannot be a root")?;
        Ok(roots)
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_can_be_configured() {
        let folder = tempfile::tempdir().unwrap();
        Certificates::make(folder.path()).unwrap();
        let certificates = Certificates::of(folder.path());
        assert_eq!(certificates.client().unwrap().alpn_protocols, [ALPN]);
        assert_eq!(certificates.server().unwrap().alpn_protocols, [ALPN]);
    }
}
