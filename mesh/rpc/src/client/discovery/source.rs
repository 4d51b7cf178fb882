//! How a destination is written: the text of `mesh.destinations.NAME`, and of the files that it names.
//!
//! ```text
//! http://10.0.0.1:50051
//! http://10.0.0.1:50051;zone=a;weight=3, http://10.0.0.2:50051
//! https://10.0.0.1:50051;id=spiffe://shop.example/product
//! dns://product.shop.svc:50051
//! dns://product.shop.svc:50051;id=spiffe://shop.example/product
//! srv://_grpc._tcp.product.shop.svc.cluster.local
//! srv://_grpc._tcp.product.shop.svc.cluster.local;id=spiffe://shop.example/product
//! file:///etc/mesh/product
//! ```

use std::{path::PathBuf, sync::Arc};

use http::uri::Authority;
use mesh_identity::IdPattern;

/// The longest name of a zone, in bytes.
const ZONE_BYTES_MAX: usize = 64;
const WEIGHT_MAX: u32 = 1000;
/// The longest name that DNS knows, and the longest part of one, in bytes (RFC 1035).
const NAME_BYTES_MAX: usize = 253;
const LABEL_BYTES_MAX: usize = 63;

/// Where the endpoints of a destination come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// They stand in the configuration.
    List(Vec<Target>),
    /// Each address of a name is one like this.
    Dns(Target),
    /// The SRV records of a name say which; its address is that name, and their ports are missing in its authority.
    #[cfg(feature = "srv")]
    Srv(Target),
    /// Each line of a file is one.
    File(PathBuf),
}

/// An endpoint as discovery knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// Where to connect: `host:port`.
    pub(crate) address: Arc<str>,
    /// What it is called in requests.
    pub(crate) authority: Authority,
    /// Empty: not known.
    pub(crate) zone: Arc<str>,
    /// Its share beside the others': 1 to 1000, or to 65535 where a record of DNS says it.
    pub(crate) weight: u32,
    /// Whether it says that it speaks TLS.
    pub(crate) tls: bool,
    /// Who may be there; empty: anybody of the own trust domain.
    pub(crate) ids: Arc<[IdPattern]>,
}

impl Target {
    /// Whether connections to one are as good as connections to the other.
    pub(crate) fn is_reached_like(&self, other: &Self) -> bool {
        (self.tls, &self.ids) == (other.tls, &other.ids)
    }
}

impl Source {
    /// Whether an endpoint says that it speaks TLS. What a file says shows only when it is read.
    pub(crate) fn wants_tls(&self) -> bool {
        match self {
            Self::List(targets) => targets.iter().any(|target| target.tls),
            Self::Dns(target) => target.tls,
            #[cfg(feature = "srv")]
            Self::Srv(target) => target.tls,
            Self::File(_) => false,
        }
    }
}

/// Reads the text of a destination. The error says what is wrong, as the end of a sentence.
pub(crate) fn parse_destination(text: &str) -> Result<Source, &'static str> {
    let text = text.trim();
    if let Some(path) = text.strip_prefix("file://") {
        return if path.starts_with('/') {
            Ok(Source::File(PathBuf::from(path)))
        } else {
            Err("must name a file by its whole path, as in file:///etc/mesh/product")
        };
    }
    if text.starts_with("dns://") {
        return parse_target(text).map(Source::Dns);
    }
    if text.starts_with("srv://") {
        #[cfg(feature = "srv")]
        return parse_target(text).map(Source::Srv);
        #[cfg(not(feature = "srv"))]
        return Err(
            "needs the cargo feature \"srv\" of commerce-mesh, without which this was built",
        );
    }
    text.split(',')
        .map(parse_endpoint)
        .collect::<Result<_, _>>()
        .map(Source::List)
}

/// Reads a file of endpoints: one per line, `#` begins a comment. The error names the line.
pub(crate) fn parse_file(text: &str) -> Result<Vec<Target>, String> {
    let lines = text.lines().enumerate().map(|(index, line)| {
        let target = line.split('#').next().unwrap_or_default().trim();
        (index + 1, target)
    });
    lines
        .filter(|(_, target)| !target.is_empty())
        .map(|(line, target)| {
            parse_endpoint(target).map_err(|reason| format!("line {line} {reason}"))
        })
        .collect()
}

/// One of several: an address, not a name for many.
fn parse_endpoint(text: &str) -> Result<Target, &'static str> {
    if ["dns://", "srv://"]
        .iter()
        .any(|many| text.trim().starts_with(many))
    {
        return Err("must start with http:// or https:// beside others");
    }
    parse_target(text)
}

/// `http://host:port;zone=NAME;weight=NUMBER;id=SPIFFE-ID`
fn parse_target(text: &str) -> Result<Target, &'static str> {
    let mut parts = text.split(';').map(str::trim);
    let (scheme, authority) = address(parts.next().unwrap_or_default())?;
    let mut ids: Vec<IdPattern> = Vec::new();
    let mut target = Target {
        address: Arc::from(authority.as_str()),
        authority: match scheme {
            Scheme::Srv => subject(authority.as_str())?,
            _ => authority,
        },
        zone: Arc::from(""),
        weight: 1,
        tls: scheme == Scheme::Https,
        ids: Arc::default(),
    };
    for part in parts {
        match part.split_once('=') {
            Some(("id", _)) if scheme == Scheme::Http => {
                return Err("has an id, which only https://, dns:// and srv:// can");
            }
            Some(("id", id)) => {
                let id = id.parse();
                ids.push(id.map_err(|_| "has an id that is not a SPIFFE ID or all below one")?);
            }
            _ if scheme == Scheme::Dns => return Err("knows only ;id=SPIFFE-ID after the port"),
            _ if scheme == Scheme::Srv => return Err("knows only ;id=SPIFFE-ID after the name"),
            Some(("zone", zone)) if is_zone(zone) => target.zone = Arc::from(zone),
            Some(("zone", _)) => {
                return Err("has a zone that is not 1 to 64 letters, digits, '-', '_' or '.'");
            }
            Some(("weight", weight)) => {
                target.weight = weight
                    .parse()
                    .ok()
                    .filter(|weight| (1..=WEIGHT_MAX).contains(weight))
                    .ok_or("has a weight that is not a number from 1 to 1000")?;
            }
            _ => return Err("knows only ;zone=, ;weight= and ;id= after the port"),
        }
    }
    target.tls |= !ids.is_empty();
    target.ids = ids.into();
    Ok(target)
}

fn is_zone(zone: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    !zone.is_empty() && zone.len() <= ZONE_BYTES_MAX && zone.bytes().all(plain)
}

/// What the SRV records of a name are about: the name without `_service` and `_protocol` (RFC 2782). Requests are made
/// to that and not to the hosts that the records name, as with `dns://` it is the name and not the address.
fn subject(name: &str) -> Result<Authority, &'static str> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    let is_label = |label: &str| {
        !label.is_empty() && label.len() <= LABEL_BYTES_MAX && label.bytes().all(plain)
    };
    if name.len() > NAME_BYTES_MAX || !name.split('.').all(is_label) {
        return Err("has a name that DNS cannot have");
    }
    let labels = name.split('.').skip_while(|label| label.starts_with('_'));
    let subject = labels.collect::<Vec<_>>().join(".");
    subject
        .parse()
        .map_err(|_| "needs a name after the service, as in srv://_grpc._tcp.product.shop.svc")
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Scheme {
    Http,
    Https,
    Dns,
    Srv,
}

/// `scheme://host:port` and nothing more; `srv://name`, for the records have the port.
fn address(text: &str) -> Result<(Scheme, Authority), &'static str> {
    let uri: http::Uri = text
        .parse()
        .map_err(|_| "is not a URI such as http://host:port")?;
    let scheme = match uri.scheme_str() {
        Some("http") => Scheme::Http,
        Some("https") => Scheme::Https,
        Some("dns") => Scheme::Dns,
        Some("srv") => Scheme::Srv,
        _ => return Err("must start with http://, https://, dns://, srv:// or file://"),
    };
    if uri
        .path_and_query()
        .is_some_and(|rest| !matches!(rest.as_str(), "" | "/"))
    {
        return Err(if scheme == Scheme::Srv {
            "must end after the name"
        } else {
            "must end after the port"
        });
    }
    let authority = uri.authority().cloned();
    if scheme == Scheme::Srv {
        return authority
            .filter(|a| !a.as_str().contains(['@', ':']))
            .map(|authority| (scheme, authority))
            .ok_or("needs a name without a port, which its records have");
    }
    authority
        .filter(|a| !a.host().is_empty() && a.port_u16().is_some_and(|port| port != 0))
        .filter(|a| !a.as_str().contains('@'))
        .map(|authority| (scheme, authority))
        .ok_or("needs a host and a port, as in http://host:port")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_address_is_scheme_host_and_port() {
        for address in [
            "http://127.0.0.1:50051",
            "http://[::1]:50051",
            "http://product.shop.svc:50051/",
            "dns://product.shop.svc:50051",
            "dns://product.shop.svc:50051;id=spiffe://shop.example/product",
            "https://127.0.0.1:50051",
            "https://a:1;id=spiffe://shop.example/a;id=spiffe://shop.example/jobs/*;weight=2",
            "file:///etc/mesh/product",
        ] {
            assert!(parse_destination(address).is_ok(), "{address:?}");
        }
        for address in [
            "",
            "product:50051",
            "ftp://a:1",
            "http://a:1, dns://b:1",
            "http://a:1;id=spiffe://shop.example/a",
            "https://a:1;id=product",
            "dns://a:1;weight=2",
            "http://a",
            "http://a:0",
            "http://:1",
            "http://a:1/v1",
            "http://user@a:1",
            "a b",
            "dns://a",
            "dns://a:1, dns://b:1",
            "http://a:1, srv://_grpc._tcp.a",
            "srv://_grpc._tcp.a:1",
            "srv://_grpc._tcp.a/v1",
            "srv://_grpc._tcp.a;weight=2",
            "srv://_grpc._tcp.a;id=product",
            "srv://user@_grpc._tcp.a",
            "srv://_grpc._tcp",
            "srv://_grpc._tcp..a",
            "srv://[::1]",
            "srv://a%20b",
            "srv://",
            "file://relative",
            "http://a:1,",
            "http://a:1;zone=",
            "http://a:1;zone=a b",
            "http://a:1;weight=0",
            "http://a:1;weight=1001",
            "http://a:1;colour=red",
        ] {
            assert!(parse_destination(address).is_err(), "{address:?}");
        }
    }

    #[cfg(feature = "srv")]
    #[test]
    fn a_service_is_called_by_the_name_that_its_records_are_about() {
        let read = |text: &str| match parse_destination(text) {
            Ok(Source::Srv(target)) => target,
            read => panic!("{text}: {read:?}"),
        };
        let target = read("srv://_grpc._tcp.product.shop.svc");
        assert_eq!(&*target.address, "_grpc._tcp.product.shop.svc");
        assert_eq!(target.authority, "product.shop.svc");
        assert!(!target.tls && target.ids.is_empty());
        let target = read(" srv://product.service.consul.;id=spiffe://shop.example/product ");
        assert_eq!(&*target.address, "product.service.consul.");
        assert_eq!(target.authority, "product.service.consul");
        assert!(target.tls && target.ids.len() == 1);
        let label = "a".repeat(LABEL_BYTES_MAX + 1);
        assert!(parse_destination(&format!("srv://_grpc._tcp.{label}")).is_err());
        let name = "a.".repeat(NAME_BYTES_MAX / 2 + 1) + "a";
        assert!(parse_destination(&format!("srv://{name}")).is_err());
    }

    #[cfg(not(feature = "srv"))]
    #[test]
    fn without_its_feature_srv_is_refused_by_the_features_name() {
        let refused = parse_destination("srv://_grpc._tcp.product.shop.svc").unwrap_err();
        assert!(refused.contains("cargo feature \"srv\" of commerce-mesh"));
    }

    #[test]
    fn a_list_carries_zones_and_weights() {
        let text = "http://a:1;zone=north;weight=3, http://b:2";
        let Ok(Source::List(targets)) = parse_destination(text) else {
            panic!("{text} is a list")
        };
        let read = |target: &Target| {
            (
                target.address.to_string(),
                target.zone.to_string(),
                target.weight,
            )
        };
        assert_eq!(
            targets.iter().map(read).collect::<Vec<_>>(),
            [
                ("a:1".into(), "north".into(), 3),
                ("b:2".into(), String::new(), 1)
            ]
        );
    }

    #[test]
    fn a_file_has_comments_and_its_errors_have_lines() {
        let text = "# ours\nhttp://a:1\n\n  http://b:2;zone=x # the other\n";
        assert_eq!(parse_file(text).unwrap().len(), 2);
        let error = parse_file("http://a:1\nftp://b:2").unwrap_err();
        assert!(error.starts_with("line 2 must start with"), "{error}");
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parsers_panic(
            scheme in prop::sample::select(vec!["", "http://", "dns://", "srv://", "srv://_a._b."]),
            text in ".{0,200}",
        ) {
            let _ = parse_destination(&format!("{scheme}{text}"));
            let _ = parse_file(&format!("{scheme}{text}"));
            // It is refused before it is read where the feature is off.
            let _ = parse_target(&format!("{scheme}{text}"));
        }

        #[test]
        fn what_is_written_is_read(
            endpoints in prop::collection::vec(
                ("[a-z][a-z0-9]{0,9}(\\.[a-z]{1,5}){0,2}", 1_u16.., "[a-zA-Z0-9._-]{0,20}", 1_u32..=1000),
                1..20,
            ),
        ) {
            let write = |(host, port, zone, weight): &(String, u16, String, u32)| {
                let zone = if zone.is_empty() { String::new() } else { format!(";zone={zone}") };
                format!("http://{host}:{port}{zone};weight={weight}")
            };
            let written: Vec<_> = endpoints.iter().map(write).collect();
            let Ok(Source::List(read)) = parse_destination(&written.join(", ")) else {
                panic!("{written:?} is a list")
            };
            prop_assert_eq!(&read, &parse_file(&written.join("\n")).unwrap());
            for ((host, port, zone, weight), target) in endpoints.iter().zip(&read) {
                prop_assert_eq!(&*target.address, format!("{host}:{port}"));
                prop_assert_eq!((&*target.zone, target.weight), (zone.as_str(), *weight));
            }
        }
    }
}
