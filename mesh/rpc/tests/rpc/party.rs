//! Authorities, and processes with an identity in files.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    task::Poll,
    time::Duration,
};

use mesh::{
    Config, Contract, Mesh,
    identity::{FilesConfig, Mode, PolicyConfig},
};
use prometheus::Registry;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber,
};
use tempfile::TempDir;
use time::OffsetDateTime;
use tracing::subscriber::DefaultGuard;

use crate::support::{contract, elapse};

static SERIAL: AtomicU64 = AtomicU64::new(1);

fn serial() -> u64 {
    SERIAL.fetch_add(1, Ordering::Relaxed)
}

/// The first of January of a year.
pub(crate) fn year(year: i32) -> OffsetDateTime {
    rcgen::date_time_ymd(year, 1, 1)
}

/// A certificate with its key, as PEM.
#[derive(Clone)]
pub(crate) struct Issued {
    pub(crate) chain: String,
    pub(crate) key: String,
    pub(crate) serial: u64,
}

pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    trust_domain: String,
}

impl Authority {
    pub(crate) fn new(trust_domain: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, trust_domain);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        (params.not_before, params.not_after) = (year(2020), year(2100));
        params.serial_number = Some(SerialNumber::from(serial()));
        Self {
            issuer: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap(),
            trust_domain: trust_domain.to_owned(),
        }
    }

    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// What a good leaf says.
    pub(crate) fn leaf(&self, path: &str) -> CertificateParams {
        let id = format!("spiffe://{}{path}", self.trust_domain);
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(id.as_str().try_into().unwrap())];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        (params.not_before, params.not_after) = (year(2020), year(2100));
        params.serial_number = Some(SerialNumber::from(serial()));
        params.use_authority_key_identifier_extension = true;
        params
    }

    pub(crate) fn issue(&self, path: &str) -> Issued {
        self.sign(&self.leaf(path))
    }

    pub(crate) fn sign(&self, params: &CertificateParams) -> Issued {
        let key = KeyPair::generate().unwrap();
        let issuer: &Issuer<'_, KeyPair> = &self.issuer;
        let certificate = params.signed_by(&key, issuer).unwrap();
        issued(&certificate, &key, params)
    }

    /// A list of revoked serial numbers, as PEM.
    pub(crate) fn crl(&self, serials: &[u64]) -> String {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: year(2021),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: year(2021),
            next_update: year(2100),
            crl_number: SerialNumber::from(serial()),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}

/// A certificate that only its own key vouches for.
pub(crate) fn self_signed(params: &CertificateParams) -> Issued {
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    issued(&certificate, &key, params)
}

fn issued(certificate: &rcgen::Certificate, key: &KeyPair, params: &CertificateParams) -> Issued {
    let serial = params.serial_number.as_ref().unwrap().to_bytes();
    Issued {
        chain: certificate.pem(),
        key: key.serialize_pem(),
        serial: serial
            .iter()
            .fold(0, |number, byte| number << 8 | u64::from(*byte)),
    }
}

/// The identity of a process, in files as Kubernetes mounts them: all change with one rename.
pub(crate) struct Party {
    folder: TempDir,
    version: AtomicU64,
}

const FILES: [&str; 4] = ["certificate.pem", "key.pem", "bundle.pem", "crl.pem"];

impl Party {
    pub(crate) fn new(issued: &Issued, bundle: &str) -> Self {
        let party = Self {
            folder: tempfile::tempdir().unwrap(),
            version: AtomicU64::new(0),
        };
        party.write(issued, bundle, "");
        for name in FILES {
            let target = Path::new("..data").join(name);
            symlink(target, party.path(name)).unwrap();
        }
        party
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Puts a new set into place.
    pub(crate) fn write(&self, issued: &Issued, bundle: &str, crl: &str) {
        let version = self.version.fetch_add(1, Ordering::Relaxed);
        let data = self.path(&format!("..{version}"));
        fs::create_dir(&data).unwrap();
        let contents = [&issued.chain, &issued.key, bundle, crl];
        for (name, content) in FILES.iter().zip(contents) {
            fs::write(data.join(name), content).unwrap();
        }
        let (fresh, current) = (self.path("..fresh"), self.path("..data"));
        let before = fs::read_link(&current).ok();
        symlink(&data, &fresh).unwrap();
        fs::rename(&fresh, &current).unwrap();
        if let Some(before) = before {
            fs::remove_dir_all(before).unwrap();
        }
    }

    /// What the process is configured with; it looks for new files every `interval`.
    pub(crate) fn config(&self, mode: Mode, interval: Duration) -> Config {
        let mut config = Config::default();
        config.identity.mode = mode;
        config.identity.files = Some(FilesConfig {
            certificate: self.path(FILES[0]),
            key: self.path(FILES[1]),
            bundle: self.path(FILES[2]),
            crls: vec![self.path(FILES[3])],
            federated: std::collections::BTreeMap::new(),
            reload_interval_ms: interval.as_millis().try_into().unwrap(),
        });
        config
    }

    /// The same with a policy.
    pub(crate) fn config_by(&self, mode: Mode, rules: &str, dry_run: bool) -> Config {
        let mut config = self.config(mode, QUICK);
        fs::write(self.path("policy.toml"), rules).unwrap();
        config.identity.policy = Some(PolicyConfig {
            file: self.path("policy.toml"),
            dry_run,
            audit_allowed: false,
            reload_interval_ms: QUICK.as_millis().try_into().unwrap(),
        });
        config
    }
}

/// How often a test that waits for new files lets them be looked at.
pub(crate) const QUICK: Duration = Duration::from_millis(5);

/// A mesh with an identity.
pub(crate) async fn started(config: Config) -> Mesh {
    started_in(config, &Registry::new()).await
}

/// The same with a registry of the caller's own.
pub(crate) async fn started_in(config: Config, registry: &Registry) -> Mesh {
    let contract = Contract::new(contract::descriptor_set()).expect("the test's contract is valid");
    let started = Mesh::start(config, contract, registry).await;
    started.expect("the test's identity is good")
}

/// Waits until the process holds the certificate of this serial number.
pub(crate) async fn holds(mesh: &Mesh, serial: u64) {
    let held = || mesh.identity().expect("it has one").status().serial;
    while u64::from_str_radix(&held(), 16).unwrap() != serial {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// What comes of a wait for others to notice new files, and how long that took.
pub(crate) async fn how_soon<T>(waiting: impl Future<Output = T>) -> (T, Duration) {
    let (mut waiting, mut elapsed) = (pin!(waiting), Duration::ZERO);
    loop {
        if let Poll::Ready(came) = futures_util::poll!(&mut waiting) {
            return (came, elapsed);
        }
        // Most of it by the runtime's clock; a little by the machine's, for reading files.
        let (step, real) = (Duration::from_millis(80), Duration::from_millis(20));
        elapse(step).await;
        tokio::time::sleep(real).await;
        elapsed += step + real;
        assert!(elapsed <= Duration::from_secs(10), "nothing came of it");
    }
}

/// What is logged on this thread while it lives.
pub(crate) struct Logs {
    lines: Arc<Mutex<Vec<u8>>>,
    _guard: DefaultGuard,
}

impl Logs {
    pub(crate) fn capture() -> Self {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .without_time()
            .with_max_level(tracing::Level::INFO)
            .with_writer(move || Writer(writer.clone()))
            .finish();
        Self {
            lines,
            _guard: tracing::subscriber::set_default(subscriber),
        }
    }

    /// The lines with this text.
    pub(crate) fn with(&self, text: &str) -> Vec<String> {
        let lines = String::from_utf8(self.lines.lock().unwrap().clone()).unwrap();
        let lines = lines.lines().filter(|line| line.contains(text));
        lines.map(str::to_owned).collect()
    }
}

struct Writer(Arc<Mutex<Vec<u8>>>);

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Write::write(&mut *self.0.lock().unwrap(), bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
