//! The `filter` of list methods: a subset of AIP-160, parsed and typed against the fields that a
//! method allows. A store turns the tree into SQL itself, with every value as a bound parameter.
//!
//! ```text
//! expression = disjunction { "AND" disjunction }
//! disjunction = term { "OR" term }          OR binds tighter than AND, as AIP-160 has it
//! term       = [ "NOT" ] ( "(" expression ")" | comparison )
//! comparison = field operator value
//! operator   = "=" | "!=" | "<" | "<=" | ">" | ">=" | ":"
//! value      = word | '"' characters, with \" and \\ '"'
//! ```
//! A word ends at a blank or a parenthesis. Deliberately missing from AIP-160: several terms without
//! an operator between them, `-` for NOT, wildcards, functions and traversal of nested fields.

mod parser;
#[cfg(test)]
mod tests;

use crate::text::Invalid;

/// A field that a method allows in its filter.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// Its name, as in the contract.
    pub name: &'static str,
    /// What its values look like.
    pub kind: Kind,
    /// Which operators it takes.
    pub operators: &'static [Operator],
}

/// What the values of a field look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Any text.
    Text,
    /// A list of texts, such as tags.
    TextList,
    /// A whole number.
    Number,
    /// An RFC 3339 time.
    Time,
    /// One of these names.
    Enum(&'static [&'static str]),
}

/// How a field is compared with a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
    /// `:`, contains: a part of a text, an element of a list.
    Has,
}

impl Operator {
    /// `=` and `!=`.
    pub const EQUALITY: &'static [Self] = &[Self::Equal, Self::NotEqual];
    /// `=`, `!=` and `:`.
    pub const TEXT: &'static [Self] = &[Self::Equal, Self::NotEqual, Self::Has];
    /// `=`, `!=`, `<`, `<=`, `>` and `>=`.
    pub const ORDERED: &'static [Self] = &[
        Self::Equal,
        Self::NotEqual,
        Self::Less,
        Self::LessOrEqual,
        Self::Greater,
        Self::GreaterOrEqual,
    ];

    /// As it is written in a filter.
    pub fn symbol(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
            Self::Has => ":",
        }
    }
}

/// A parsed filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expr {
    /// All of these, at least two.
    And(Vec<Expr>),
    /// One of these, at least two.
    Or(Vec<Expr>),
    /// Not this.
    Not(Box<Expr>),
    /// One comparison.
    Compare(Comparison),
}

/// One comparison of a field with a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comparison {
    /// The field's name, one of those allowed.
    pub field: &'static str,
    /// One of the operators that the field takes.
    pub operator: Operator,
    /// A value of the field's kind.
    pub value: Value,
}

/// A value of the kind of its field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// For [`Kind::Text`] and [`Kind::TextList`].
    Text(String),
    /// For [`Kind::Number`].
    Number(i64),
    /// For [`Kind::Time`], microseconds since the epoch.
    Time(i64),
    /// For [`Kind::Enum`], one of its names.
    Enum(&'static str),
}

/// How large a filter may be and which connectives it may use.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The longest filter, in characters.
    pub characters_max: usize,
    /// The most comparisons.
    pub comparisons_max: usize,
    /// The deepest nesting of parentheses and NOT.
    pub depth_max: usize,
    /// Whether comparisons may only be joined by AND: no OR, NOT or parentheses.
    pub and_only: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            characters_max: 1000,
            comparisons_max: 20,
            depth_max: 10,
            and_only: false,
        }
    }
}

/// Reads a filter over the allowed `fields`; blank text is no filter. Errors are about the field
/// `filter` and say at which character what was expected.
pub fn parse(text: &str, fields: &[Field], limits: Limits) -> Result<Option<Expr>, Invalid> {
    if text.trim().is_empty() {
        return Ok(None);
    }
    if text.chars().count() > limits.characters_max {
        let reason = format!("must have at most {} characters", limits.characters_max);
        return Err(Invalid::new("filter", reason));
    }
    parser::Parser::new(text, fields, limits).parse().map(Some)
}
