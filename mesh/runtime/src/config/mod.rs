//! Configuration from a TOML file, environment variables and flags, each overriding the one before.
//!
//! A configuration is a plain struct with `#[serde(default)]` and a doc comment on each field, all in
//! lower case, none skipped when it is written. A key that nobody reads is refused by its name, wherever
//! it stands: a typo never runs with the default.
//!
//! Environment: `PREFIX__SECTION__KEY`, as in `PRODUCT__MESH__SERVER__DRAIN_TIMEOUT_MS=5000`. A value is
//! taken as text where the key's default is text, and is read like TOML elsewhere (`5`, `true`,
//! `[1, 2]`); text for an optional key that looks like a number has to be quoted.
//!
//! What can change while the program runs is read again from its file ([`Following`]).
//!
//! Deliberately without profiles and includes.

mod follow;
mod secret;
mod source;

use std::{fmt, path::PathBuf};

use figment::{
    Figment,
    providers::{Format as _, Serialized, Toml},
    value::{Dict, Value},
};
use serde::{Serialize, de::DeserializeOwned};

pub use follow::Following;
pub use secret::Secret;
pub use source::Overrides;

/// The flags that every binary has. Flatten it into the binary's own arguments.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct CommonArgs {
    /// Configuration file (TOML). Every key can be overridden by an environment variable.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Check the configuration and exit.
    #[arg(long)]
    pub check_config: bool,
    /// Print the configuration in effect, with secrets masked, and exit.
    #[arg(long)]
    pub print_config: bool,
}

/// Why there is no configuration. The text names the source, the key and what is wrong with it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file given by `--config` cannot be read.
    #[error("configuration file \"{}\" cannot be read", path.display())]
    File {
        /// As given.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// One or more keys are wrong.
    #[error("{0}")]
    Keys(KeyErrors),
}

/// Every key that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyErrors(pub Vec<String>);

impl fmt::Display for KeyErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

/// A configuration that was read.
#[derive(Clone)]
pub struct Loaded<C> {
    /// What to run with.
    pub config: C,
    toml: String,
    from: Origin,
    /// What was given, without the defaults; secrets are readable in it.
    given: Figment,
}

impl<C: fmt::Debug> fmt::Debug for Loaded<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Loaded");
        shown.field("config", &self.config);
        shown.field("from", &self.from).finish_non_exhaustive()
    }
}

/// Where a configuration was read from.
#[derive(Clone, Debug)]
struct Origin {
    args: CommonArgs,
    env_prefix: String,
    overrides: Overrides,
}

impl<C> Loaded<C> {
    /// What `--check-config` and `--print-config` print instead of running; `None`: run.
    pub fn answer(&self, args: &CommonArgs) -> Option<String> {
        if args.print_config {
            Some(self.toml.clone())
        } else if args.check_config {
            Some("configuration is valid\n".to_owned())
        } else {
            None
        }
    }

    /// Why a value is refused that was read well: the error names where it was given, the key and the value. `reason` is
    /// the end of a sentence that begins with the value.
    pub fn refuse(&self, key: &str, reason: impl fmt::Display) -> ConfigError {
        let origin = self.given.find_metadata(key).map(origin);
        let table: toml::Table =
            toml::from_str(&self.toml).expect("what was written as TOML is TOML");
        let table = toml::Value::Table(table);
        let mut value = Some(&table);
        for name in key.split('.') {
            value = value.and_then(|value| value.get(name));
        }
        let value = value.map_or("unset".to_owned(), toml::Value::to_string);
        keys(
            [format!(
                "{}key \"{key}\": {value} {reason}",
                origin.unwrap_or_default()
            )]
            .into_iter(),
        )
    }

    /// Reads the file again while the program runs.
    pub fn following(&self) -> Following {
        Following::new(self.from.clone(), self.toml.clone())
    }

    /// The configuration in effect as TOML, with secrets masked.
    pub fn to_toml(&self) -> &str {
        &self.toml
    }
}

/// Reads the configuration of a program: the defaults, the file of `--config`, the environment variables
/// that begin with `PREFIX__`, then the flags.
pub fn load<C>(
    args: &CommonArgs,
    env_prefix: &str,
    overrides: Overrides,
) -> Result<Loaded<C>, ConfigError>
where
    C: Serialize + DeserializeOwned + Default,
{
    // `vars` would panic on the first variable, of any program, that is not Unicode.
    let environment = std::env::vars_os().filter_map(|(name, value)| {
        Some((
            name.into_string().ok()?,
            value.to_string_lossy().into_owned(),
        ))
    });
    load_from(args, env_prefix, environment, overrides)
}

fn load_from<C>(
    args: &CommonArgs,
    env_prefix: &str,
    environment: impl Iterator<Item = (String, String)>,
    overrides: Overrides,
) -> Result<Loaded<C>, ConfigError>
where
    C: Serialize + DeserializeOwned + Default,
{
    let defaults = tree(&C::default());
    let mut figment = Figment::new();
    if let Some(path) = &args.config {
        // figment takes a missing file for an empty one.
        std::fs::metadata(path).map_err(|source| ConfigError::File {
            path: path.clone(),
            source,
        })?;
        figment = figment.merge(Toml::file_exact(path));
    }
    for variable in source::variables(environment, env_prefix, &defaults) {
        figment = figment.merge(variable);
    }
    let from = Origin {
        args: args.clone(),
        env_prefix: env_prefix.to_owned(),
        overrides: overrides.clone(),
    };
    for flag in overrides.0 {
        figment = figment.merge(flag);
    }
    // A table that is given in part keeps the rest of the program's own defaults, not those of its type.
    let config: C = Figment::from(Serialized::defaults(C::default()))
        .merge(&figment)
        .extract()
        .map_err(|errors| keys(errors.into_iter().map(explain)))?;
    let given: Dict = figment
        .extract()
        .map_err(|errors| keys(errors.into_iter().map(explain)))?;
    let mut unread = Vec::new();
    collect_unread(
        &Value::from(given),
        &tree(&config),
        &mut Vec::new(),
        &mut unread,
    );
    if !unread.is_empty() {
        return Err(keys(unread.iter().map(|key| {
            let origin = figment.find_metadata(key).map(origin).unwrap_or_default();
            format!("{origin}key \"{key}\" is unknown")
        })));
    }
    let toml = toml::to_string_pretty(&config).map_err(|error| {
        keys(
            [format!(
                "the configuration cannot be written as TOML: {error}"
            )]
            .into_iter(),
        )
    })?;
    Ok(Loaded {
        config,
        toml,
        from,
        given: figment,
    })
}

fn tree(config: &impl Serialize) -> Value {
    Value::serialize(config).expect("a configuration is plain data with text keys")
}

fn keys(errors: impl Iterator<Item = String>) -> ConfigError {
    ConfigError::Keys(KeyErrors(errors.collect()))
}

/// The keys that were given and do not come back: nobody has read them.
fn collect_unread(given: &Value, read: &Value, path: &mut Vec<String>, unread: &mut Vec<String>) {
    match (given, read) {
        (Value::Dict(_, given), Value::Dict(_, read)) => {
            for (key, value) in given {
                path.push(key.clone());
                match read.get(key) {
                    Some(read) => collect_unread(value, read, path, unread),
                    None => unread.push(path.join(".")),
                }
                path.pop();
            }
        }
        (Value::Array(_, given), Value::Array(_, read)) => {
            for (index, (given, read)) in given.iter().zip(read).enumerate() {
                path.push(index.to_string());
                collect_unread(given, read, path, unread);
                path.pop();
            }
        }
        _ => {}
    }
}

fn explain(error: figment::Error) -> String {
    let origin = error.metadata.as_ref().map(origin).unwrap_or_default();
    let key = match error.path.join(".") {
        key if key.is_empty() => String::new(),
        key => format!("key \"{key}\": "),
    };
    format!("{origin}{key}{}", error.kind)
}

fn origin(metadata: &figment::Metadata) -> String {
    match metadata
        .source
        .as_ref()
        .and_then(figment::Source::file_path)
    {
        Some(path) => format!("file \"{}\": ", path.display()),
        None => format!("{}: ", metadata.name),
    }
}

#[cfg(test)]
mod tests;
