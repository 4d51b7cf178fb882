//! Path templates of `google/api/http.proto`:
//!
//! ```text
//! Template  = "/" Segments [ Verb ] ;
//! Segments  = Segment { "/" Segment } ;
//! Segment   = "*" | "**" | LITERAL | Variable ;
//! Variable  = "{" FieldPath [ "=" Segments ] "}" ;
//! FieldPath = IDENT { "." IDENT } ;
//! Verb      = ":" LITERAL ;
//! ```
//!
//! `**` stands for zero or more segments and only at the end. Knows nothing of messages: whether the
//! fields exist is decided where the rule is bound to a method.

use std::fmt;

/// One segment of a template, its variables resolved to what they match.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Segment {
    /// Exactly this text.
    Literal(String),
    /// Any one segment that is not empty.
    One,
    /// Any number of segments, none included; always the last one.
    Many,
}

/// A part of the path that fills a request field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Variable {
    /// The field's path, name by name, as the template spells it.
    pub(crate) field: Vec<String>,
    /// The first of its segments.
    pub(crate) start: usize,
    /// One past the last of its segments; `**` counts as one.
    pub(crate) end: usize,
    /// Whether it may span segments, so that an escaped slash must stay escaped.
    pub(crate) multi: bool,
}

/// A parsed path template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template {
    pub(crate) segments: Vec<Segment>,
    pub(crate) variables: Vec<Variable>,
    /// The custom verb after the last colon.
    pub(crate) verb: Option<String>,
}

impl Template {
    /// Parses a template; the error says what is wrong and where.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut parser = Parser {
            text,
            at: 0,
            segments: Vec::new(),
            variables: Vec::new(),
        };
        parser.expect('/')?;
        parser.segments(false)?;
        let verb = if parser.eat(':') {
            Some(parser.literal()?)
        } else {
            None
        };
        if parser.at != text.len() {
            return Err(parser.error("expected the end of the template"));
        }
        let Parser {
            segments,
            variables,
            ..
        } = parser;
        if let Some(i) = segments.iter().position(|s| *s == Segment::Many)
            && i + 1 != segments.len()
        {
            return Err(format!("path template `{text}`: `**` may only stand last"));
        }
        for (i, variable) in variables.iter().enumerate() {
            if variables[..i]
                .iter()
                .any(|other| other.field == variable.field)
            {
                let field = variable.field.join(".");
                return Err(format!(
                    "path template `{text}`: variable `{field}` occurs twice"
                ));
            }
        }
        Ok(Self {
            segments,
            variables,
            verb,
        })
    }

    /// The template as OpenAPI writes it: each variable a name in braces, a verb behind a colon.
    /// A variable with literals inside keeps them: `{name=shelves/*}` becomes `shelves/{name}`.
    pub(crate) fn openapi(&self, name: impl Fn(&Variable) -> String) -> String {
        let mut path = String::new();
        for (i, segment) in self.segments.iter().enumerate() {
            path.push('/');
            let variable = self
                .variables
                .iter()
                .find(|v| (v.start..v.end).contains(&i));
            match (segment, variable) {
                (Segment::Literal(text), _) => path.push_str(text),
                (Segment::One | Segment::Many, Some(variable)) => {
                    // Several wildcards in one variable are told apart by their place.
                    let first = (variable.start..i)
                        .all(|k| matches!(self.segments[k], Segment::Literal(_)));
                    let suffix = if first {
                        String::new()
                    } else {
                        format!("_{}", i - variable.start)
                    };
                    path.push_str(&["{", &name(variable), &suffix, "}"].concat());
                }
                (Segment::One | Segment::Many, None) => {
                    path.push_str(&["{segment", &i.to_string(), "}"].concat());
                }
            }
        }
        if let Some(verb) = &self.verb {
            path.push(':');
            path.push_str(verb);
        }
        path
    }
}

/// The shape alone: templates that print the same match the same paths.
impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for segment in &self.segments {
            match segment {
                Segment::Literal(text) => write!(f, "/{text}")?,
                Segment::One => f.write_str("/*")?,
                Segment::Many => f.write_str("/**")?,
            }
        }
        self.verb
            .as_ref()
            .map_or(Ok(()), |verb| write!(f, ":{verb}"))
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    segments: Vec<Segment>,
    variables: Vec<Variable>,
}

impl Parser<'_> {
    fn segments(&mut self, in_variable: bool) -> Result<(), String> {
        loop {
            self.segment(in_variable)?;
            if !self.eat('/') {
                return Ok(());
            }
        }
    }

    fn segment(&mut self, in_variable: bool) -> Result<(), String> {
        if self.eat('*') {
            let segment = if self.eat('*') {
                Segment::Many
            } else {
                Segment::One
            };
            self.segments.push(segment);
            return Ok(());
        }
        if self.peek() == Some('{') {
            if in_variable {
                return Err(self.error("variables do not nest"));
            }
            return self.variable();
        }
        let literal = self.literal()?;
        self.segments.push(Segment::Literal(literal));
        Ok(())
    }

    fn variable(&mut self) -> Result<(), String> {
        self.expect('{')?;
        let mut field = vec![self.ident()?];
        while self.eat('.') {
            field.push(self.ident()?);
        }
        let start = self.segments.len();
        if self.eat('=') {
            self.segments(true)?;
        } else {
            self.segments.push(Segment::One);
        }
        self.expect('}')?;
        let end = self.segments.len();
        let multi = self.segments[start..end] != [Segment::One];
        self.variables.push(Variable {
            field,
            start,
            end,
            multi,
        });
        Ok(())
    }

    fn ident(&mut self) -> Result<String, String> {
        let rest = &self.text[self.at..];
        let end = rest
            .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
            .unwrap_or(rest.len());
        let ident = &rest[..end];
        if ident.is_empty() || ident.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(self.error("expected a field name"));
        }
        self.at += end;
        Ok(ident.to_owned())
    }

    /// Unreserved characters and the sub-delimiters that mean nothing to the grammar.
    fn literal(&mut self) -> Result<String, String> {
        let rest = &self.text[self.at..];
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.~!$&'()+,;@".contains(c);
        let end = rest.find(|c: char| !allowed(c)).unwrap_or(rest.len());
        if end == 0 {
            return Err(self.error("expected a segment"));
        }
        self.at += end;
        Ok(rest[..end].to_owned())
    }

    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn eat(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.at += wanted.len_utf8();
        }
        found
    }

    fn expect(&mut self, wanted: char) -> Result<(), String> {
        if self.eat(wanted) {
            Ok(())
        } else {
            Err(self.error(&format!("expected `{wanted}`")))
        }
    }

    fn error(&self, what: &str) -> String {
        format!("path template `{}`: {what} at byte {}", self.text, self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grammar_accepts() {
        for (text, shape, variables, verb) in [
            ("/v1/products", "/v1/products", vec![], None),
            ("/v1/products/{id}", "/v1/products/*", vec!["id@2..3"], None),
            (
                "/v1/products/{id}:undelete",
                "/v1/products/*:undelete",
                vec!["id@2..3"],
                Some("undelete"),
            ),
            (
                "/v1/{name=shelves/*/books/*}",
                "/v1/shelves/*/books/*",
                vec!["name@1..5+"],
                None,
            ),
            ("/v1/{path=**}", "/v1/**", vec!["path@1..2+"], None),
            (
                "/v1/{path=files/**}:get",
                "/v1/files/**:get",
                vec!["path@1..3+"],
                Some("get"),
            ),
            ("/v1/{a.b_c.d=*}/x", "/v1/*/x", vec!["a.b_c.d@1..2"], None),
            ("/*/**", "/*/**", vec![], None),
            ("/v1/a.b~c@d", "/v1/a.b~c@d", vec![], None),
        ] {
            let template = Template::parse(text).unwrap();
            let found: Vec<_> = template
                .variables
                .iter()
                .map(|v| {
                    let multi = if v.multi { "+" } else { "" };
                    format!("{}@{}..{}{multi}", v.field.join("."), v.start, v.end)
                })
                .collect();
            assert_eq!(found, variables, "{text}");
            assert_eq!(template.verb.as_deref(), verb, "{text}");
            assert_eq!(template.to_string(), shape, "{text}");
        }
    }

    #[test]
    fn grammar_refuses() {
        for (text, why) in [
            ("", "expected `/` at byte 0"),
            ("v1", "expected `/` at byte 0"),
            ("/", "expected a segment at byte 1"),
            ("/v1/", "expected a segment at byte 4"),
            ("/v1//x", "expected a segment at byte 4"),
            ("/v1/{id", "expected `}` at byte 7"),
            ("/v1/{}", "expected a field name at byte 5"),
            ("/v1/{1a}", "expected a field name at byte 5"),
            ("/v1/{a.}", "expected a field name at byte 7"),
            ("/v1/{a={b}}", "variables do not nest at byte 7"),
            ("/v1/{a=}", "expected a segment at byte 7"),
            ("/v1/***", "expected the end of the template at byte 6"),
            ("/v1/**/x", "`**` may only stand last"),
            ("/v1/{a=**}/{b=**}", "`**` may only stand last"),
            ("/v1/{a}/{a}", "variable `a` occurs twice"),
            ("/v1/x:", "expected a segment at byte 6"),
            ("/v1/x:y/z", "expected the end of the template at byte 7"),
            ("/v1/x?y", "expected the end of the template at byte 5"),
            ("/v1/a%20b", "expected the end of the template at byte 5"),
            ("/v1/é", "expected a segment at byte 4"),
        ] {
            let error = Template::parse(text).unwrap_err();
            assert!(error.ends_with(why), "{text}: {error}");
        }
    }

    #[test]
    fn openapi_paths_name_their_variables() {
        let name = |v: &Variable| v.field.join(".");
        for (text, expected) in [
            (
                "/v1/products/{product.id}:undelete",
                "/v1/products/{product.id}:undelete",
            ),
            ("/v1/{name=shelves/*}", "/v1/shelves/{name}"),
            (
                "/v1/{name=shelves/*/books/*}",
                "/v1/shelves/{name}/books/{name_3}",
            ),
            ("/v1/*/x", "/v1/{segment1}/x"),
        ] {
            assert_eq!(Template::parse(text).unwrap().openapi(name), expected);
        }
    }
}
