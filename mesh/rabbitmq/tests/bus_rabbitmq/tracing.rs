//! One trace from the call that caused an event to the handler that applies it.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use mesh::{CallContext, Principal};
use mesh_events::{Event, Handler, HandlerError, Metrics as EventMetrics};
use mesh_rabbitmq::declare;

use crate::support::{MemoryOutbox, bus, config, consumer, event, eventually, relay, subscription};

/// Notes in which context it is called, and fails the first time.
#[derive(Default)]
struct Witness(Mutex<Vec<CallContext>>);

#[async_trait]
impl Handler for Witness {
    async fn handle(&self, _: &Event) -> Result<(), HandlerError> {
        let mut seen = self.0.lock().unwrap();
        seen.push(CallContext::current());
        match seen.len() {
            1 => Err(HandlerError::transient("not yet")),
            _ => Ok(()),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_continues_the_trace_of_the_call_that_caused_the_event() {
    let config = config();
    declare(&config, &[subscription("witness", 1)])
        .await
        .unwrap();
    let bus = bus(&config);
    let (outbox, witness) = (
        Arc::new(MemoryOutbox::default()),
        Arc::new(Witness::default()),
    );
    let relaying = relay(&bus, &outbox, &EventMetrics::unregistered().unwrap());
    let consuming = consumer(&bus, "witness", &witness);

    let call = CallContext::root(Principal::new("alice", ["operator"]));
    outbox.append([event(1).with_traceparent(call.traceparent())]);
    eventually("two attempts", async || {
        witness.0.lock().unwrap().len() == 2
    })
    .await;
    relaying.stop().await;
    consuming.stop().await;

    let seen = witness.0.lock().unwrap();
    for context in seen.iter() {
        assert_eq!(context.trace_id(), call.trace_id());
        assert_eq!(context.principal().name(), "witness");
        assert!(!context.principal().has_scope("operator"));
    }
    let spans = [&call, &seen[0], &seen[1]].map(CallContext::traceparent);
    assert!(spans[0] != spans[1] && spans[1] != spans[2], "{spans:?}");
}
