//! HAProxy as a sidecar: Debian's package, with its defaults but for what HTTP/2 needs.

use std::{fs, net::SocketAddr, path::Path, process::Command};

use anyhow::Result;
use xtask::{debian, servers::program};

use super::{
    certificates::{Certificates, SERVER_NAME},
    stage::Hop,
};

/// Makes sure that it is there.
pub(crate) fn install() -> Result<()> {
    debian::ensure("haproxy", "haproxy")
}

/// A sidecar that takes calls at one address and hands them on to another.
pub(crate) fn command(
    folder: &Path,
    name: &str,
    [listen, to]: [SocketAddr; 2],
    hop: Hop<'_>,
) -> Result<Command> {
    let file = folder.join(format!("{name}.cfg"));
    fs::write(&file, configuration(listen, to, hop))?;
    let mut haproxy = program(Path::new("haproxy"), None);
    haproxy.arg("-db").arg("-f").arg(file);
    Ok(haproxy)
}

fn configuration(listen: SocketAddr, to: SocketAddr, hop: Hop<'_>) -> String {
    let tls = |side: &str, certificates: &Certificates| {
        let own = certificates.file(&format!("{side}.both.pem"));
        let authority = certificates.file("authority.pem");
        format!("ssl crt {own} ca-file {authority} verify required alpn h2")
    };
    let bind = match hop {
        Hop::Into(certificates) => tls("server", certificates),
        Hop::Plain | Hop::OutOf(_) => "proto h2".to_owned(),
    };
    let server = match hop {
        Hop::OutOf(certificates) => {
            format!(
                "{} verifyhost {SERVER_NAME} sni str({SERVER_NAME})",
                tls("client", certificates)
            )
        }
        Hop::Plain | Hop::Into(_) => "proto h2".to_owned(),
    };
    format!(
        "global\n    maxconn 4096\n\
         defaults\n    mode http\n    timeout connect 5s\n    timeout client 1h\n    timeout server 1h\n    \
         http-reuse always\n\
         frontend calls\n    bind {listen} {bind}\n    default_backend next\n\
         backend next\n    server next {to} {server}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tls_is_spoken_on_the_side_that_faces_the_other_sidecar() {
        let folder = Path::new("/certificates");
        let certificates = Certificates::of(folder);
        let addresses = ["127.0.0.1:1", "127.0.0.1:2"].map(|text| text.parse().unwrap());
        let text = |hop| configuration(addresses[0], addresses[1], hop);
        assert!(text(Hop::Plain).contains("bind 127.0.0.1:1 proto h2\n"));
        assert!(text(Hop::Plain).contains("server next 127.0.0.1:2 proto h2\n"));
        let client = text(Hop::OutOf(&certificates));
        assert!(client.contains("bind 127.0.0.1:1 proto h2\n"));
        assert!(client.contains("127.0.0.1:2 ssl crt /certificates/client.both.pem"));
        let server = text(Hop::Into(&certificates));
        assert!(server.contains("bind 127.0.0.1:1 ssl crt /certificates/server.both.pem"));
        assert!(server.contains("server next 127.0.0.1:2 proto h2\n"));
    }
}
