//! Ports that stay free while a server is down.

use std::{
    collections::{BTreeSet, hash_map::RandomState},
    fs,
    hash::BuildHasher as _,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    ops::Range,
    sync::{Mutex, PoisonError},
};

use anyhow::{Context as _, Result};

/// Where Linux says which ports it gives to outgoing connections (ip(7)): the first and the last.
const EPHEMERAL: &str = "/proc/sys/net/ipv4/ip_local_port_range";
/// What it says where it was not told otherwise.
const EPHEMERAL_FIRST: u16 = 32_768;
/// Below are the ports of well-known servers.
const FIRST: u16 = 10_000;
/// Far more than there are servers on one machine.
const TRIES: usize = 1_000;

/// What this process was given already: two servers of a test that had the same port would take each other's answers
/// for their own.
static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// A port of the loopback interface that is free now, that was not asked for before, and that no outgoing connection
/// takes while a server that has it is started again: the kernel gives those others. Should another server take it
/// first, ours says so and ends.
pub fn free_port() -> Result<u16> {
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    let random = RandomState::new();
    let ports = quiet(&fs::read_to_string(EPHEMERAL).unwrap_or_default());
    let port = (0..TRIES)
        .map(|attempt| at(&ports, random.hash_one(attempt)))
        .find(|port| {
            !given.contains(port) && TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok()
        })
        .with_context(|| format!("none of {TRIES} ports in {ports:?} is free"))?;
    given.insert(port);
    Ok(port)
}

/// The same as an address.
pub fn free_address() -> Result<SocketAddr> {
    Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?)))
}

/// The larger of the two ranges beside the ephemeral one.
fn quiet(ephemeral: &str) -> Range<u16> {
    let mut ends = ephemeral.split_whitespace().map(str::parse);
    let first = ends.next().and_then(Result::ok).unwrap_or(EPHEMERAL_FIRST);
    let last = ends.next().and_then(Result::ok).unwrap_or(u16::MAX);
    let (below, above) = (FIRST..first, last.saturating_add(1)..u16::MAX);
    if below.len() >= above.len() {
        below
    } else {
        above
    }
}

/// The port of a range that a random number stands for.
fn at(ports: &Range<u16>, random: u64) -> u16 {
    let width = u64::from(ports.end - ports.start);
    let offset = u16::try_from(random % width).expect("a range of u16 is no wider");
    ports.start + offset
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn ports_are_beside_those_of_outgoing_connections() {
        assert_eq!(quiet("32768\t60999\n"), 10_000..32_768);
        assert_eq!(quiet("1024 30000"), 30_001..65_535);
        assert_eq!(quiet(""), 10_000..32_768);
        assert_eq!(at(&(10..12), 7), 11);
    }

    #[test]
    fn none_is_given_twice() {
        let given: BTreeSet<u16> = (0..2_000).map(|_| free_port().unwrap()).collect();
        assert_eq!(given.len(), 2_000); // Of some 20,000, by chance a hundred would be the same.
    }

    #[test]
    fn an_outgoing_connection_takes_none() {
        let ephemeral = fs::read_to_string(EPHEMERAL).unwrap();
        let ports = quiet(&ephemeral);
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = server.local_addr().unwrap();
        for _ in 0..100 {
            let from = TcpStream::connect(to).unwrap().local_addr().unwrap();
            assert!(!ports.contains(&from.port()), "{from} is in {ports:?}");
            assert!(ports.contains(&free_port().unwrap()));
        }
    }
}
