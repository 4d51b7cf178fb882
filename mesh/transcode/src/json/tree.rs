//! JSON text as a tree that forgets nothing: member order, duplicate names, depth.
//!
//! serde_json reads the grammar; its own `Value` would let the last of two equal names win silently.

use std::{cell::RefCell, fmt};

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::clip;
use crate::error::BadRequest;

/// A JSON value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Node {
    Null,
    Bool(bool),
    Int(i64),
    /// An integer above `i64::MAX`.
    UInt(u64),
    /// Everything with a fraction or an exponent, and integers outside 64 bits.
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Object(Vec<(String, Node)>),
}

impl Node {
    /// What it is, for error messages.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Int(_) | Self::UInt(_) | Self::Float(_) => "a number",
            Self::Text(_) => "a string",
            Self::List(_) => "an array",
            Self::Object(_) => "an object",
        }
    }
}

/// serde_json itself stops at 128 levels; the limit of the caller may only be lower.
const DEPTH_LIMIT: usize = 120;

/// Reads JSON text of at most `depth_max` levels of nesting.
pub(crate) fn parse(text: &[u8], depth_max: usize) -> Result<Node, BadRequest> {
    let text = std::str::from_utf8(text).map_err(|e| {
        BadRequest::new(
            "body",
            format!("not valid UTF-8 at byte {}", e.valid_up_to()),
        )
    })?;
    let state = State {
        path: RefCell::default(),
        depth_max: depth_max.min(DEPTH_LIMIT),
    };
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let node = Seed {
        state: &state,
        depth: 0,
    }
    .deserialize(&mut deserializer);
    let node = node.map_err(|e| BadRequest::new(state.field(), describe(&e)))?;
    deserializer
        .end()
        .map_err(|_| BadRequest::new("body", "unexpected text after the JSON value"))?;
    Ok(node)
}

/// serde_json's own words, the position set apart.
fn describe(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let what = text.split(" at line ").next().unwrap_or_default();
    match error.classify() {
        serde_json::error::Category::Data => what.to_owned(),
        _ => format!(
            "malformed JSON at line {} column {}: {}",
            error.line(),
            error.column(),
            what.to_lowercase(),
        ),
    }
}

/// What all levels share: where the reader is, so that an error can say it.
struct State {
    path: RefCell<Vec<String>>,
    depth_max: usize,
}

impl State {
    fn field(&self) -> String {
        let path = self.path.borrow().concat();
        if path.is_empty() {
            "body".to_owned()
        } else {
            path.trim_start_matches('.').to_owned()
        }
    }
}

#[derive(Clone, Copy)]
struct Seed<'a> {
    state: &'a State,
    depth: usize,
}

impl Seed<'_> {
    fn deeper<E: de::Error>(self) -> Result<Self, E> {
        if self.depth >= self.state.depth_max {
            let max = self.state.depth_max;
            return Err(E::custom(format!("nested deeper than {max} levels")));
        }
        Ok(Self {
            depth: self.depth + 1,
            ..self
        })
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Int(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(i64::try_from(value).map_or(Node::UInt(value), Node::Int))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Node, E> {
        Ok(Node::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
        let inner = self.deeper()?;
        let mut items = Vec::new();
        loop {
            self.state
                .path
                .borrow_mut()
                .push(format!("[{}]", items.len()));
            let item = seq.next_element_seed(inner)?;
            self.state.path.borrow_mut().pop();
            match item {
                Some(item) => items.push(item),
                None => return Ok(Node::List(items)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let inner = self.deeper()?;
        let mut members = Vec::new();
        let mut names = std::collections::HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            self.state
                .path
                .borrow_mut()
                .push(format!(".{}", clip(&name)));
            if !names.insert(name.clone()) {
                return Err(de::Error::custom("occurs twice in the same object"));
            }
            members.push((name, map.next_value_seed(inner)?));
            self.state.path.borrow_mut().pop();
        }
        Ok(Node::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trees_keep_order_and_kinds() {
        let node = parse(
            br#" {"b":[1,-2,1.5,1e2,18446744073709551615],"a":{"x":null,"y":"\u00e9"}} "#,
            9,
        );
        assert_eq!(
            node.unwrap(),
            Node::Object(vec![
                (
                    "b".to_owned(),
                    Node::List(vec![
                        Node::Int(1),
                        Node::Int(-2),
                        Node::Float(1.5),
                        Node::Float(100.0),
                        Node::UInt(u64::MAX),
                    ])
                ),
                (
                    "a".to_owned(),
                    Node::Object(vec![
                        ("x".to_owned(), Node::Null),
                        ("y".to_owned(), Node::Text("é".to_owned())),
                    ])
                ),
            ])
        );
    }

    #[test]
    fn broken_text_is_refused_with_its_place() {
        for (text, expected) in [
            (
                &b""[..],
                "body: malformed JSON at line 1 column 0: eof while parsing a value",
            ),
            (
                b"{",
                "body: malformed JSON at line 1 column 1: eof while parsing an object",
            ),
            (
                b"{\"a\":[1,]}",
                "a[1]: malformed JSON at line 1 column 9: trailing comma",
            ),
            (
                b"{'a':1}",
                "body: malformed JSON at line 1 column 2: key must be a string",
            ),
            (
                b"{\"a\":NaN}",
                "a: malformed JSON at line 1 column 6: expected value",
            ),
            (
                b"{\"a\":01}",
                "a: malformed JSON at line 1 column 7: invalid number",
            ),
            (
                b"{\"a\":1e999}",
                "a: malformed JSON at line 1 column 10: number out of range",
            ),
            (
                b"{\"a\":\"\\ud800\"}",
                "a: malformed JSON at line 1 column 13: unexpected end of hex escape",
            ),
            (
                b"{\"a\":\"\n\"}",
                "a: malformed JSON at line 2 column 0: control character (\\u0000-\\u001f) found while parsing a string",
            ),
            (b"{} x", "body: unexpected text after the JSON value"),
            (b"{}{}", "body: unexpected text after the JSON value"),
            (
                b"\xef\xbb\xbf{}",
                "body: malformed JSON at line 1 column 1: expected value",
            ),
            (b"{\"a\":\"\xff\"}", "body: not valid UTF-8 at byte 6"),
            (b"{\"a\":1,\"a\":2}", "a: occurs twice in the same object"),
            (
                b"{\"l\":[{},{\"x\":1,\"x\":1}]}",
                "l[1].x: occurs twice in the same object",
            ),
            (b"[[[[]]]]", "[0][0][0]: nested deeper than 3 levels"),
            (
                b"{\"a\":{\"b\":[{}]}}",
                "a.b[0]: nested deeper than 3 levels",
            ),
        ] {
            let error = parse(text, 3).unwrap_err().to_string();
            assert_eq!(error, expected, "{}", String::from_utf8_lossy(text));
        }
        let deep = "[".repeat(100_000);
        let error = parse(deep.as_bytes(), usize::MAX).unwrap_err().to_string();
        assert!(error.ends_with("nested deeper than 120 levels"), "{error}");
    }
}
