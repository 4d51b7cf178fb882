//! Recursive descent over the characters of a filter; depth is bounded, so the stack is too.

use super::{Comparison, Expr, Field, Kind, Limits, Operator, Value};
use crate::day;
use crate::text::Invalid;

pub(super) struct Parser<'a> {
    text: &'a str,
    /// The byte at which the rest begins.
    at: usize,
    fields: &'a [Field],
    limits: Limits,
    comparisons: usize,
    depth: usize,
}

/// The longest part of a wrong word that is repeated in an error.
const SHOWN_CHARACTERS_MAX: usize = 32;

/// Longer symbols first, so that `<=` is not read as `<`.
const OPERATORS: [Operator; 7] = [
    Operator::NotEqual,
    Operator::LessOrEqual,
    Operator::GreaterOrEqual,
    Operator::Equal,
    Operator::Less,
    Operator::Greater,
    Operator::Has,
];

impl<'a> Parser<'a> {
    pub(super) fn new(text: &'a str, fields: &'a [Field], limits: Limits) -> Self {
        Self {
            text,
            at: 0,
            fields,
            limits,
            comparisons: 0,
            depth: 0,
        }
    }

    pub(super) fn parse(mut self) -> Result<Expr, Invalid> {
        let expr = self.conjunction()?;
        if self.rest().is_empty() {
            return Ok(expr);
        }
        let joined = if self.limits.and_only {
            "AND"
        } else {
            "AND, OR"
        };
        Err(self.expected(&format!("{joined} or the end")))
    }

    fn conjunction(&mut self) -> Result<Expr, Invalid> {
        let mut parts = vec![self.disjunction()?];
        while self.keyword("AND") {
            parts.push(self.disjunction()?);
        }
        Ok(single_or(parts, Expr::And))
    }

    fn disjunction(&mut self) -> Result<Expr, Invalid> {
        let mut parts = vec![self.term()?];
        loop {
            self.skip_blanks();
            let before = self.at;
            if !self.keyword("OR") {
                return Ok(single_or(parts, Expr::Or));
            }
            self.refuse_unless_full("OR", before)?;
            parts.push(self.term()?);
        }
    }

    fn term(&mut self) -> Result<Expr, Invalid> {
        self.skip_blanks();
        let before = self.at;
        if self.keyword("NOT") {
            self.refuse_unless_full("NOT", before)?;
            let inner = self.nested(Self::term)?;
            return Ok(Expr::Not(Box::new(inner)));
        }
        if self.symbol("(") {
            self.refuse_unless_full("parentheses", before)?;
            let inner = self.nested(Self::conjunction)?;
            self.skip_blanks();
            return if self.symbol(")") {
                Ok(inner)
            } else {
                Err(self.expected("AND, OR or `)`"))
            };
        }
        self.comparison().map(Expr::Compare)
    }

    fn nested(&mut self, inner: fn(&mut Self) -> Result<Expr, Invalid>) -> Result<Expr, Invalid> {
        self.depth += 1;
        if self.depth > self.limits.depth_max {
            let reason = format!("is nested deeper than {} levels", self.limits.depth_max);
            return Err(self.at_position(self.at, &reason));
        }
        let expr = inner(self)?;
        self.depth -= 1;
        Ok(expr)
    }

    fn comparison(&mut self) -> Result<Comparison, Invalid> {
        self.comparisons += 1;
        if self.comparisons > self.limits.comparisons_max {
            let reason = format!("has more than {} comparisons", self.limits.comparisons_max);
            return Err(Invalid::new("filter", reason));
        }
        let field = self.field()?;
        let operator = self.operator(field)?;
        let value = self.value(field)?;
        Ok(Comparison {
            field: field.name,
            operator,
            value,
        })
    }

    fn field(&mut self) -> Result<&'a Field, Invalid> {
        self.skip_blanks();
        let start = self.at;
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
        let name = self.take_while(is_name);
        let names = || {
            let names: Vec<&str> = self.fields.iter().map(|field| field.name).collect();
            names.join(", ")
        };
        if name.is_empty() {
            return Err(self.expected(&format!("a field ({})", names())));
        }
        self.fields
            .iter()
            .find(|field| field.name == name)
            .ok_or_else(|| {
                let reason = format!("`{}` is not a field; allowed: {}", shown(name), names());
                self.at_position(start, &reason)
            })
    }

    fn operator(&mut self, field: &Field) -> Result<Operator, Invalid> {
        self.skip_blanks();
        let start = self.at;
        let found = OPERATORS
            .into_iter()
            .find(|operator| self.symbol(operator.symbol()));
        let allowed = || {
            let symbols: Vec<&str> = field.operators.iter().map(|o| o.symbol()).collect();
            symbols.join(" ")
        };
        match found {
            Some(operator) if field.operators.contains(&operator) => Ok(operator),
            Some(operator) => {
                let (name, symbol) = (field.name, operator.symbol());
                let reason = format!("`{name}` does not take `{symbol}`, only {}", allowed());
                Err(self.at_position(start, &reason))
            }
            None => Err(self.expected(&format!("one of {} after `{}`", allowed(), field.name))),
        }
    }

    fn value(&mut self, field: &Field) -> Result<Value, Invalid> {
        self.skip_blanks();
        let start = self.at;
        let text = if self.symbol("\"") {
            self.quoted(start)?
        } else {
            self.word(field)?
        };
        let (value, expected) = match field.kind {
            Kind::Text | Kind::TextList => (Some(Value::Text(text)), String::new()),
            Kind::Number => (
                text.parse().ok().map(Value::Number),
                "a whole number".to_owned(),
            ),
            Kind::Time => (
                day::parse_rfc3339(&text).map(Value::Time),
                "an RFC 3339 time such as 2026-11-22T10:15:30Z".to_owned(),
            ),
            Kind::Enum(names) => (
                names
                    .iter()
                    .find(|name| **name == text)
                    .map(|name| Value::Enum(name)),
                format!("one of {}", names.join(", ")),
            ),
        };
        value.ok_or_else(|| self.at_position(start, &format!("`{}` takes {expected}", field.name)))
    }

    fn word(&mut self, field: &Field) -> Result<String, Invalid> {
        let start = self.at;
        let word = self.take_while(|c| !c.is_whitespace() && !matches!(c, '(' | ')' | '"'));
        if word.is_empty() {
            return Err(self.expected(&format!("a value for `{}`", field.name)));
        }
        if word.contains('*') {
            let reason = "wildcards are not supported; write a literal `*` in double quotes";
            return Err(self.at_position(start, reason));
        }
        if word.starts_with('\'') {
            return Err(self.at_position(start, "texts stand in double quotes"));
        }
        Ok(word.to_owned())
    }

    fn quoted(&mut self, start: usize) -> Result<String, Invalid> {
        let mut text = String::new();
        let mut characters = self.text[self.at..].char_indices();
        while let Some((offset, character)) = characters.next() {
            match character {
                '"' => {
                    self.at += offset + 1;
                    return Ok(text);
                }
                '\\' => {
                    let Some((_, escaped @ ('"' | '\\'))) = characters.next() else {
                        let reason = r#"after `\` only `"` or `\` may follow"#;
                        return Err(self.at_position(self.at + offset, reason));
                    };
                    text.push(escaped);
                }
                '\0' => return Err(self.at_position(self.at + offset, "contains NUL")),
                other => text.push(other),
            }
        }
        Err(self.at_position(start, "the quoted text does not end"))
    }

    fn refuse_unless_full(&self, what: &str, at: usize) -> Result<(), Invalid> {
        if !self.limits.and_only {
            return Ok(());
        }
        Err(self.at_position(at, &format!("{what} cannot be used here, only AND")))
    }

    fn rest(&mut self) -> &'a str {
        self.skip_blanks();
        &self.text[self.at..]
    }

    fn skip_blanks(&mut self) {
        self.take_while(char::is_whitespace);
    }

    fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> &'a str {
        let rest = &self.text[self.at..];
        let end = rest.find(|c| !wanted(c)).unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    fn symbol(&mut self, symbol: &str) -> bool {
        let found = self.text[self.at..].starts_with(symbol);
        if found {
            self.at += symbol.len();
        }
        found
    }

    /// Takes a keyword, unless it is only the beginning of a longer word.
    fn keyword(&mut self, keyword: &str) -> bool {
        let longer = |c: char| !c.is_whitespace() && !matches!(c, '(' | ')' | '"');
        let found = self
            .rest()
            .strip_prefix(keyword)
            .is_some_and(|rest| !rest.starts_with(longer));
        if found {
            self.at += keyword.len();
        }
        found
    }

    fn expected(&mut self, what: &str) -> Invalid {
        let word: &str = self.rest().split_whitespace().next().unwrap_or_default();
        let found = if word.is_empty() {
            "the end".to_owned()
        } else {
            format!("`{}`", shown(word))
        };
        self.at_position(self.at, &format!("expected {what}, found {found}"))
    }

    fn at_position(&self, at: usize, reason: &str) -> Invalid {
        let character = self.text[..at].chars().count() + 1;
        Invalid::new("filter", format!("at character {character}: {reason}"))
    }
}

fn single_or(mut parts: Vec<Expr>, join: fn(Vec<Expr>) -> Expr) -> Expr {
    if parts.len() == 1 {
        parts.remove(0)
    } else {
        join(parts)
    }
}

fn shown(word: &str) -> String {
    word.chars().take(SHOWN_CHARACTERS_MAX).collect()
}
