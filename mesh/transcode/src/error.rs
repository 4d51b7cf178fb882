//! What can be wrong with a request, with a contract, and with an answer.

use std::fmt;

/// The most violations that one answer names; a client that made more mistakes fixes these first.
pub(crate) const VIOLATIONS_MAX: usize = 20;

/// One thing that is wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Where: the path of a request field (`items[1].colour`), the name of a query parameter, or
    /// `body` or `path` where the text as a whole cannot be read.
    pub field: String,
    /// What is wrong and what would be right: lower case, no full stop.
    pub description: String,
}

/// A request that the contract does not allow; becomes `google.rpc.BadRequest` at the edge.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct BadRequest {
    violations: Vec<Violation>,
}

impl BadRequest {
    /// A request with one mistake.
    pub fn new(field: impl Into<String>, description: impl Into<String>) -> Self {
        let violation = Violation {
            field: field.into(),
            description: description.into(),
        };
        Self {
            violations: vec![violation],
        }
    }

    /// Everything that was found, at least one entry, in the order of the request.
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }
}

impl fmt::Display for BadRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, violation) in self.violations.iter().enumerate() {
            let separator = if i == 0 { "" } else { "; " };
            write!(
                f,
                "{separator}{}: {}",
                violation.field, violation.description
            )?;
        }
        Ok(())
    }
}

/// Collects violations while a request is read, up to [`VIOLATIONS_MAX`].
#[derive(Debug, Default)]
pub(crate) struct Violations(Vec<Violation>);

impl Violations {
    pub(crate) fn push(&mut self, field: impl fmt::Display, description: impl Into<String>) {
        if self.0.len() < VIOLATIONS_MAX {
            self.0.push(Violation {
                field: field.to_string(),
                description: description.into(),
            });
        }
    }

    pub(crate) fn extend(&mut self, other: BadRequest) {
        self.0.extend(other.violations);
        self.0.truncate(VIOLATIONS_MAX);
    }

    /// `value`, if nothing was wrong.
    pub(crate) fn or<T>(self, value: T) -> Result<T, BadRequest> {
        if self.0.is_empty() {
            Ok(value)
        } else {
            Err(BadRequest { violations: self.0 })
        }
    }
}

/// A contract that cannot be served over HTTP. Found at start-up, never while serving.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// The bytes are not a `FileDescriptorSet`, or names in it do not resolve.
    #[error("descriptor set cannot be read")]
    Descriptors(#[source] prost_reflect::DescriptorError),
    /// The `google.api.http` option of a method does not decode.
    #[error("method {method}: its http option cannot be read")]
    Option {
        /// The method's full name.
        method: String,
        /// Why.
        #[source]
        source: prost::DecodeError,
    },
    /// A rule breaks the grammar or names a field that is not there.
    #[error("method {method}: {reason}")]
    Rule {
        /// The method's full name.
        method: String,
        /// What is wrong with its rule.
        reason: String,
    },
    /// Two rules answer the same verb and path.
    #[error("methods {first} and {second} both answer {route}")]
    Conflict {
        /// The method that came first.
        first: String,
        /// The method that collides with it.
        second: String,
        /// The verb and template they share.
        route: String,
    },
}

/// An answer of a service that cannot be shown as JSON: the service broke its contract.
#[derive(Debug, thiserror::Error)]
pub enum ResponseError {
    /// The bytes are not a message of the response's type.
    #[error("response does not decode as {message}")]
    Decode {
        /// The response message's full name.
        message: String,
        /// Why.
        #[source]
        source: prost::DecodeError,
    },
    /// A value has no JSON form, such as a timestamp after the year 9999.
    #[error("response field {field}: {reason}")]
    Value {
        /// The path of the field.
        field: String,
        /// What is wrong with the value.
        reason: String,
    },
}
