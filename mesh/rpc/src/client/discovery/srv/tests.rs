//! A name server of the test's own on a UDP socket, and what becomes of its answers.

use std::{collections::BTreeSet, sync::Mutex};

use hickory_resolver::{
    config::{ConnectionConfig, NameServerConfig},
    proto::{
        op::{Message, OpCode, ResponseCode},
        rr::{Record, rdata},
    },
};
use prometheus::Registry;
use tokio::{net::UdpSocket, time::timeout};
use tokio_util::task::AbortOnDropHandle;

use super::*;
use crate::{
    Config,
    client::{
        destination::Destination,
        discovery::parse_destination,
        metrics::ClientMetrics,
        tests::{contract, network},
    },
    live::Live,
};

const RECORD: &str = "_grpc._tcp.product.test";
/// Far longer than any test: an answer that was kept would show.
const TTL_S: u32 = 3_600;
const PATIENCE: Duration = Duration::from_secs(10);

/// Answers from its zone, and with SERVFAIL for names that it is told to fail for.
struct NameServer {
    zone: Arc<Mutex<Zone>>,
    config: ResolverConfig,
    _serving: AbortOnDropHandle<()>,
}

#[derive(Default)]
struct Zone {
    records: Vec<Record>,
    failing: BTreeSet<Name>,
}

impl Zone {
    fn answer(&self, question: &Message) -> Message {
        let query = &question.queries[0];
        let mut answer = Message::response(question.metadata.id, OpCode::Query);
        answer.add_query(query.clone());
        let named = || {
            self.records
                .iter()
                .filter(|record| record.name == *query.name())
        };
        let found = named().filter(|record| record.record_type() == query.query_type());
        answer.add_answers(found.cloned());
        answer.metadata.response_code = if self.failing.contains(query.name()) {
            ResponseCode::ServFail
        } else if named().next().is_none() {
            ResponseCode::NXDomain
        } else {
            ResponseCode::NoError
        };
        answer
    }
}

impl NameServer {
    async fn start(records: impl IntoIterator<Item = Record>) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let zone = Arc::new(Mutex::new(Zone::default()));
        let answering = zone.clone();
        let serving = crate::context::spawn_apart(async move {
            let mut bytes = [0; 4096];
            loop {
                let (length, from) = socket.recv_from(&mut bytes).await.unwrap();
                let question = Message::from_vec(&bytes[..length]).unwrap();
                let answer = answering.lock().unwrap().answer(&question);
                socket
                    .send_to(&answer.to_vec().unwrap(), from)
                    .await
                    .unwrap();
            }
        });
        let mut connection = ConnectionConfig::udp();
        connection.port = address.port();
        let server = NameServerConfig::new(address.ip(), true, vec![connection]);
        let server = Self {
            zone,
            config: ResolverConfig::from_name_servers(vec![server]),
            _serving: serving,
        };
        server.has(records);
        server
    }

    /// From now on these and no others.
    fn has(&self, records: impl IntoIterator<Item = Record>) {
        self.zone.lock().unwrap().records = records.into_iter().collect();
    }

    fn fails_for(&self, names: &[&str]) {
        self.zone.lock().unwrap().failing = names.iter().map(|text| name(text)).collect();
    }

    /// What a destination asks that is written like this.
    fn asked_for(&self, destination: &str) -> Srv {
        let Ok(super::super::Source::Srv(named)) = parse_destination(destination) else {
            panic!("{destination} names records")
        };
        Srv {
            named,
            interval: Duration::from_millis(5),
            servers: Some(self.config.clone()),
        }
    }

    async fn look_up(&self) -> Result<Vec<Target>, Failed> {
        self.asked_for(&format!("srv://{RECORD}")).look_up().await
    }

    /// Address and weight of each endpoint.
    async fn found(&self) -> Vec<(String, u32)> {
        let seen = |target: Target| (target.address.to_string(), target.weight);
        self.look_up()
            .await
            .unwrap()
            .into_iter()
            .map(seen)
            .collect()
    }

    async fn refusal(&self) -> String {
        self.look_up().await.unwrap_err().to_string()
    }
}

fn name(text: &str) -> Name {
    Name::from_ascii(format!("{}.", text.trim_end_matches('.'))).unwrap()
}

fn record(of: &str, data: RData) -> Record {
    Record::from_rdata(name(of), TTL_S, data)
}

fn srv(priority: u16, weight: u16, port: u16, host: &str) -> Record {
    let data = rdata::SRV::new(priority, weight, port, name(host));
    record(RECORD, RData::SRV(data))
}

fn host(of: &str, address: &str) -> Record {
    record(of, RData::from(address.parse::<IpAddr>().unwrap()))
}

fn pairs(expected: &[(&str, u32)]) -> Vec<(String, u32)> {
    let pair = |(address, weight): &(&str, u32)| ((*address).to_owned(), *weight);
    expected.iter().map(pair).collect()
}

#[tokio::test]
async fn records_become_endpoints_with_their_ports_and_weights() {
    let server = NameServer::start([
        srv(1, 3, 50051, "a.test"),
        srv(1, 40_000, 50052, "b.test"),
        host("a.test", "127.0.0.2"),
        host("a.test", "::1"),
        host("b.test", "127.0.0.3"),
    ])
    .await;
    let expected = [
        ("127.0.0.2:50051", 3),
        ("127.0.0.3:50052", 40_000),
        ("[::1]:50051", 3),
    ];
    assert_eq!(server.found().await, pairs(&expected));
}

#[tokio::test]
async fn endpoints_are_called_by_the_name_of_the_service_and_known_by_its_ids() {
    let server = NameServer::start([srv(0, 0, 50051, "a.test"), host("a.test", "127.0.0.2")]).await;
    let text = format!("srv://{RECORD};id=spiffe://shop.example/product");
    let found = server.asked_for(&text).look_up().await.unwrap();
    let [target] = &found[..] else {
        panic!("one endpoint: {found:?}")
    };
    assert_eq!(target.authority, "product.test:50051");
    assert!(target.tls && target.ids.len() == 1);
}

#[tokio::test]
async fn only_records_of_the_lowest_priority_value_count() {
    let server = NameServer::start([
        srv(20, 1, 1, "c.test"),
        srv(10, 1, 1, "a.test"),
        srv(10, 2, 1, "b.test"),
        host("a.test", "127.0.0.2"),
        host("b.test", "127.0.0.3"),
        host("c.test", "127.0.0.4"),
    ])
    .await;
    let expected = [("127.0.0.2:1", 1), ("127.0.0.3:1", 2)];
    assert_eq!(server.found().await, pairs(&expected));
}

#[tokio::test]
async fn a_weight_of_zero_is_the_smallest_share_and_an_address_has_its_largest() {
    let server = NameServer::start([
        srv(0, 0, 1, "a.test"),
        srv(0, 100, 1, "b.test"),
        srv(0, 5, 1, "also-b.test"),
        host("a.test", "127.0.0.2"),
        host("b.test", "127.0.0.3"),
        host("also-b.test", "127.0.0.3"),
    ])
    .await;
    let expected = [("127.0.0.2:1", 1), ("127.0.0.3:1", 100)];
    assert_eq!(server.found().await, pairs(&expected));
}

#[tokio::test]
async fn a_service_that_is_decidedly_not_available_is_refused_as_that() {
    let server = NameServer::start([srv(0, 0, 0, ".")]).await;
    let refusal = server.refusal().await;
    assert!(refusal.contains(RECORD), "{refusal}");
    assert!(refusal.contains("decidedly not available"), "{refusal}");
}

#[tokio::test]
async fn a_record_without_a_port_is_no_endpoint() {
    let (a, b) = (srv(0, 1, 0, "a.test"), srv(0, 1, 9, "b.test"));
    let hosts = [host("a.test", "127.0.0.2"), host("b.test", "127.0.0.3")];
    let server = NameServer::start([a.clone(), b].into_iter().chain(hosts.clone())).await;
    assert_eq!(server.found().await, pairs(&[("127.0.0.3:9", 1)]));
    server.has([a].into_iter().chain(hosts));
    assert_eq!(server.found().await, []);
}

#[tokio::test]
async fn no_search_domain_is_added_so_that_failures_are_of_the_name_itself() {
    let mut server = NameServer::start([host(RECORD, "127.0.0.2")]).await;
    server.config.search.push(name("shop.svc.cluster.local"));
    // The name is there, and has no such records.
    assert_eq!(server.found().await, []);
    server.fails_for(&[RECORD]);
    let refusal = server.refusal().await;
    assert!(!refusal.contains("no such name"), "{refusal}");
}

#[tokio::test]
async fn a_host_that_is_gone_is_left_out_and_one_that_cannot_be_asked_for_is_an_error() {
    let server = NameServer::start([
        srv(0, 1, 1, "a.test"),
        srv(0, 1, 1, "b.test"),
        host("a.test", "127.0.0.2"),
    ])
    .await;
    assert_eq!(server.found().await, pairs(&[("127.0.0.2:1", 1)]));
    server.fails_for(&["b.test"]);
    let refusal = server.refusal().await;
    assert!(refusal.contains(RECORD), "{refusal}");
    assert!(refusal.contains("b.test"), "{refusal}");
}

#[tokio::test]
async fn a_name_that_is_missing_or_cannot_be_asked_for_is_named() {
    let server = NameServer::start([]).await;
    let refusal = server.refusal().await;
    assert_eq!(
        refusal,
        format!("\"{RECORD}\" is not resolved: there is no such name")
    );
    server.fails_for(&[RECORD]);
    let refusal = server.refusal().await;
    assert!(
        refusal.starts_with(&format!("\"{RECORD}\" is not resolved: ")),
        "{refusal}"
    );
    assert!(!refusal.contains("no such name"), "{refusal}");
}

/// Addresses and trouble of a destination as they are now.
fn state(destination: &Destination) -> (Vec<String>, String) {
    let set = destination.set();
    let address = |member: &crate::client::balance::Member| member.endpoint.address().to_string();
    let mut addresses: Vec<_> = set.members().iter().map(address).collect();
    addresses.sort_unstable();
    let trouble = destination.discovery_trouble();
    (addresses, trouble.as_deref().unwrap_or_default().to_owned())
}

/// Waits until the destination has these endpoints and this trouble.
async fn becomes(destination: &Destination, addresses: &[&str], trouble: &str) {
    let reached = async {
        loop {
            // Listens before it looks, so that no change is missed.
            let mut changed = std::pin::pin!(destination.shared.changed.notified());
            changed.as_mut().enable();
            let (known, said) = state(destination);
            if known == addresses && said.contains(trouble) && said.is_empty() == trouble.is_empty()
            {
                return;
            }
            changed.await;
        }
    };
    let within = timeout(PATIENCE, reached).await;
    assert!(within.is_ok(), "it stays {:?}", state(destination));
}

#[tokio::test]
async fn endpoints_come_and_go_and_a_look_up_without_any_changes_nothing() {
    let (a, b) = (srv(0, 1, 9, "a.test"), srv(0, 1, 9, "b.test"));
    let hosts = [host("a.test", "127.0.0.2"), host("b.test", "127.0.0.3")];
    let zone = |records: &[&Record]| {
        let records = records.iter().copied().chain(&hosts);
        records.cloned().collect::<Vec<_>>()
    };
    let server = NameServer::start(zone(&[&a])).await;
    let metrics = ClientMetrics::register(&Registry::new()).unwrap();
    let destination = Destination::open(
        "test",
        Some(Box::new(server.asked_for(&format!("srv://{RECORD}")))),
        network(),
        &Live::new(Config::default()),
        &contract(),
        &metrics,
    );
    let both = ["127.0.0.2:9", "127.0.0.3:9"];
    becomes(&destination, &both[..1], "").await;
    server.has(zone(&[&a, &b]));
    becomes(&destination, &both, "").await;
    server.fails_for(&[RECORD]);
    becomes(&destination, &both, "is not resolved").await;
    server.fails_for(&[]);
    server.has(zone(&[&record(
        RECORD,
        RData::from(IpAddr::from([127, 0, 0, 9])),
    )]));
    becomes(&destination, &both, "found no endpoint").await;
    server.has(zone(&[&b]));
    becomes(&destination, &both[1..], "").await;
}
