//! The policy file as people write it:
//! ```toml
//! [[rule]]
//! name = "payment reserves stock"
//! callers = ["spiffe://shop.example/payment", "spiffe://shop.example/jobs/*"]
//! methods = ["/commerce.product.v1.StockService/*"]
//! ```

use serde::Deserialize;

use crate::{IdPattern, SpiffeId, SpiffeIdError};

/// The longest name of a rule, in bytes: it stands in every audit line.
const NAME_BYTES_MAX: usize = 100;

/// Why a file holds no policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// Not TOML, or with other keys.
    #[error("line {line}: {reason}")]
    Toml {
        /// Where.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// A name that nobody could find again, or that two rules have.
    #[error("rule \"{0}\" needs a name of its own, of 1 to {NAME_BYTES_MAX} bytes on one line")]
    Name(String),
    /// A rule that allows nobody, or nothing.
    #[error("rule \"{rule}\" has no {key}")]
    Empty {
        /// Its name.
        rule: String,
        /// `callers` or `methods`.
        key: &'static str,
    },
    /// A caller that can be nobody.
    #[error("rule \"{rule}\": caller \"{caller}\" {reason}")]
    Caller {
        /// Its name.
        rule: String,
        /// What it says.
        caller: String,
        /// What is wrong.
        reason: SpiffeIdError,
    },
    /// A method that can be none.
    #[error(
        "rule \"{rule}\": method \"{method}\" is not /package.Service/Method, /package.Service/* or /*"
    )]
    Method {
        /// Its name.
        rule: String,
        /// What it says.
        method: String,
    },
}

/// A rule that has been read.
pub(super) struct Rule {
    pub(super) name: String,
    pub(super) callers: Vec<CallerPattern>,
    pub(super) methods: Vec<MethodPattern>,
}

#[derive(Debug, PartialEq)]
pub(super) enum CallerPattern {
    Exact(SpiffeId),
    Below(SpiffeId),
    /// `spiffe://*`
    Authenticated,
    /// `*`
    Anybody,
}

#[derive(Debug, PartialEq)]
pub(super) enum MethodPattern {
    Method(String),
    /// Without the last slash.
    Service(String),
    /// `/*`
    All,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    rule: Vec<Table>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    /// What audit lines call it.
    name: String,
    /// SPIFFE IDs, or patterns of them.
    callers: Vec<String>,
    /// Methods, or patterns of them.
    methods: Vec<String>,
}

pub(super) fn read(text: &str) -> Result<Vec<Rule>, PolicyError> {
    let file: File = toml::from_str(text).map_err(|error| {
        let line = error
            .span()
            .map_or(0, |span| text[..span.start].matches('\n').count() + 1);
        PolicyError::Toml {
            line,
            reason: error.message().to_owned(),
        }
    })?;
    let mut rules: Vec<Rule> = Vec::with_capacity(file.rule.len());
    let mut names = std::collections::HashSet::new();
    for table in file.rule {
        let fits = (1..=NAME_BYTES_MAX).contains(&table.name.len());
        if !fits || table.name.chars().any(char::is_control) || !names.insert(table.name.clone()) {
            return Err(PolicyError::Name(table.name));
        }
        rules.push(rule(table)?);
    }
    Ok(rules)
}

fn rule(table: Table) -> Result<Rule, PolicyError> {
    let Table {
        name,
        callers,
        methods,
    } = table;
    for (key, list) in [("callers", &callers), ("methods", &methods)] {
        if list.is_empty() {
            return Err(PolicyError::Empty { rule: name, key });
        }
    }
    let callers = callers.into_iter().map(|caller| {
        let read = caller_pattern(&caller);
        read.map_err(|reason| PolicyError::Caller {
            rule: name.clone(),
            caller,
            reason,
        })
    });
    let callers = callers.collect::<Result<_, _>>()?;
    let methods = methods.into_iter().map(|method| {
        let read = method_pattern(&method);
        read.ok_or_else(|| PolicyError::Method {
            rule: name.clone(),
            method,
        })
    });
    let methods = methods.collect::<Result<_, _>>()?;
    Ok(Rule {
        name,
        callers,
        methods,
    })
}

fn caller_pattern(text: &str) -> Result<CallerPattern, SpiffeIdError> {
    Ok(match text {
        "*" => CallerPattern::Anybody,
        "spiffe://*" => CallerPattern::Authenticated,
        _ => match text.parse()? {
            IdPattern::Exact(id) => CallerPattern::Exact(id),
            IdPattern::Below(id) => CallerPattern::Below(id),
        },
    })
}

fn method_pattern(text: &str) -> Option<MethodPattern> {
    if text == "/*" {
        return Some(MethodPattern::All);
    }
    let (service, method) = text.strip_prefix('/')?.split_once('/')?;
    let is_word = |word: &str| {
        let mut bytes = word.bytes();
        bytes
            .next()
            .is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
            && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    if !service.split('.').all(is_word) {
        return None;
    }
    match method {
        "*" => Some(MethodPattern::Service(format!("/{service}"))),
        _ if is_word(method) => Some(MethodPattern::Method(text.to_owned())),
        _ => None,
    }
}
