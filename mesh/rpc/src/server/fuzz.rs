//! Every parser of what others write, given what nobody would: none panics, and what one takes is what it says.
//!
//! The seed is written down, so that a failure comes back; `PROPTEST_RNG_SEED` and `PROPTEST_CASES` ask for others, and
//! for more, as `cargo xtask fuzz` does. Lists of endpoints are tried where they are read (`client/discovery/source.rs`),
//! certificates, SPIFFE ids and policies in `mesh_identity`.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::{
    prelude::*,
    test_runner::{Config as Runner, RngSeed},
};
use serde_json::Value;

use super::context;
use crate::{
    Config,
    contract::Criticality,
    trace::Trace,
    wire::{self, header},
};

const SEED: u64 = 20_261_127;

/// At least this many cases.
fn runner(cases: u32) -> Runner {
    let stated = Runner::default();
    let rng_seed = match stated.rng_seed {
        RngSeed::Random => RngSeed::Fixed(SEED),
        fixed @ RngSeed::Fixed(_) => fixed,
    };
    Runner {
        cases: stated.cases.max(cases),
        rng_seed,
        failure_persistence: None,
        ..stated
    }
}

/// The headers that a server reads.
static READ: [&HeaderName; 7] = [
    &header::GRPC_TIMEOUT,
    &header::TRACEPARENT,
    &header::PRINCIPAL,
    &header::SCOPES,
    &header::CRITICALITY,
    &header::PREVIOUS_ATTEMPTS,
    &header::REQUEST_ID,
];

/// Values that are nearly right, and bytes.
fn header_value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        "[0-9]{0,10}[HMSmunx]?".prop_map(String::into_bytes),
        "[0-9a-f]{2}-[0-9a-f]{31,33}-[0-9a-f]{16}-[0-9a-f]{2}(-.{0,3})?"
            .prop_map(String::into_bytes),
        "(%[0-9a-fA-F]{0,2}|[a-z,/]|%2C){0,20}".prop_map(String::into_bytes),
        "(sheddable|critical)(_plus)?".prop_map(String::into_bytes),
        prop::collection::vec(any::<u8>(), 0..200),
    ]
}

/// Anything that can stand at one place of a configuration.
fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<u64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
        ".{0,20}".prop_map(Value::from),
        Just(Value::Null),
        Just(Value::from(0)),
        prop::collection::btree_map("[a-z]{0,5}", ".{0,20}", 0..3)
            .prop_map(|map| serde_json::to_value(map).unwrap()),
    ]
}

/// The paths of all values below this one.
fn paths(value: &Value, path: &str, found: &mut Vec<String>) {
    found.push(path.to_owned());
    if let Value::Object(table) = value {
        for (name, value) in table {
            paths(value, &format!("{path}/{name}"), found);
        }
    }
}

proptest! {
    #![proptest_config(runner(2_000))]

    #[test]
    fn no_timeout_panics(text in "[0-9]{0,10}[HMSmun]?|\\PC{0,12}") {
        if let Some(timeout) = wire::decode_timeout(&text) {
            let again = wire::decode_timeout(&wire::encode_timeout(timeout)).unwrap();
            prop_assert!(again <= timeout.max(Duration::from_micros(1)));
        }
    }

    #[test]
    fn no_traceparent_panics(text in "([0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2})?\\PC{0,8}|\\PC{0,60}") {
        if let Some(trace) = Trace::parse(&text) {
            prop_assert_eq!(Trace::parse(&trace.to_string()), Some(trace));
        }
    }

    #[test]
    fn no_metadata_panics(values in prop::collection::vec((prop::sample::select(&READ), header_value()), 0..8)) {
        let mut headers = HeaderMap::new();
        for (name, value) in values {
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                headers.append(name, value);
            }
        }
        let cap = Duration::from_secs(5);
        let read = context::read(&headers, None, Criticality::Critical, Some(cap));
        if let Ok((context, _)) = read {
            // Nobody gets more than the contract gives.
            let latest = tokio::time::Instant::now() + cap;
            prop_assert!(context.deadline().is_some_and(|deadline| deadline <= latest));
            prop_assert!(context.criticality() <= Criticality::Critical);
        }
    }

    #[test]
    fn every_text_survives_a_header(text in "\\PC{1,40}") {
        prop_assert_eq!(wire::decode_text(&wire::encode_text(&text)), Some(text));
    }

    #[test]
    fn no_configuration_panics(changes in prop::collection::vec((any::<prop::sample::Index>(), scalar()), 1..4)) {
        let mut config = serde_json::to_value(Config::default()).unwrap();
        for (place, value) in changes {
            let mut found = Vec::new();
            paths(&config, "", &mut found);
            let path: &String = place.get(&found);
            *config.pointer_mut(path).unwrap() = value;
        }
        if let Ok(config) = serde_json::from_value::<Config>(config) {
            drop(config.validate());
        }
    }
}
