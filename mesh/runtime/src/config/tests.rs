//! Every source, their order, and every way to get a key wrong.

use std::{collections::BTreeMap, io::Write as _};

use clap::Parser as _;
use serde::{Deserialize, Serialize};

use super::*;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Shop {
    listen: String,
    page_size_max: u32,
    title: Option<String>,
    provider: Provider,
    destinations: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Provider {
    token: Secret,
    timeout_ms: u64,
}

impl Default for Shop {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8080".into(),
            page_size_max: 100,
            title: None,
            provider: Provider {
                timeout_ms: 2_000,
                ..Provider::default()
            },
            destinations: BTreeMap::new(),
        }
    }
}

/// `load` with a file's text, variables and flags.
fn load_shop(
    file: Option<&str>,
    environment: &[(&str, &str)],
    overrides: Overrides,
) -> Result<Loaded<Shop>, ConfigError> {
    let written = file.map(|text| {
        let mut file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    });
    let config = written.as_ref().map(|file| file.path().to_owned());
    let args = CommonArgs {
        config,
        ..CommonArgs::default()
    };
    let environment = environment
        .iter()
        .map(|(name, value)| ((*name).into(), (*value).into()));
    load_from(&args, "SHOP", environment, overrides)
}

fn refusal(file: Option<&str>, environment: &[(&str, &str)]) -> String {
    load_shop(file, environment, Overrides::none())
        .unwrap_err()
        .to_string()
}

#[test]
fn nothing_given_is_the_defaults() {
    assert_eq!(
        load_shop(None, &[], Overrides::none()).unwrap().config,
        Shop::default()
    );
}

#[test]
fn a_table_given_in_part_keeps_the_rest_of_the_programs_defaults() {
    let file = "[provider]\ntoken = \"t\"\n";
    let provider = load_shop(Some(file), &[], Overrides::none())
        .unwrap()
        .config
        .provider;
    assert_eq!(provider.token.expose(), "t");
    assert_eq!(provider.timeout_ms, 2_000, "not the default of its type");
}

#[test]
fn the_file_is_overridden_by_the_environment_and_that_by_flags() {
    let file = "listen = \"file:1\"\npage_size_max = 1\n[provider]\ntimeout_ms = 1\n";
    let environment = [
        ("SHOP__LISTEN", "env:2"),
        ("SHOP__PROVIDER__TIMEOUT_MS", "2"),
    ];
    let flags = Overrides::none()
        .set("--listen", "listen", Some("flag:3"))
        .set("--page-size-max", "page_size_max", None::<u32>);
    let config = load_shop(Some(file), &environment, flags).unwrap().config;
    assert_eq!(config.listen, "flag:3");
    assert_eq!(config.page_size_max, 1);
    assert_eq!(config.provider.timeout_ms, 2);
}

#[test]
fn other_programs_variables_are_not_ours() {
    let environment = [
        ("PATH", "/bin"),
        ("SHOPPING__LISTEN", "x"),
        ("SHOP_LISTEN", "x"),
    ];
    let config = load_shop(None, &environment, Overrides::none())
        .unwrap()
        .config;
    assert_eq!(config, Shop::default());
}

#[test]
fn text_of_digits_stays_text_where_text_is_expected() {
    let environment = [("SHOP__PROVIDER__TOKEN", "0123"), ("SHOP__LISTEN", "true")];
    let config = load_shop(None, &environment, Overrides::none())
        .unwrap()
        .config;
    assert_eq!(config.provider.token.expose(), "0123");
    assert_eq!(config.listen, "true");
}

#[test]
fn names_of_a_map_are_free() {
    let environment = [("SHOP__DESTINATIONS__PRODUCT", "http://127.0.0.1:1")];
    let file = "[destinations]\npayment = \"http://127.0.0.1:2\"\n";
    let config = load_shop(Some(file), &environment, Overrides::none())
        .unwrap()
        .config;
    let names: Vec<_> = config.destinations.keys().map(String::as_str).collect();
    assert_eq!(names, ["payment", "product"]);
}

#[test]
fn an_unknown_key_is_refused_by_name_and_source() {
    let refused = refusal(Some("lisen = \"x\"\n"), &[]);
    assert!(
        refused.starts_with("file \"") && refused.ends_with("key \"lisen\" is unknown"),
        "{refused}"
    );
    assert_eq!(
        refusal(None, &[("SHOP__PAGE_SIZE", "1")]),
        "environment variable SHOP__PAGE_SIZE: key \"page_size\" is unknown"
    );
    // Where the struct itself refuses, serde says so first; the name is there all the same.
    let refused = refusal(Some("[provider]\ntimeout = 1\n"), &[]);
    assert!(
        refused.starts_with("file \"") && refused.contains("timeout"),
        "{refused}"
    );
}

#[test]
fn a_wrong_value_is_refused_by_key_and_source() {
    let refused = refusal(None, &[("SHOP__PROVIDER__TIMEOUT_MS", "soon")]);
    assert!(
        refused.starts_with(
            "environment variable SHOP__PROVIDER__TIMEOUT_MS: key \"provider.timeout_ms\": "
        ) && refused.contains("soon"),
        "{refused}"
    );
    let refused = refusal(Some("page_size_max = -1\n"), &[]);
    assert!(
        refused.starts_with("file \"") && refused.contains("key \"page_size_max\""),
        "{refused}"
    );
}

#[test]
fn a_file_that_is_not_toml_is_refused_by_its_line() {
    let refused = refusal(Some("listen = \"a\"\npage_size_max 1\n"), &[]);
    assert!(
        refused.starts_with("file \"") && refused.contains("line 2"),
        "{refused}"
    );
}

#[test]
fn a_file_that_is_missing_is_refused_by_its_path() {
    let args = CommonArgs {
        config: Some("/nowhere/shop.toml".into()),
        ..CommonArgs::default()
    };
    let error =
        load_from::<Shop>(&args, "SHOP", std::iter::empty(), Overrides::none()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "configuration file \"/nowhere/shop.toml\" cannot be read"
    );
}

#[test]
fn a_secret_is_read_and_never_shown() {
    let file = "[provider]\ntoken = \"hunter2\"\n";
    let loaded = load_shop(Some(file), &[], Overrides::none()).unwrap();
    assert_eq!(loaded.config.provider.token.expose(), "hunter2");
    let shown = [
        loaded.to_toml().to_owned(),
        format!("{loaded:?}"),
        loaded.config.provider.token.to_string(),
        refusal(Some("[provider]\ntoken = 8675309\n"), &[]),
    ];
    for shown in shown {
        assert!(
            !shown.contains("hunter2") && !shown.contains("8675309"),
            "{shown}"
        );
    }
}

#[test]
fn the_printed_configuration_reads_back_as_itself() {
    let loaded = load_shop(Some("title = \"Shop\"\n"), &[], Overrides::none()).unwrap();
    let again = load_shop(Some(loaded.to_toml()), &[], Overrides::none()).unwrap();
    assert_eq!(again.config, loaded.config);
}

#[test]
fn check_and_print_answer_instead_of_running() {
    #[derive(clap::Parser)]
    struct Args {
        #[command(flatten)]
        common: CommonArgs,
    }
    let loaded = load_shop(None, &[], Overrides::none()).unwrap();
    let answer = |flags: &[&str]| {
        let args = Args::try_parse_from([&["shop"], flags].concat()).unwrap();
        loaded.answer(&args.common)
    };
    assert_eq!(answer(&[]), None);
    assert_eq!(
        answer(&["--check-config"]).unwrap(),
        "configuration is valid\n"
    );
    assert!(
        answer(&["--print-config"])
            .unwrap()
            .contains("page_size_max = 100")
    );
}

#[test]
fn a_value_that_is_refused_later_is_named_with_its_source() {
    let file = "[destinations]\nproduct = \"ftp://product\"\n[provider]\ntoken = \"hush\"";
    let variables = [("SHOP__PAGE_SIZE_MAX", "7")];
    let loaded = load_shop(Some(file), &variables, Overrides::none()).unwrap();
    let refused = |key: &str| loaded.refuse(key, "is not for us").to_string();
    let destination = refused("destinations.product");
    assert!(destination.starts_with("file \""), "{destination}");
    let said = ".toml\": key \"destinations.product\": \"ftp://product\" is not for us";
    assert!(destination.ends_with(said), "{destination}");
    assert_eq!(
        refused("page_size_max"),
        "environment variable SHOP__PAGE_SIZE_MAX: key \"page_size_max\": 7 is not for us"
    );
    assert_eq!(
        refused("listen"),
        "key \"listen\": \"127.0.0.1:8080\" is not for us"
    );
    assert_eq!(refused("title"), "key \"title\": unset is not for us");
    assert!(!refused("provider.token").contains("hush"));
}
