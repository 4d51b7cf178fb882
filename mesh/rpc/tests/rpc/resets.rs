//! Streams that are reset when the handler has done its work already: nothing is done twice.

use std::time::Instant;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use h2::Reason;
use tonic::Code;

use crate::support::{
    TestClient,
    by_hand::{Ending, by_hand},
    count, mesh_calling,
};

/// One stream in so many is reset.
const RESET_ONE_IN: usize = 20;
const CONCURRENT: usize = 64;

/// A number that has nothing to do with the order of calls, and the same each time (Fibonacci hashing, Knuth).
fn mixed(stream: usize) -> usize {
    stream.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32
}

#[tokio::test]
async fn resets_after_the_work_was_done_double_no_effect() {
    // The million by the variable.
    let calls = count("MESH_TEST_RESETS", 10_000);
    let (address, seen) = by_hand(|stream| {
        if mixed(stream).is_multiple_of(RESET_ONE_IN) {
            Ending::Reset(Reason::CANCEL)
        } else {
            Ending::Answer
        }
    })
    .await;
    let client = TestClient(mesh_calling(address).client("test"));
    let began = Instant::now();
    // Every other call may be repeated; its text is its request id, by which the callee knows it again.
    let outcomes = stream::iter(0..calls).map(|number| {
        let client = &client;
        async move {
            let method = if number % 2 == 0 { "Put" } else { "Post" };
            let outcome = client.unary(method, &format!("{method} {number}")).await;
            (method, outcome)
        }
    });
    let mut lost = [0, 0];
    let mut outcomes = outcomes.buffer_unordered(CONCURRENT);
    while let Some((method, outcome)) = outcomes.next().await {
        if let Err(status) = outcome {
            assert_eq!(status.code(), Code::Unavailable, "{method}: {status}");
            lost[usize::from(method == "Post")] += 1;
        }
    }
    let took = began.elapsed();
    let seen = seen.lock().unwrap();
    let is_post = |message: &Bytes| message.windows(4).any(|window| window == b"Post");
    let posted_twice = seen
        .iter()
        .filter(|(message, times)| is_post(message) && **times > 1);
    assert_eq!(posted_twice.count(), 0, "what may not be repeated was");
    let arrived: u32 = seen.values().sum();
    let repeated = usize::try_from(arrived).unwrap() - seen.len();
    // The callee drops what it knows, so that it has one effect for each request id.
    assert_eq!(seen.len(), calls, "each call had its effect");
    let resets = calls / RESET_ONE_IN;
    println!(
        "{calls} calls in {took:.1?}, about {resets} reset: {repeated} sent again, {lost:?} failed (Put, Post)"
    );
    assert!(repeated > resets / 4 && lost[1] > resets / 4);
    // Four attempts in a row are reset once in 160,000 times.
    assert!(lost[0] <= 2 + calls / 40_000, "{} Puts failed", lost[0]);
}
