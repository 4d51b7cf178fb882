//! Finds the endpoint of a verb and a path, and what the path's variables hold.
//!
//! A trie over path segments. Where several templates match, literals win over `*` and `*` over `**`,
//! segment by segment from the left, whatever the order of declaration. A trailing `:verb` that some
//! template of that shape declares is taken as the verb; otherwise it belongs to the segment.
//!
//! Paths are taken as they come: nothing is normalised, `.` and `..` are refused, empty segments match
//! nothing, and only the escapes of RFC 3986 are decoded.

use std::{collections::BTreeMap, sync::Arc};

use percent_encoding::percent_decode_str;

use crate::{
    error::{BadRequest, SchemaError},
    schema::{Endpoint, Schema},
    template::Segment,
};

/// All endpoints of a contract, ready to be matched.
#[derive(Debug)]
pub struct Router {
    root: Node,
    endpoints: Vec<Arc<Endpoint>>,
}

/// The endpoint of a request and what its path variables hold, in the template's order.
#[derive(Debug, Clone)]
pub struct Match {
    /// The endpoint.
    pub endpoint: Arc<Endpoint>,
    pub(crate) captures: Vec<String>,
}

/// Why a request has no endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoRoute {
    /// Nothing has this path: 404.
    #[error("no such path")]
    Path,
    /// The path exists, but not for this verb: 405.
    #[error("the path does not allow this verb")]
    Verb {
        /// The verbs it has, sorted: the `Allow` header.
        allow: Vec<String>,
    },
    /// The path cannot be read: 400.
    #[error("malformed path")]
    Malformed(#[source] BadRequest),
}

impl Router {
    /// Binds the HTTP rules of all methods that `served` lets through, by gRPC path.
    pub fn new(schema: &Schema, served: impl Fn(&str) -> bool) -> Result<Self, SchemaError> {
        let endpoints = schema.endpoints(served)?;
        let mut root = Node::default();
        for endpoint in &endpoints {
            root.insert(endpoint)?;
        }
        Ok(Self { root, endpoints })
    }

    /// Every endpoint, in the order of the contract.
    pub fn endpoints(&self) -> &[Arc<Endpoint>] {
        &self.endpoints
    }

    /// Finds the endpoint of a verb and a path (undecoded, without query).
    pub fn find(&self, verb: &str, path: &str) -> Result<Match, NoRoute> {
        let leaves = self.leaves(path);
        let chosen = leaves
            .iter()
            .find_map(|leaf| leaf.get(verb).or_else(|| leaf.get("*")));
        let Some(endpoint) = chosen else {
            return Err(if leaves.is_empty() {
                NoRoute::Path
            } else {
                NoRoute::Verb {
                    allow: verbs(&leaves),
                }
            });
        };
        let captures = captures(endpoint, path).map_err(NoRoute::Malformed)?;
        Ok(Match {
            endpoint: Arc::clone(endpoint),
            captures,
        })
    }

    /// The verbs that a path has, sorted; empty where there is no such path.
    pub fn allowed(&self, path: &str) -> Vec<String> {
        verbs(&self.leaves(path))
    }

    /// The leaves that match a path, best first.
    fn leaves(&self, path: &str) -> Vec<&Leaf> {
        let mut leaves = Vec::new();
        let Some(rest) = path.strip_prefix('/') else {
            return leaves;
        };
        let mut segments: Vec<&str> = rest.split('/').collect();
        let last = *segments.last().expect("split yields at least one piece");
        if let Some((before, verb)) = last.rsplit_once(':') {
            *segments.last_mut().expect("as above") = before;
            self.root.find(&segments, Some(verb), &mut leaves);
        }
        if leaves.is_empty() {
            *segments.last_mut().expect("as above") = last;
            self.root.find(&segments, None, &mut leaves);
        }
        leaves
    }
}

fn verbs(leaves: &[&Leaf]) -> Vec<String> {
    let mut verbs: Vec<String> = leaves
        .iter()
        .flat_map(|leaf| leaf.keys().cloned())
        .collect();
    verbs.sort();
    verbs.dedup();
    verbs
}

/// The endpoints of one shape, by HTTP verb.
type Leaf = BTreeMap<String, Arc<Endpoint>>;

#[derive(Debug, Default)]
struct Node {
    literals: BTreeMap<String, Node>,
    one: Option<Box<Node>>,
    /// Ends here, by custom verb.
    here: BTreeMap<Option<String>, Leaf>,
    /// Ends here or anywhere below (`**`), by custom verb.
    below: BTreeMap<Option<String>, Leaf>,
}

impl Node {
    fn insert(&mut self, endpoint: &Arc<Endpoint>) -> Result<(), SchemaError> {
        let mut node = self;
        let mut many = false;
        for segment in &endpoint.template.segments {
            match segment {
                Segment::Literal(text) => node = node.literals.entry(text.clone()).or_default(),
                Segment::One => node = node.one.get_or_insert_default(),
                Segment::Many => many = true,
            }
        }
        let ends = if many {
            &mut node.below
        } else {
            &mut node.here
        };
        let leaf = ends.entry(endpoint.template.verb.clone()).or_default();
        if let Some(first) = leaf.get(endpoint.verb()) {
            return Err(SchemaError::Conflict {
                first: first.rpc().path().to_owned(),
                second: endpoint.rpc().path().to_owned(),
                route: format!("{} {}", endpoint.verb(), endpoint.template),
            });
        }
        leaf.insert(endpoint.verb().to_owned(), Arc::clone(endpoint));
        Ok(())
    }

    fn find<'a>(&'a self, segments: &[&str], verb: Option<&str>, found: &mut Vec<&'a Leaf>) {
        let end = |ends: &'a BTreeMap<Option<String>, Leaf>| ends.get(&verb.map(str::to_owned));
        match segments.split_first() {
            None => found.extend(end(&self.here)),
            Some((first, rest)) if !first.is_empty() => {
                let text = percent_decode_str(first).decode_utf8().ok();
                if let Some(node) = text.and_then(|text| self.literals.get(text.as_ref())) {
                    node.find(rest, verb, found);
                }
                if let Some(node) = &self.one {
                    node.find(rest, verb, found);
                }
            }
            Some(_) => {}
        }
        if segments.iter().all(|segment| !segment.is_empty()) {
            found.extend(end(&self.below));
        }
    }
}

/// What the variables of a matched template hold.
fn captures(endpoint: &Endpoint, path: &str) -> Result<Vec<String>, BadRequest> {
    let mut rest = path.strip_prefix('/').unwrap_or(path);
    if let Some(verb) = &endpoint.template.verb {
        let verb_len = verb.len() + ":".len();
        rest = &rest[..rest.len() - verb_len];
    }
    let segments: Vec<&str> = rest.split('/').collect();
    for segment in &segments {
        let decoded: Vec<u8> = percent_decode_str(segment).collect();
        if decoded == b"." || decoded == b".." {
            return Err(BadRequest::new(
                "path",
                "the segments `.` and `..` are not allowed",
            ));
        }
    }
    let ends_open = endpoint.template.segments.last() == Some(&Segment::Many);
    let segments_count = endpoint.template.segments.len();
    let mut values = Vec::with_capacity(endpoint.bound.len());
    for bound in &endpoint.bound {
        let variable = &bound.variable;
        let open = ends_open && variable.end == segments_count;
        let end = if open { segments.len() } else { variable.end };
        let raw = &segments[variable.start.min(end)..end];
        let pieces: Result<Vec<_>, _> = raw.iter().map(|s| decode(s, variable.multi)).collect();
        let pieces = pieces.map_err(|why| BadRequest::new(bound.path(), why))?;
        values.push(pieces.join("/"));
    }
    Ok(values)
}

/// Decodes the escapes of one segment; `keep_slash` leaves `%2F` as it is, so that a value of several
/// segments stays unambiguous.
fn decode(text: &str, keep_slash: bool) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        if first != b'%' {
            bytes.push(first);
            rest = tail;
            continue;
        }
        let digits = tail.get(..2).and_then(|d| Some((hex(d[0])?, hex(d[1])?)));
        let Some((high, low)) = digits else {
            return Err(format!(
                "malformed escape in `{text}`: `%` needs two hexadecimal digits"
            ));
        };
        match (high << 4) | low {
            b'/' if keep_slash => bytes.extend_from_slice(&rest[..3]),
            byte => bytes.push(byte),
        }
        rest = &tail[2..];
    }
    String::from_utf8(bytes).map_err(|_| format!("`{text}` is not valid UTF-8"))
}

/// Decodes one name or value of a query string, where `+` is a blank.
pub(crate) fn decode_query(text: &str) -> Result<String, String> {
    decode(&text.replace('+', "%20"), false)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|d| u8::try_from(d).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn outcome(router: &Router, verb: &str, path: &str) -> String {
        match router.find(verb, path) {
            Ok(m) => format!("{} {:?}", m.endpoint.path_template(), m.captures),
            Err(NoRoute::Path) => "404".to_owned(),
            Err(NoRoute::Verb { allow }) => format!("405 {}", allow.join(",")),
            Err(NoRoute::Malformed(why)) => format!("400 {why}"),
        }
    }

    #[test]
    fn paths_find_their_templates() {
        let router = testing::router_of(&[
            r#"get: "/v1/items""#,
            r#"post: "/v1/items" body: "*""#,
            r#"get: "/v1/items/{name}""#,
            r#"get: "/v1/items/special""#,
            r#"post: "/v1/items/{name}:undo" body: "*""#,
            r#"get: "/v1/items:batch""#,
            r#"get: "/v1/{name=shelves/*/books/*}""#,
            r#"get: "/v1/files/{name=**}""#,
            r#"get: "/v1/files/{name=**}:meta""#,
            r#"custom: { kind: "*" path: "/v1/any" }"#,
            r#"custom: { kind: "REPORT" path: "/v1/items/{name}" }"#,
            r#"delete: "/v1/{inner.id}/x" additional_bindings { delete: "/v2/{inner.id}" }"#,
        ]);
        for (verb, path, expected) in [
            ("GET", "/v1/items", r"/v1/items []"),
            ("POST", "/v1/items", r"/v1/items []"),
            ("PUT", "/v1/items", "405 GET,POST"),
            ("GET", "/v1/items/a", r#"/v1/items/{name} ["a"]"#),
            ("REPORT", "/v1/items/a", r#"/v1/items/{name} ["a"]"#),
            ("DELETE", "/v1/items/a", "405 GET,REPORT"),
            ("GET", "/v1/items/special", "/v1/items/special []"),
            (
                "REPORT",
                "/v1/items/special",
                r#"/v1/items/{name} ["special"]"#,
            ),
            ("GET", "/v1/items/%73pecial", "/v1/items/special []"),
            ("POST", "/v1/items/a:undo", r#"/v1/items/{name}:undo ["a"]"#),
            (
                "POST",
                "/v1/items/a:b:undo",
                r#"/v1/items/{name}:undo ["a:b"]"#,
            ),
            ("GET", "/v1/items/a:undo", "405 POST"),
            (
                "GET",
                "/v1/items/a:other",
                r#"/v1/items/{name} ["a:other"]"#,
            ),
            (
                "GET",
                "/v1/items/a%3Aundo",
                r#"/v1/items/{name} ["a:undo"]"#,
            ),
            ("GET", "/v1/items:batch", "/v1/items:batch []"),
            ("GET", "/v1/items:other", "404"),
            ("POST", "/v1/items/:undo", "405 GET,REPORT"),
            ("GET", "/v1/items/", "404"),
            ("GET", "/v1//items", "404"),
            ("GET", "//v1/items", "404"),
            ("GET", "v1/items", "404"),
            ("GET", "/", "404"),
            ("GET", "*", "404"),
            ("GET", "/v1/items/a/b", "404"),
            ("GET", "/v1/items/a%2Fb", r#"/v1/items/{name} ["a/b"]"#),
            (
                "GET",
                "/v1/items/%ED%95%9C%20g+h",
                r#"/v1/items/{name} ["한 g+h"]"#,
            ),
            ("GET", "/v1/items/100%25", r#"/v1/items/{name} ["100%"]"#),
            (
                "GET",
                "/v1/shelves/a%2fb/books/c",
                r#"/v1/{name=shelves/*/books/*} ["shelves/a%2fb/books/c"]"#,
            ),
            ("GET", "/v1/files", r#"/v1/files/{name=**} [""]"#),
            (
                "GET",
                "/v1/files/a/b%2Fc/d%20e",
                r#"/v1/files/{name=**} ["a/b%2Fc/d e"]"#,
            ),
            (
                "GET",
                "/v1/files/a/b:meta",
                r#"/v1/files/{name=**}:meta ["a/b"]"#,
            ),
            ("GET", "/v1/files/a//b", "404"),
            ("BREW", "/v1/any", "/v1/any []"),
            ("DELETE", "/v1/7/x", r#"/v1/{inner.id}/x ["7"]"#),
            ("DELETE", "/v2/7", r#"/v2/{inner.id} ["7"]"#),
        ] {
            assert_eq!(outcome(&router, verb, path), expected, "{verb} {path}");
        }
    }

    #[test]
    fn malformed_paths_name_what_is_wrong() {
        let router = testing::router_of(&[
            r#"get: "/v1/items/{name}""#,
            r#"get: "/v1/files/{name=**}""#,
        ]);
        let dots = "400 path: the segments `.` and `..` are not allowed";
        for (path, expected) in [
            (
                "/v1/items/%",
                "400 name: malformed escape in `%`: `%` needs two hexadecimal digits",
            ),
            (
                "/v1/items/%4",
                "400 name: malformed escape in `%4`: `%` needs two hexadecimal digits",
            ),
            (
                "/v1/items/%zz",
                "400 name: malformed escape in `%zz`: `%` needs two hexadecimal digits",
            ),
            (
                "/v1/items/%+1",
                "400 name: malformed escape in `%+1`: `%` needs two hexadecimal digits",
            ),
            ("/v1/items/%FF", "400 name: `%FF` is not valid UTF-8"),
            ("/v1/items/%C3%28", "400 name: `%C3%28` is not valid UTF-8"),
            ("/v1/items/..", dots),
            ("/v1/items/%2e%2E", dots),
            ("/v1/items/.", dots),
            ("/v1/files/a/../b", dots),
            ("/v1/files/a/%2e/b", dots),
        ] {
            assert_eq!(outcome(&router, "GET", path), expected, "{path}");
        }
    }

    #[test]
    fn two_rules_for_one_route_conflict() {
        let schema = testing::schema_of(&[r#"get: "/v1/{name}""#, r#"get: "/v1/{title=*}""#]);
        let error = Router::new(&schema, |_| true).unwrap_err();
        assert_eq!(
            error.to_string(),
            "methods /t.S/M0 and /t.S/M1 both answer GET /v1/*"
        );
    }

    #[test]
    fn allow_lists_every_verb_of_a_path() {
        let router = testing::router_of(&[
            r#"get: "/v1/items""#,
            r#"post: "/v1/items" body: "*""#,
            r#"delete: "/v1/{name}""#,
        ]);
        assert_eq!(router.allowed("/v1/items"), ["DELETE", "GET", "POST"]);
        assert_eq!(router.allowed("/nope"), Vec::<String>::new());
    }
}
