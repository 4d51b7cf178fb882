//! A certificate authority for development: makes it, issues certificates with SPIFFE IDs by it, and
//! revokes them. The files are those that `mesh_identity` reads and watches.
//!
//! For development and tests: the authority's key lies in a file beside what it signs. In production the
//! files come from SPIRE, cert-manager or the like.

mod folder;

use std::{
    io::Write,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
};

use anyhow::{Context as _, bail, ensure};
use folder::Folder;
use mesh_identity::{SpiffeId, TrustDomain};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SanType, SerialNumber,
};
use time::{Duration, OffsetDateTime, format_description::well_known::Rfc3339};
use x509_parser::prelude::{CertificateRevocationList, FromDer as _, X509Certificate};

/// Certificates begin a little earlier: clocks differ.
const CLOCK_SKEW: Duration = Duration::minutes(5);

#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Issues a certificate for each service, by the authority in the folder; makes the authority if it
    /// is not there.
    New {
        /// The folder; made if it is not there.
        #[arg(long, value_name = "FOLDER")]
        out: PathBuf,
        /// The trust domain, such as `shop.example`.
        #[arg(long)]
        trust_domain: String,
        /// A service, which becomes `spiffe://TRUST_DOMAIN/SERVICE`; may be given several times.
        #[arg(long = "service", value_name = "SERVICE", required = true)]
        services: Vec<String>,
        /// A host name or address under which the services are reached by clients that know no SPIFFE
        /// IDs, beside the service's name, localhost and its addresses; may be given several times.
        #[arg(long = "host", value_name = "HOST")]
        hosts: Vec<String>,
        /// How long the certificates are valid.
        #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..=87_600))]
        lifetime_hours: u32,
        /// How long the authority is valid, if it is made.
        #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=36_500))]
        ca_lifetime_days: u32,
        /// Replaces certificates that are there. The authority stays.
        #[arg(long)]
        force: bool,
    },
    /// Puts the certificate of a service onto the revocation list.
    Revoke {
        /// The folder of the authority.
        #[arg(long, value_name = "FOLDER")]
        out: PathBuf,
        /// The service.
        #[arg(
            long,
            required_unless_present = "certificate",
            conflicts_with = "certificate"
        )]
        service: Option<String>,
        /// The certificate as PEM, if it is not the service's current one.
        #[arg(long, value_name = "FILE")]
        certificate: Option<PathBuf>,
    },
}

/// Carries out a command; `out` gets what people are to read.
pub(crate) fn run(command: Command, out: &mut impl Write) -> anyhow::Result<()> {
    let now = OffsetDateTime::now_utc().replace_nanosecond(0)?;
    match command {
        Command::New {
            out: folder,
            trust_domain,
            services,
            hosts,
            lifetime_hours,
            ca_lifetime_days,
            force,
        } => {
            let trust_domain: TrustDomain = trust_domain
                .parse()
                .with_context(|| format!("--trust-domain {trust_domain:?}"))?;
            let folder = Folder::new(folder);
            let ids = services
                .iter()
                .map(|service| spiffe_id(&trust_domain, service))
                .collect::<anyhow::Result<Vec<_>>>()?;
            for service in &services {
                folder.refuse_overwriting(service, force)?;
            }
            let until = now + Duration::days(ca_lifetime_days.into());
            let authority = match Authority::read(&folder)? {
                Some(authority) => authority,
                None => Authority::make(&folder, &trust_domain, now, until, out)?,
            };
            ensure!(
                authority.trust_domain == trust_domain,
                "the authority in {} is of the trust domain \"{}\"",
                folder.shown(),
                authority.trust_domain
            );
            let until = now + Duration::hours(lifetime_hours.into());
            ensure!(
                until <= authority.until,
                "--lifetime-hours: the authority ends earlier, at {}",
                authority.until.format(&Rfc3339)?
            );
            for (service, id) in services.iter().zip(ids) {
                authority.issue(&folder, service, &id, &hosts, now, until, out)?;
            }
            Ok(())
        }
        Command::Revoke {
            out: folder,
            service,
            certificate,
        } => {
            let folder = Folder::new(folder);
            let authority = Authority::read(&folder)?
                .with_context(|| format!("{} holds no authority", folder.shown()))?;
            let path = match (service, certificate) {
                (_, Some(path)) => path,
                (Some(service), None) => folder.certificate(&service),
                (None, None) => bail!("--service or --certificate is wanted"),
            };
            authority.revoke(&folder, &folder::read_der(&path)?, now, out)
        }
    }
}

/// A service is one segment of a path, and one folder.
fn spiffe_id(trust_domain: &TrustDomain, service: &str) -> anyhow::Result<SpiffeId> {
    ensure!(
        !service.contains('/') && service != folder::AUTHORITY,
        "--service {service:?}: one word is wanted, other than `{}`",
        folder::AUTHORITY
    );
    SpiffeId::new(trust_domain, &format!("/{service}"))
        .with_context(|| format!("--service {service:?}"))
}

struct Authority {
    trust_domain: TrustDomain,
    until: OffsetDateTime,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// `None`: there is none in the folder.
    fn read(folder: &Folder) -> anyhow::Result<Option<Self>> {
        let Some((certificate, key)) = folder.authority()? else {
            return Ok(None);
        };
        let unfit = || format!("the authority in {} is not one of ours", folder.shown());
        let (_, parsed) = X509Certificate::from_der(&certificate).with_context(unfit)?;
        let names = parsed.subject_alternative_name().with_context(unfit)?;
        let name = names.and_then(|names| names.value.general_names.first());
        let Some(x509_parser::prelude::GeneralName::URI(id)) = name else {
            bail!(unfit());
        };
        let id: SpiffeId = id.parse().with_context(unfit)?;
        let until = parsed.validity().not_after.to_datetime();
        let key = KeyPair::from_pem(&key).with_context(unfit)?;
        let certificate = certificate.as_slice().into();
        Ok(Some(Self {
            trust_domain: id.trust_domain().parse()?,
            until,
            issuer: Issuer::from_ca_cert_der(&certificate, key).with_context(unfit)?,
        }))
    }

    /// Makes one, with an empty revocation list.
    fn make(
        folder: &Folder,
        trust_domain: &TrustDomain,
        now: OffsetDateTime,
        until: OffsetDateTime,
        out: &mut impl Write,
    ) -> anyhow::Result<Self> {
        let mut params = CertificateParams::default();
        let id = format!("spiffe://{trust_domain}");
        params.distinguished_name = name(&format!("{trust_domain} development authority"));
        params.subject_alt_names = vec![SanType::URI(id.as_str().try_into()?)];
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = now - CLOCK_SKEW;
        params.not_after = until;
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        folder.write_authority(&certificate.pem(), &key.serialize_pem(), out)?;
        let authority = Self {
            trust_domain: trust_domain.clone(),
            until,
            issuer: Issuer::new(params, key),
        };
        authority.write_list(folder, 1, Vec::new(), now, out)?;
        Ok(authority)
    }

    #[expect(clippy::too_many_arguments, reason = "each is a line of a certificate")]
    fn issue(
        &self,
        folder: &Folder,
        service: &str,
        id: &SpiffeId,
        hosts: &[String],
        now: OffsetDateTime,
        until: OffsetDateTime,
        out: &mut impl Write,
    ) -> anyhow::Result<()> {
        let mut params = CertificateParams::default();
        params.distinguished_name = name(service);
        params.subject_alt_names = vec![SanType::URI(id.as_str().try_into()?)];
        for host in [service, "localhost"]
            .into_iter()
            .chain(hosts.iter().map(String::as_str))
        {
            params.subject_alt_names.push(host_name(host)?);
        }
        for address in [
            IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(Ipv6Addr::LOCALHOST),
        ] {
            params.subject_alt_names.push(SanType::IpAddress(address));
        }
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.use_authority_key_identifier_extension = true;
        params.not_before = now - CLOCK_SKEW;
        params.not_after = until;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let until = until.format(&Rfc3339)?;
        writeln!(out, "{id} until {until}")?;
        folder.write_service(service, &certificate.pem(), &key.serialize_pem(), out)
    }

    /// Adds a certificate to the list. The next number makes it the newer one.
    fn revoke(
        &self,
        folder: &Folder,
        certificate: &[u8],
        now: OffsetDateTime,
        out: &mut impl Write,
    ) -> anyhow::Result<()> {
        let (_, certificate) = X509Certificate::from_der(certificate)?;
        let serial = certificate.raw_serial();
        let list = folder.list()?;
        let (_, list) = CertificateRevocationList::from_der(&list)?;
        let mut revoked = Vec::new();
        for entry in list.iter_revoked_certificates() {
            if entry.raw_serial() == serial {
                writeln!(out, "{} is revoked already", hex::encode(serial))?;
                return Ok(());
            }
            revoked.push(revoked_at(
                entry.raw_serial(),
                entry.revocation_date.to_datetime(),
            ));
        }
        revoked.push(revoked_at(serial, now));
        let number = list
            .crl_number()
            .and_then(|number| u64::try_from(number).ok());
        let number = number.context("the revocation list is not one of ours")?;
        writeln!(out, "{} is revoked", hex::encode(serial))?;
        self.write_list(folder, number + 1, revoked, now, out)
    }

    fn write_list(
        &self,
        folder: &Folder,
        number: u64,
        revoked_certs: Vec<RevokedCertParams>,
        now: OffsetDateTime,
        out: &mut impl Write,
    ) -> anyhow::Result<()> {
        let params = CertificateRevocationListParams {
            this_update: now,
            next_update: self.until, // Nobody issues lists of a development authority by a schedule.
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs,
            key_identifier_method: KeyIdMethod::Sha256,
        };
        folder.write_list(&params.signed_by(&self.issuer)?.pem()?, out)
    }
}

fn revoked_at(serial: &[u8], revocation_time: OffsetDateTime) -> RevokedCertParams {
    RevokedCertParams {
        serial_number: SerialNumber::from_slice(serial),
        revocation_time,
        reason_code: None,
        invalidity_date: None,
    }
}

fn name(common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common);
    name
}

fn host_name(host: &str) -> anyhow::Result<SanType> {
    Ok(match host.parse::<IpAddr>() {
        Ok(address) => SanType::IpAddress(address),
        Err(_) => SanType::DnsName(
            host.try_into()
                .with_context(|| format!("--host {host:?}"))?,
        ),
    })
}

#[cfg(test)]
mod tests;
