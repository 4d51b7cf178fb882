//! An answer lasts until the end of its stream, for the balancer as well.

use super::*;

const CALLS: usize = 40;

/// A connection that answers every call by name; a watch is begun at once, and goes on until it `ends`.
fn served(name: &str, ends: &CancellationToken) -> DuplexStream {
    let (near, far) = tokio::io::duplex(4096);
    let (name, ends) = (name.to_owned(), ends.clone());
    crate::spawn(async move {
        let mut server = h2::server::handshake(far).await.unwrap();
        while let Some(Ok((asked, mut respond))) = server.accept().await {
            let head = Response::builder().header("content-type", "application/grpc");
            let head = head.header("server", &name);
            if asked.uri().path() != WATCH {
                let head = head.header("grpc-status", "0").body(()).unwrap();
                respond.send_response(head, true).unwrap();
                continue;
            }
            let head = head.body(()).unwrap();
            let mut stream = respond.send_response(head, false).unwrap();
            let ends = ends.clone();
            crate::spawn(async move {
                ends.cancelled().await;
                let trailers = [("grpc-status".parse().unwrap(), "0".parse().unwrap())];
                // Whoever has watched may be gone.
                let _ = stream.send_trailers(http::HeaderMap::from_iter(trailers));
            });
        }
    });
    near
}

/// A client of two endpoints, both of which are connected.
async fn client_of_two(ends: &CancellationToken) -> (Arc<Destination>, Client) {
    let (config, ends) = (Config::default(), ends.clone());
    let connector = By(move |address: &str| Ok(served(address, &ends)));
    let endpoints = "http://one:1,http://two:1";
    let destination = destination_over(Arc::new(connector), endpoints, &config);
    let client = client_of(destination.clone(), &config);
    let is_ready = |endpoint: &EndpointSnapshot| endpoint.state == EndpointState::Ready;
    while !destination.snapshot().endpoints.iter().all(is_ready) {
        client.clone().oneshot(request(POST)).await.unwrap();
        settle().await;
    }
    (destination, client)
}

fn server(response: &Response<Body>) -> String {
    response.headers()["server"].to_str().unwrap().to_owned()
}

/// Who answers the next calls, one after the other.
async fn answering(client: &Client) -> Vec<String> {
    let mut names = Vec::new();
    for _ in 0..CALLS {
        let response = client.clone().oneshot(request(POST)).await.unwrap();
        names.push(server(&response));
    }
    names.sort_unstable();
    names.dedup();
    names
}

/// The calls in flight at an endpoint, and at all of them.
fn in_flight(destination: &Destination, address: &str) -> (u32, usize) {
    let snapshot = destination.snapshot();
    let mut endpoints = snapshot.endpoints.iter();
    let endpoint = endpoints.find(|endpoint| endpoint.address == address);
    (endpoint.unwrap().in_flight, snapshot.in_flight)
}

// The clock stands still while calls are made: latencies are the same, and only the calls in flight count.
#[tokio::test(start_paused = true)]
async fn an_open_stream_is_a_call_in_flight_until_it_ends() {
    let ends = CancellationToken::new();
    let (destination, client) = client_of_two(&ends).await;
    let watching = client.clone().oneshot(request(WATCH)).await.unwrap();
    let busy = server(&watching);
    assert_eq!(in_flight(&destination, &busy), (1, 1));
    let names = answering(&client).await;
    assert_eq!(names.len(), 1, "{names:?}");
    assert_ne!(names[0], busy);
    ends.cancel();
    watching.into_body().collect().await.unwrap();
    assert_eq!(in_flight(&destination, &busy), (0, 0));
    assert_eq!(answering(&client).await, ["one:1", "two:1"]);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_nobody_reads_any_more_is_no_call_in_flight() {
    let (destination, client) = client_of_two(&CancellationToken::new()).await;
    let watching = client.clone().oneshot(request(WATCH)).await.unwrap();
    let busy = server(&watching);
    assert_eq!(in_flight(&destination, &busy), (1, 1));
    drop(watching);
    assert_eq!(in_flight(&destination, &busy), (0, 0));
    assert_eq!(answering(&client).await, ["one:1", "two:1"]);
}
