//! Who may call what: rules by caller and method, compiled so that a decision costs the same however many
//! rules there are.
//!
//! Rules only allow; what none allows is denied, so their order means nothing. Deliberately without I/O:
//! [`Authorizer`] reads the file, watches it and leaves the audit lines.

mod authorizer;
mod rules;

use std::{collections::HashMap, sync::Arc};

pub use authorizer::{Authorizer, Denial, PolicyFileError, PolicyReload};
pub use rules::PolicyError;
use rules::{CallerPattern, MethodPattern};

use crate::{SpiffeId, pattern::ancestors};

/// The rules, compiled.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// `/package.Service/Method`.
    methods: HashMap<String, Callers>,
    /// `/package.Service`.
    services: HashMap<String, Callers>,
    /// Whatever is called.
    all: Callers,
    rules: usize,
}

/// Which rule lets a caller in. Where several do, the one that stands first.
#[derive(Clone, Debug, Default)]
struct Callers {
    exact: HashMap<String, Rule>,
    /// By what the caller is below.
    below: HashMap<String, Rule>,
    /// Whoever has proven an identity.
    authenticated: Option<Rule>,
    /// Whoever calls, in plaintext too.
    anybody: Option<Rule>,
}

type Rule = Arc<str>;

/// What the rules say of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The rule of this name allows it.
    Allowed(Arc<str>),
    /// No rule does.
    Denied,
}

impl Policy {
    /// Reads rules as TOML and compiles them.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        let mut policy = Self::default();
        for rule in rules::read(text)? {
            let name: Rule = Arc::from(rule.name);
            for method in &rule.methods {
                let callers = match method {
                    MethodPattern::Method(path) => policy.methods.entry(path.clone()).or_default(),
                    MethodPattern::Service(path) => {
                        policy.services.entry(path.clone()).or_default()
                    }
                    MethodPattern::All => &mut policy.all,
                };
                rule.callers
                    .iter()
                    .for_each(|caller| callers.add(caller, &name));
            }
            policy.rules += 1;
        }
        Ok(policy)
    }

    /// Whether `caller` (`None`: nobody that has proven who it is) may call `method`
    /// (`/package.Service/Method`). Looks up a few maps, whatever the number of rules.
    pub fn decide(&self, caller: Option<&SpiffeId>, method: &str) -> Decision {
        let service = method.rsplit_once('/').map_or("", |(service, _)| service);
        let places = [
            self.methods.get(method),
            self.services.get(service),
            Some(&self.all),
        ];
        let rule = places
            .into_iter()
            .flatten()
            .find_map(|callers| callers.rule(caller));
        rule.map_or(Decision::Denied, |rule| Decision::Allowed(rule.clone()))
    }

    /// How many rules there are.
    pub fn rules(&self) -> usize {
        self.rules
    }
}

impl Callers {
    fn add(&mut self, caller: &CallerPattern, rule: &Rule) {
        match caller {
            CallerPattern::Exact(id) => {
                self.exact
                    .entry(id.to_string())
                    .or_insert_with(|| rule.clone());
            }
            CallerPattern::Below(id) => {
                self.below
                    .entry(id.to_string())
                    .or_insert_with(|| rule.clone());
            }
            CallerPattern::Authenticated => {
                self.authenticated.get_or_insert_with(|| rule.clone());
            }
            CallerPattern::Anybody => {
                self.anybody.get_or_insert_with(|| rule.clone());
            }
        }
    }

    fn rule(&self, caller: Option<&SpiffeId>) -> Option<&Rule> {
        let named = caller.and_then(|id| {
            let exact = self.exact.get(id.as_str());
            exact
                .or_else(|| ancestors(id).find_map(|above| self.below.get(above)))
                .or(self.authenticated.as_ref())
        });
        named.or(self.anybody.as_ref())
    }
}

#[cfg(test)]
mod tests;
