//! The files of a development authority:
//! ```text
//! bundle.pem                     whom to trust
//! crl.pem                        the revocation list
//! ca/certificate.pem, key.pem    the authority
//! SERVICE/certificate.pem, key.pem
//! ```

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};
use x509_parser::pem::parse_x509_pem;

/// The authority's own folder.
pub(super) const AUTHORITY: &str = "ca";
const SECRET: u32 = 0o600;
const PUBLIC: u32 = 0o644;

pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    pub(super) fn shown(&self) -> String {
        format!("\"{}\"", self.0.display())
    }

    /// Where the certificate of a service lies.
    pub(super) fn certificate(&self, service: &str) -> PathBuf {
        self.0.join(service).join("certificate.pem")
    }

    fn key(&self, service: &str) -> PathBuf {
        self.0.join(service).join("key.pem")
    }

    /// Refuses to go on where something of a service would be replaced unasked.
    pub(super) fn refuse_overwriting(&self, service: &str, force: bool) -> anyhow::Result<()> {
        for path in [self.certificate(service), self.key(service)] {
            let shown = path.display();
            ensure!(
                force || !path.exists(),
                "\"{shown}\" exists: --force replaces it"
            );
        }
        Ok(())
    }

    /// The authority's certificate as DER and its key as PEM; `None`: there is none.
    pub(super) fn authority(&self) -> anyhow::Result<Option<(Vec<u8>, String)>> {
        let (certificate, key) = (self.certificate(AUTHORITY), self.key(AUTHORITY));
        if !certificate.exists() && !key.exists() {
            return Ok(None);
        }
        let shown = key.display();
        let key =
            fs::read_to_string(&key).with_context(|| format!("\"{shown}\" cannot be read"))?;
        Ok(Some((read_der(&certificate)?, key)))
    }

    /// The revocation list as DER.
    pub(super) fn list(&self) -> anyhow::Result<Vec<u8>> {
        read_der(&self.0.join("crl.pem"))
    }

    pub(super) fn write_authority(
        &self,
        certificate: &str,
        key: &str,
        out: &mut impl Write,
    ) -> anyhow::Result<()> {
        self.write_service(AUTHORITY, certificate, key, out)?;
        let bundle = self.0.join("bundle.pem");
        write(&bundle, certificate, PUBLIC)?;
        tell(&bundle, out)
    }

    pub(super) fn write_service(
        &self,
        service: &str,
        certificate: &str,
        key: &str,
        out: &mut impl Write,
    ) -> anyhow::Result<()> {
        let files = (self.key(service), self.certificate(service));
        // Both before a word of either: a reader who hangs up must not leave one without the other.
        write(&files.0, key, SECRET)?;
        write(&files.1, certificate, PUBLIC)?;
        tell(&files.0, out)?;
        tell(&files.1, out)
    }

    pub(super) fn write_list(&self, list: &str, out: &mut impl Write) -> anyhow::Result<()> {
        let path = self.0.join("crl.pem");
        write(&path, list, PUBLIC)?;
        tell(&path, out)
    }
}

/// The first thing in a PEM file.
pub(super) fn read_der(path: &Path) -> anyhow::Result<Vec<u8>> {
    let shown = path.display();
    let content = fs::read(path).with_context(|| format!("\"{shown}\" cannot be read"))?;
    let (_, pem) = parse_x509_pem(&content).with_context(|| format!("\"{shown}\" is not PEM"))?;
    Ok(pem.contents)
}

/// Whole or not at all: a service that watches the file never sees half of it.
fn write(path: &Path, content: &str, mode: u32) -> anyhow::Result<()> {
    let shown = path.display();
    let replace = || -> io::Result<()> {
        let parent = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(parent)?;
        let fresh = path.with_extension("pem.new");
        // What an earlier run has left may have other permissions.
        match fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&fresh)?;
        file.write_all(content.as_bytes())?;
        file.sync_all()?;
        fs::rename(&fresh, path)
    };
    replace().with_context(|| format!("\"{shown}\" cannot be written"))
}

fn tell(path: &Path, out: &mut impl Write) -> anyhow::Result<()> {
    Ok(writeln!(out, "wrote {}", path.display())?)
}
