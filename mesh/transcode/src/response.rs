//! The protobuf bytes of an RPC's answer to JSON, or to the raw bytes that it wraps.

use bytes::Bytes;
use prost_reflect::{DynamicMessage, Value};

use crate::{
    error::ResponseError,
    json::{Path, write},
    schema::Endpoint,
};

/// An answer, decoded.
#[derive(Debug, Clone)]
pub struct Response<'a> {
    endpoint: &'a Endpoint,
    message: DynamicMessage,
}

/// An answer, or a piece of one, that is not JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawBody {
    /// The media type; empty where the service gave none, as in all pieces but the first.
    pub content_type: String,
    /// The bytes.
    pub data: Bytes,
}

impl Endpoint {
    /// Decodes an answer, or one message of a stream.
    pub fn response(&self, bytes: Bytes) -> Result<Response<'_>, ResponseError> {
        let message = DynamicMessage::decode(self.output.clone(), bytes).map_err(|source| {
            ResponseError::Decode {
                message: self.output.full_name().to_owned(),
                source,
            }
        })?;
        Ok(Response {
            endpoint: self,
            message,
        })
    }
}

impl Response<'_> {
    /// The JSON of the answer, or of the field that the contract names as the response body. Equal
    /// answers give equal bytes.
    pub fn json(&self) -> Result<String, ResponseError> {
        let mut out = String::with_capacity(512);
        match &self.endpoint.response_field {
            None => write::message(&mut out, &self.message, Path::Root)?,
            Some(field) if field.supports_presence() && !self.message.has_field(field) => {
                out.push_str("{}");
            }
            Some(field) => {
                let path = Path::Root.field(field.name());
                write::field(&mut out, field, &self.message.get_field(field), path)?;
            }
        }
        Ok(out)
    }

    /// The raw body that the answer wraps; empty where the answer is JSON.
    pub fn raw(&self) -> RawBody {
        let body = self.resource();
        let get = |name| body.as_ref().and_then(|body| body.get_field_by_name(name));
        RawBody {
            content_type: get("content_type")
                .and_then(|value| value.as_str().map(str::to_owned))
                .unwrap_or_default(),
            data: get("data")
                .and_then(|value| value.as_bytes().cloned())
                .unwrap_or_default(),
        }
    }

    /// The etag of the resource that the answer is, if it has one.
    pub fn etag(&self) -> Option<String> {
        let resource = self.resource()?;
        let etag = resource.get_field_by_name("etag")?;
        etag.as_str()
            .filter(|etag| !etag.is_empty())
            .map(str::to_owned)
    }

    /// A top-level field of the answer as text: strings and whole numbers.
    pub fn text(&self, field: &str) -> Option<String> {
        match self.message.get_field_by_name(field)?.as_ref() {
            Value::String(text) => Some(text.clone()),
            Value::I32(number) => Some(number.to_string()),
            Value::I64(number) => Some(number.to_string()),
            Value::U32(number) => Some(number.to_string()),
            Value::U64(number) => Some(number.to_string()),
            _ => None,
        }
    }

    /// The message that becomes the HTTP body.
    fn resource(&self) -> Option<DynamicMessage> {
        match &self.endpoint.response_field {
            None => Some(self.message.clone()),
            Some(field) => self.message.get_field(field).as_message().cloned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Limits, RequestBody, Router, testing};

    /// JSON in, protobuf bytes, JSON out, by the method that answers what it was asked.
    fn echo(router: &Router, json: &str) -> String {
        let found = router.find("POST", "/v1/echo").unwrap();
        let body = RequestBody::Json(json.as_bytes());
        let request = found.request(None, body, &Limits::default());
        let bytes = request.unwrap_or_else(|e| panic!("{json}: {e}")).encode();
        found.endpoint.response(bytes).unwrap().json().unwrap()
    }

    /// What is said of the fields that `json` names.
    fn echoed(router: &Router, json: &str) -> serde_json::Value {
        let asked: serde_json::Value = serde_json::from_str(json).unwrap();
        let mut answer: serde_json::Value = serde_json::from_str(&echo(router, json)).unwrap();
        answer
            .as_object_mut()
            .unwrap()
            .retain(|name, _| asked.get(name).is_some());
        answer
    }

    #[test]
    fn values_read_in_many_forms_and_are_written_in_one() {
        let (_, router) = testing::library();
        for (input, output) in [
            (
                r#"{"i32":1.0,"i64":5e2,"u32":"7","u64":18446744073709551615}"#,
                r#"{"i32":1,"i64":"500","u32":7,"u64":"18446744073709551615"}"#,
            ),
            (
                r#"{"i32":"-2147483648","i64":"-9223372036854775808"}"#,
                r#"{"i32":-2147483648,"i64":"-9223372036854775808"}"#,
            ),
            (
                r#"{"f32":"NaN","f64":"-Infinity"}"#,
                r#"{"f32":"NaN","f64":"-Infinity"}"#,
            ),
            (r#"{"f32":"1.5","f64":3}"#, r#"{"f32":1.5,"f64":3.0}"#),
            (r#"{"data":"-_8"}"#, r#"{"data":"+/8="}"#),
            (
                r#"{"kind":"NOVEL","kinds":["MANUAL","KIND_UNSPECIFIED"]}"#,
                r#"{"kind":"NOVEL","kinds":["MANUAL","KIND_UNSPECIFIED"]}"#,
            ),
            (
                r#"{"byNumber":{"10":{},"9":{"number":1}},"byTruth":{"true":"a","false":"b"}}"#,
                r#"{"byNumber":{"9":{"number":1,"lineText":""},"10":{"number":0,"lineText":""}},"byTruth":{"false":"b","true":"a"}}"#,
            ),
            (
                r#"{"time":"2026-01-01T00:00:00.100+09:00","span":"-3.000001s"}"#,
                r#"{"time":"2025-12-31T15:00:00.100Z","span":"-3.000001s"}"#,
            ),
            (
                r#"{"mask":"lineText,book.sold_count"}"#,
                r#"{"mask":"lineText,book.soldCount"}"#,
            ),
            (
                r#"{"maybeNumber":5,"maybeText":""}"#,
                r#"{"maybeNumber":"5","maybeText":""}"#,
            ),
            (
                r#"{"structure":{"b":[1,{"c":null}],"a":"x"}}"#,
                r#"{"structure":{"a":"x","b":[1.0,{"c":null}]}}"#,
            ),
            (
                r#"{"value":null,"values":[1.5,null,true]}"#,
                r#"{"value":null,"values":[1.5,null,true]}"#,
            ),
            (
                r#"{"any":{"@type":"type.googleapis.com/t.Book.Page","number":3}}"#,
                r#"{"any":{"@type":"type.googleapis.com/t.Book.Page","number":3,"lineText":""}}"#,
            ),
            (
                r#"{"any":{"@type":"type.googleapis.com/google.protobuf.Duration","value":"2s"}}"#,
                r#"{"any":{"@type":"type.googleapis.com/google.protobuf.Duration","value":"2s"}}"#,
            ),
            (
                r#"{"empty":{},"choice":"","left":""}"#,
                r#"{"empty":{},"choice":"","left":""}"#,
            ),
            (
                r#"{"@odd":"x","nothing":null}"#,
                r#"{"@odd":"x","nothing":null}"#,
            ),
        ] {
            let expected: serde_json::Value = serde_json::from_str(output).unwrap();
            assert_eq!(echoed(router, input), expected, "{input}");
        }
    }

    #[test]
    fn fields_without_presence_are_always_written_and_others_only_when_set() {
        let (_, router) = testing::library();
        assert_eq!(
            echo(router, "{}"),
            r#"{"text":"","data":"","flag":false,"i32":0,"i64":"0","u32":0,"u64":"0","f32":0.0,"f64":0.0,"kind":"KIND_UNSPECIFIED","list":[],"numbers":[],"byName":{},"byNumber":{},"byTruth":{},"@odd":"","nothing":null,"kinds":[],"times":[]}"#
        );
    }

    #[test]
    fn answers_are_unwrapped_and_known_by_their_etag() {
        let (_, router) = testing::library();
        let get = router.find("GET", "/v1/books/1").unwrap().endpoint;
        // GetBookResponse { book: Book { etag: "e" } }, by hand.
        let response = get
            .response(Bytes::from_static(b"\x0a\x03\x2a\x01e"))
            .unwrap();
        assert_eq!(response.etag().as_deref(), Some("e"));
        let json = response.json().unwrap();
        assert!(
            json.starts_with(r#"{"id":"","title":"","pages":[]"#),
            "{json}"
        );
        assert_eq!(get.response(Bytes::new()).unwrap().json().unwrap(), "{}");
        // The same method without response_body.
        let stamp = router.find("POST", "/v1/books/1:stamp").unwrap().endpoint;
        let response = stamp.response(Bytes::from_static(b"\x0a\x00")).unwrap();
        assert!(response.json().unwrap().starts_with(r#"{"book":{"#));
        assert_eq!(response.etag(), None);
    }

    #[test]
    fn raw_answers_and_revisions() {
        let (_, router) = testing::library();
        let export = router.find("GET", "/v1/books:export").unwrap().endpoint;
        // ExportResponse { file: HttpBody { content_type: "t", data: "d" } }
        let response = export
            .response(Bytes::from_static(b"\x0a\x06\x0a\x01t\x12\x01d"))
            .unwrap();
        let raw = response.raw();
        assert_eq!((raw.content_type.as_str(), &raw.data[..]), ("t", &b"d"[..]));
        let watch = router.find("GET", "/v1/books:watch").unwrap().endpoint;
        let response = watch.response(Bytes::from_static(b"\x08\x11")).unwrap();
        assert_eq!(response.text("revision").as_deref(), Some("17"));
        assert_eq!(response.text("book"), None);
    }

    #[test]
    fn broken_answers_are_errors() {
        let (_, router) = testing::library();
        let found = router.find("POST", "/v1/echo").unwrap();
        let broken = found.endpoint.response(Bytes::from_static(b"\xff"));
        assert!(matches!(broken, Err(ResponseError::Decode { .. })));
        // time { nanos: -1 }, inside inner.
        let bytes =
            Bytes::from_static(b"\x5a\x0e\x8a\x01\x0b\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01");
        let error = found.endpoint.response(bytes).unwrap().json().unwrap_err();
        assert_eq!(
            error.to_string(),
            "response field inner.time: timestamp out of range"
        );
    }

    /// JSON of a message of type `Everything`, in canonical form.
    fn everything(depth: u32) -> BoxedStrategy<serde_json::Value> {
        use serde_json::json;
        let scalars = (
            (
                any::<String>(),
                any::<Vec<u8>>(),
                any::<bool>(),
                any::<i32>(),
                any::<i64>(),
            ),
            (any::<u32>(), any::<u64>(), any::<i32>(), 0usize..3),
            (
                proptest::collection::vec(any::<i64>(), 0..3),
                proptest::collection::btree_map(any::<String>(), any::<i32>(), 0..3),
                time::tests_strategy(),
                proptest::option::of(any::<String>()),
            ),
        );
        let leaf = scalars
            .prop_map(
                |((text, data, flag, i32, i64), (u32, u64, f64, kind), rest)| {
                    use base64::Engine as _;
                    let (numbers, by_name, (time, span), choice) = rest;
                    // Halves: serde_json without `float_roundtrip` may read other doubles one ulp off.
                    let f64 = f64::from(f64) / 2.0;
                    let kind = ["KIND_UNSPECIFIED", "NOVEL", "MANUAL"][kind];
                    let numbers: Vec<_> = numbers.iter().map(ToString::to_string).collect();
                    let mut value = json!({
                        "text": text, "data": base64::prelude::BASE64_STANDARD.encode(data),
                        "flag": flag, "i32": i32, "i64": i64.to_string(), "u32": u32,
                        "u64": u64.to_string(), "f64": f64,
                        "kind": kind,
                        "numbers": numbers, "byName": by_name, "time": time, "span": span,
                    });
                    if let Some(choice) = choice {
                        value["choice"] = choice.into();
                    }
                    value
                },
            )
            .boxed();
        if depth == 0 {
            return leaf;
        }
        (leaf, proptest::collection::vec(everything(depth - 1), 0..3))
            .prop_map(|(mut value, list)| {
                value["list"] = list.into();
                value
            })
            .boxed()
    }

    /// Whether everything that `asked` says is also said by `answer`.
    fn includes(answer: &serde_json::Value, asked: &serde_json::Value) -> bool {
        match (answer, asked) {
            (serde_json::Value::Object(answer), serde_json::Value::Object(asked)) => asked
                .iter()
                .all(|(name, value)| answer.get(name).is_some_and(|found| includes(found, value))),
            (serde_json::Value::Array(answer), serde_json::Value::Array(asked)) => {
                answer.len() == asked.len()
                    && answer
                        .iter()
                        .zip(asked)
                        .all(|(answer, asked)| includes(answer, asked))
            }
            (answer, asked) => answer == asked,
        }
    }

    mod time {
        use proptest::prelude::*;

        use crate::json::time::{format_duration, format_timestamp};

        pub(super) fn tests_strategy() -> impl Strategy<Value = (String, String)> {
            let second = -62_135_596_800i64..253_402_300_800;
            (
                second,
                0..1_000_000_000i32,
                0..315_576_000_000i64,
                any::<bool>(),
            )
                .prop_map(|(at, nanos, span, negative)| {
                    let sign = if negative { -1 } else { 1 };
                    let span = format_duration(span * sign, nanos * i32::try_from(sign).unwrap());
                    (format_timestamp(at, nanos).unwrap(), span.unwrap())
                })
        }
    }

    proptest! {
        #[test]
        fn json_survives_the_wire(value in everything(2)) {
            let (_, router) = testing::library();
            let once = echo(router, &value.to_string());
            let answer: serde_json::Value = serde_json::from_str(&once).unwrap();
            prop_assert!(includes(&answer, &value), "{value}\n{answer}");
            // What was written once is canonical: it reads back to the same bytes.
            prop_assert_eq!(echo(router, &once), once);
        }

        #[test]
        fn no_bytes_make_it_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let (_, router) = testing::library();
            let found = router.find("POST", "/v1/echo").unwrap();
            let _ = found.request(None, RequestBody::Json(&body), &Limits::default());
            if let Ok(response) = found.endpoint.response(body.into()) {
                let _ = response.json();
            }
        }

        #[test]
        fn no_path_or_query_makes_it_panic(path in "(/[ -~é%./:]{0,12}){1,4}", query in "[ -~%&=é]{0,40}") {
            let (_, router) = testing::library();
            if let Ok(found) = router.find("GET", &path) {
                let _ = found.request(Some(&query), RequestBody::Empty, &Limits::default());
            }
        }
    }
}
