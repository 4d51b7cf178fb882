//! `cargo xtask docs`: writes docs/configuration.md from the configuration structs of every service.
//!
//! The sources are read, not run: a key's meaning is the doc comment of its field, its default stands in
//! the struct's `Default`, its type is the field's. A program takes part when it calls
//! `config::load::<Type>(…, "PREFIX", …)`: the type is the root of its keys, the prefix begins its
//! environment variables. A field without a doc comment, a default that is no plain value
//! and a `Default: N.` in a comment that the code contradicts are errors.

mod default;
mod keys;
mod render;
mod source;

use std::{fs, path::Path};

use anyhow::{Context, Result, bail};

pub use self::{
    keys::Key,
    source::{Sources, Unit},
};
use crate::checkout;

/// Where the documentation goes, from the root.
pub const FILE: &str = "docs/configuration.md";

/// What to do with the documentation.
#[derive(clap::Args)]
pub struct Options {
    /// Write nothing; fail when the file is not up to date.
    #[arg(long)]
    check: bool,
}

/// Writes the file, or checks it.
pub fn run(options: &Options) -> Result<()> {
    let root = checkout::root();
    if options.check {
        check(&root)?;
        println!("{FILE} is up to date");
        return Ok(());
    }
    let text = generate(&root)?;
    let file = root.join(FILE);
    fs::create_dir_all(file.parent().expect("the file lies in a folder"))?;
    fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    println!("wrote {FILE}");
    Ok(())
}

/// The documentation as the sources have it now.
pub fn generate(root: &Path) -> Result<String> {
    let binaries = binaries(&Sources::read(root)?)?;
    if binaries.is_empty() {
        bail!("no binary below services/ calls config::load");
    }
    Ok(render::markdown(&binaries))
}

/// Fails when the file is not what the sources say.
pub fn check(root: &Path) -> Result<()> {
    let expected = generate(root)?;
    let found = fs::read_to_string(root.join(FILE)).unwrap_or_default();
    let differs = expected
        .lines()
        .zip(found.lines().chain(std::iter::repeat("")))
        .find(|(a, b)| a != b);
    match differs {
        None if expected == found => Ok(()),
        None => bail!("{FILE} is stale: it has lines too many; run `cargo xtask docs`"),
        Some((line, _)) => bail!("{FILE} is stale: run `cargo xtask docs`; it lacks: {line}"),
    }
}

/// A program with its keys.
#[derive(Debug)]
pub struct Binary {
    /// Its name.
    pub name: String,
    /// What its environment variables begin with, such as `PRODUCT`.
    pub prefix: String,
    /// Its keys, in the order of the structs.
    pub keys: Vec<Key>,
}

/// Every program of a service that loads a configuration, by name.
pub fn binaries(sources: &Sources) -> Result<Vec<Binary>> {
    let binary = |(name, prefix, file, root)| {
        let keys = keys::keys(sources, file, root, prefix)
            .with_context(|| format!("the configuration of {name} cannot be documented"))?;
        Ok(Binary {
            name: String::from(name),
            prefix: String::from(prefix),
            keys,
        })
    };
    sources.loads().into_iter().map(binary).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAIN: &str =
        r#"fn main() { let c = mesh_runtime::config::load::<shop::Config>(&args, "SHOP", o); }"#;

    const CONFIG: &str = r#"
        use mesh::Config as MeshConfig;
        /// The shop's.
        #[derive(Deserialize)]
        pub struct Config {
            /// Where it listens.
            pub listen: SocketAddr,
            /// How long a hold lasts, in milliseconds. Default: 900000.
            pub hold_ms: u64,
            /// Where logs go; nowhere when unset.
            pub log: Option<PathBuf>,
            /// How lines look.
            pub format: Format,
            /// The mesh.
            pub mesh: MeshConfig,
        }
        const MINUTE_MS: u64 = 60 * 1_000;
        impl Default for Config {
            fn default() -> Config {
                Config {
                    listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
                    hold_ms: 15 * MINUTE_MS,
                    log: None,
                    format: Format::PlainText,
                    mesh: MeshConfig { in_flight_max: 7, ..MeshConfig::default() },
                }
            }
        }
        /// How lines look.
        #[derive(Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Format { /// Words.
            PlainText, /// JSON.
            Json }
    "#;

    const MESH: &str = r"
        /// The mesh's.
        #[derive(Default, Deserialize)]
        pub struct Config {
            /// Calls at a time.
            pub in_flight_max: usize,
            /// Names to addresses.
            pub destinations: BTreeMap<String, String>,
        }
    ";

    fn sample(config: &str) -> Result<Vec<Binary>> {
        binaries(&Sources::parse([
            Unit {
                package: "shop",
                path: "services/shop/src/main.rs",
                text: MAIN,
            },
            Unit {
                package: "shop",
                path: "services/shop/src/config.rs",
                text: config,
            },
            Unit {
                package: "mesh",
                path: "mesh/rpc/src/config.rs",
                text: MESH,
            },
        ])?)
    }

    fn error(config: &str) -> String {
        format!("{:#}", sample(config).unwrap_err())
    }

    #[test]
    fn a_parameter_is_what_the_program_says_or_its_default() {
        let process = r"
            /// A process.
            pub struct Process<S = Plain> { /// The service.
                pub service: S }
            impl<S: Default> Default for Process<S> {
                fn default() -> Self { Self { service: S::default() } }
            }
            /// A service.
            #[derive(Default)]
            pub struct Plain { /// How many.
                pub count: u8 }
        ";
        let unit = |package, path, text| Unit {
            package,
            path,
            text,
        };
        for (main, key) in &[
            (
                MAIN.replace("shop::Config", "base::Process"),
                "service.count",
            ),
            (
                MAIN.replace("shop::Config", "base::Process<mesh::Config>"),
                "service.in_flight_max",
            ),
        ] {
            let sources = Sources::parse([
                unit("shop", "services/shop/src/main.rs", main),
                unit("base", "services/base/src/lib.rs", process),
                unit("mesh", "mesh/rpc/src/config.rs", MESH),
            ]);
            let binaries = binaries(&sources.unwrap()).unwrap();
            assert_eq!(binaries[0].keys[0].name, *key);
        }
    }

    #[test]
    fn every_key_has_its_name_variable_type_and_default() {
        let binaries = sample(CONFIG).unwrap();
        let keys: Vec<_> = binaries[0]
            .keys
            .iter()
            .map(|key| [&*key.name, &*key.variable, &*key.kind, &*key.default])
            .collect();
        assert_eq!(
            keys,
            [
                ["listen", "SHOP__LISTEN", "address:port", "127.0.0.1:8080"],
                ["hold_ms", "SHOP__HOLD_MS", "integer", "900000"],
                ["log", "SHOP__LOG", "path", ""],
                ["format", "SHOP__FORMAT", "plain_text, json", "plain_text"],
                [
                    "mesh.in_flight_max",
                    "SHOP__MESH__IN_FLIGHT_MAX",
                    "integer",
                    "7"
                ],
                [
                    "mesh.destinations",
                    "SHOP__MESH__DESTINATIONS",
                    "table of text",
                    "{}"
                ],
            ]
        );
        assert_eq!(
            binaries[0].keys[1].meaning,
            "How long a hold lasts, in milliseconds."
        );
    }

    #[test]
    fn a_field_without_a_comment_is_refused() {
        let error = error(&CONFIG.replace("/// Where it listens.", ""));
        assert!(
            error.ends_with("field `listen` of shop's Config has no doc comment"),
            "{error}"
        );
    }

    #[test]
    fn a_comment_that_contradicts_the_code_is_refused() {
        let error = error(&CONFIG.replace("Default: 900000.", "Default: 60000."));
        assert!(
            error.ends_with("`hold_ms`: the comment says 60000, the code 900000"),
            "{error}"
        );
    }

    #[test]
    fn a_default_that_cannot_be_read_is_refused() {
        let error = error(&CONFIG.replace("15 * MINUTE_MS", "compute()"));
        assert!(
            error.contains("the default of `hold_ms` cannot be read"),
            "{error}"
        );
        let nested = "MeshConfig { in_flight_max: 7, ..MeshConfig::default() }";
        let error = self::error(&CONFIG.replace(nested, "MeshConfig::small()"));
        assert!(
            error.contains("the default of `mesh` cannot be read"),
            "{error}"
        );
    }

    #[test]
    fn the_page_names_every_variable() {
        let page = render::markdown(&sample(CONFIG).unwrap());
        assert!(
            page.contains("| `mesh.in_flight_max` | integer | `7` | `SHOP__MESH__IN_FLIGHT_MAX` |"),
            "{page}"
        );
    }
}
