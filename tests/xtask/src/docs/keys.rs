//! From a service's root struct to the list of its keys.

use anyhow::{Context, Result, bail};
use syn::{Attribute, Expr, Field, FieldValue, GenericArgument, Lit, Meta, PathArguments, Type};

use super::{
    default::{self, Scope, Value},
    source::{File, Sources},
};

/// One key of a configuration.
#[derive(Debug)]
pub struct Key {
    /// Its place in the file, such as `mesh.client.waiting_max`.
    pub name: String,
    /// The environment variable that overrides it.
    pub variable: String,
    /// What it holds, in words.
    pub kind: String,
    /// Its default as written in TOML without quotes; empty when it is unset.
    pub default: String,
    /// What it means, from the doc comment.
    pub meaning: String,
}

/// Stands between prefix and names in a variable, where one underscore is part of a name.
const NESTING: &str = "__";
const DEPTH_MAX: usize = 8;

/// The keys below a type that `here` names, in order.
pub(super) fn keys(
    sources: &Sources,
    here: &File,
    root: &syn::Path,
    prefix: &str,
) -> Result<Vec<Key>> {
    let mut walk = Walk {
        sources,
        prefix,
        keys: Vec::new(),
    };
    let (file, name) = sources
        .resolve(here, root)?
        .filter(|(file, name)| file.structs.contains_key(name))
        .context("the type that it loads is no struct of this workspace")?;
    let given = given(here, root, file, &name)?;
    walk.fields(file, &name, &[], &[], &given)?;
    Ok(walk.keys)
}

/// What stands for a type parameter: its name, the type, and the file that names it.
struct Given<'a> {
    parameter: String,
    kind: Type,
    file: &'a File,
}

/// What stands for the parameters of the root struct, where it has some: what `here` says, else their defaults.
fn given<'a>(
    here: &'a File,
    root: &syn::Path,
    file: &'a File,
    name: &str,
) -> Result<Vec<Given<'a>>> {
    let stated = root.segments.last().map(|segment| &segment.arguments);
    let mut stated = stated.map_or_else(Vec::new, kinds).into_iter();
    let parameters = file.structs[name].generics.type_params();
    parameters
        .map(|parameter| {
            let given = match (stated.next(), &parameter.default) {
                (Some(kind), _) => (kind.clone(), here),
                (None, Some(kind)) => (kind.clone(), file),
                (None, None) => bail!("{name} is loaded without its {}", parameter.ident),
            };
            Ok(Given {
                parameter: parameter.ident.to_string(),
                kind: given.0,
                file: given.1,
            })
        })
        .collect()
}

struct Walk<'a> {
    sources: &'a Sources,
    prefix: &'a str,
    keys: Vec<Key>,
}

impl Walk<'_> {
    /// Adds the keys of a struct. `overrides` are the fields that the struct around it sets otherwise, `given` its type
    /// parameters.
    fn fields(
        &mut self,
        file: &File,
        name: &str,
        above: &[String],
        overrides: &[&FieldValue],
        given: &[Given<'_>],
    ) -> Result<()> {
        if above.len() > DEPTH_MAX {
            bail!("{name} is nested more than {DEPTH_MAX} deep");
        }
        let item = &file.structs[name];
        let own = match file.defaults.get(name) {
            Some(Expr::Struct(value)) => value.fields.iter().collect(),
            Some(_) => bail!(
                "Default of {}'s {name} is not one struct literal",
                file.package
            ),
            None => Vec::new(),
        };
        for field in &item.fields {
            let ident = field
                .ident
                .as_ref()
                .context("a configuration has named fields only")?;
            let serde = Serde::of(&field.attrs)?;
            if serde.skip {
                continue;
            }
            let set = |fields: &[&FieldValue]| {
                let found = fields.iter().find(|value| match &value.member {
                    syn::Member::Named(member) => member == ident,
                    syn::Member::Unnamed(_) => false,
                });
                found.map(|value| value.expr.clone())
            };
            let value = set(overrides).or_else(|| set(&own));
            let mut path = above.to_vec();
            if !serde.flatten {
                path.push(serde.rename.unwrap_or_else(|| ident.to_string()));
            }
            let key = path.join(".");
            if documentation(&field.attrs).is_empty() {
                bail!(
                    "field `{key}` of {}'s {name} has no doc comment",
                    file.package
                );
            }
            let given = given.iter().find(|given| {
                matches!(&field.ty, Type::Path(kind) if kind.path.is_ident(&given.parameter))
            });
            let (file, kind) = given.map_or((file, &field.ty), |given| (given.file, &given.kind));
            self.field(file, field, kind, &path, value.as_ref())
                .with_context(|| format!("in {}'s {name}", file.package))?;
        }
        Ok(())
    }

    fn field(
        &mut self,
        file: &File,
        field: &Field,
        kind: &Type,
        path: &[String],
        value: Option<&Expr>,
    ) -> Result<()> {
        let key = path.join(".");
        let (optional, kind) = unwrap_option(kind);
        let scope = Scope {
            sources: self.sources,
            file,
        };
        if let Type::Path(named) = kind
            && let Some((home, name)) = self.sources.resolve(file, &named.path)?
        {
            if home
                .structs
                .get(&name)
                .is_some_and(|item| matches!(item.fields, syn::Fields::Named(_)))
            {
                let overrides: Vec<_> = match value {
                    None => Vec::new(),
                    Some(Expr::Struct(literal)) => literal.fields.iter().collect(),
                    Some(value) => match default::value(scope, value) {
                        Ok(Value::Unset) => Vec::new(),
                        _ => bail!("the default of `{key}` cannot be read: write a struct literal"),
                    },
                };
                return self.fields(home, &name, path, &overrides, &[]);
            }
            if let Some(item) = home.enums.get(&name) {
                let names = variants(item)?;
                let default = match value
                    .map(|value| default::value(scope, value))
                    .transpose()?
                {
                    Some(Value::Path(path)) => {
                        let variant = path.rsplit("::").next().unwrap_or_default();
                        let found = names.iter().find(|(ident, _)| ident == variant);
                        found.map_or_else(String::new, |(_, shown)| shown.clone())
                    }
                    _ => default_variant(item, &names),
                };
                let kind = names
                    .iter()
                    .map(|(_, shown)| shown.as_str())
                    .collect::<Vec<_>>()
                    .join(", ");
                return self.add(path, kind, default, field);
            }
        }
        let kind = words(kind);
        let unset = if optional { "" } else { zero(&kind) };
        let default = match value {
            None => unset.to_owned(),
            Some(value) => match default::value(scope, value)
                .with_context(|| format!("the default of `{key}` cannot be read"))?
            {
                Value::Text(text) => text,
                Value::Unset => unset.to_owned(),
                Value::Path(path) => bail!("the default of `{key}` cannot be read: {path}"),
            },
        };
        self.add(path, kind, default, field)
    }

    fn add(&mut self, path: &[String], kind: String, default: String, field: &Field) -> Result<()> {
        let name = path.join(".");
        let meaning = without_default(&name, &documentation(&field.attrs), &default)?;
        let variable = [&[self.prefix.to_owned()], path]
            .concat()
            .join(NESTING)
            .to_uppercase();
        self.keys.push(Key {
            name,
            variable,
            kind,
            default,
            meaning,
        });
        Ok(())
    }
}

/// Drops a `Default: N.` that says what the code says; one that says something else is an error.
fn without_default(key: &str, meaning: &str, default: &str) -> Result<String> {
    let Some((before, after)) = meaning.split_once("Default: ") else {
        return Ok(meaning.to_owned());
    };
    let end = after
        .find(". ")
        .or(after.strip_suffix('.').map(str::len))
        .unwrap_or(after.len());
    let stated = after[..end].trim_matches('`');
    let number: String = stated
        .chars()
        .filter(|character| *character != '_')
        .collect();
    if number == default {
        let rest = after.get(end + 1..).unwrap_or_default();
        return Ok(format!("{before}{}", rest.trim_start())
            .trim_end()
            .to_owned());
    }
    if number.parse::<f64>().is_ok() {
        bail!("`{key}`: the comment says {stated}, the code {default}");
    }
    Ok(meaning.to_owned())
}

/// The doc comment as one paragraph.
fn documentation(attributes: &[Attribute]) -> String {
    let lines = attributes
        .iter()
        .filter_map(|attribute| match &attribute.meta {
            Meta::NameValue(meta) if meta.path.is_ident("doc") => match &meta.value {
                Expr::Lit(literal) => match &literal.lit {
                    Lit::Str(text) => Some(text.value().trim().to_owned()),
                    _ => None,
                },
                _ => None,
            },
            _ => None,
        });
    lines
        .filter(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

/// What serde's attributes change about a name.
#[derive(Default)]
struct Serde {
    rename: Option<String>,
    rename_all: Option<String>,
    flatten: bool,
    skip: bool,
}

impl Serde {
    fn of(attributes: &[Attribute]) -> Result<Serde> {
        let mut serde = Serde::default();
        for attribute in attributes
            .iter()
            .filter(|attribute| attribute.path().is_ident("serde"))
        {
            attribute.parse_nested_meta(|meta| {
                let text = |meta: &syn::meta::ParseNestedMeta<'_>| {
                    Ok::<_, syn::Error>(meta.value()?.parse::<syn::LitStr>()?.value())
                };
                if meta.path.is_ident("rename") {
                    serde.rename = Some(text(&meta)?);
                } else if meta.path.is_ident("rename_all") {
                    serde.rename_all = Some(text(&meta)?);
                } else if meta.path.is_ident("flatten") {
                    serde.flatten = true;
                } else if meta.path.is_ident("skip") || meta.path.is_ident("skip_deserializing") {
                    serde.skip = true;
                } else if meta.input.peek(syn::Token![=]) {
                    meta.value()?.parse::<Expr>()?;
                }
                Ok(())
            })?;
        }
        Ok(serde)
    }
}

/// Each variant of an enum: its name in the code and in a file.
fn variants(item: &syn::ItemEnum) -> Result<Vec<(String, String)>> {
    let style = Serde::of(&item.attrs)?.rename_all;
    let names = item.variants.iter().map(|variant| {
        let ident = variant.ident.to_string();
        let shown = match (Serde::of(&variant.attrs)?.rename, style.as_deref()) {
            (Some(name), _) => name,
            (None, Some("lowercase")) => ident.to_lowercase(),
            (None, Some("snake_case")) => separated(&ident, '_'),
            (None, Some("kebab-case")) => separated(&ident, '-'),
            (None, Some("SCREAMING_SNAKE_CASE")) => separated(&ident, '_').to_uppercase(),
            (None, Some(other)) => bail!("rename_all = {other:?} is not known here"),
            (None, None) => ident.clone(),
        };
        Ok((ident, shown))
    });
    names.collect()
}

fn default_variant(item: &syn::ItemEnum, names: &[(String, String)]) -> String {
    let marked = item.variants.iter().position(|variant| {
        variant
            .attrs
            .iter()
            .any(|attribute| attribute.path().is_ident("default"))
    });
    marked.map_or_else(String::new, |index| names[index].1.clone())
}

fn separated(ident: &str, separator: char) -> String {
    let mut name = String::new();
    for character in ident.chars() {
        if character.is_uppercase() && !name.is_empty() {
            name.push(separator);
        }
        name.extend(character.to_lowercase());
    }
    name
}

fn unwrap_option(kind: &Type) -> (bool, &Type) {
    match (last_name(kind).as_str(), arguments(kind).as_slice()) {
        ("Option", [inner]) => (true, inner),
        _ => (false, kind),
    }
}

/// A type in words.
fn words(kind: &Type) -> String {
    let name = last_name(kind);
    match (name.as_str(), arguments(kind).as_slice()) {
        ("bool", _) => "boolean".to_owned(),
        ("f32" | "f64", _) => "number".to_owned(),
        ("String" | "Secret", _) => "text".to_owned(),
        ("PathBuf", _) => "path".to_owned(),
        ("SocketAddr", _) => "address:port".to_owned(),
        ("Vec" | "BTreeSet" | "HashSet", [inner]) => format!("list of {}", words(inner)),
        ("BTreeMap" | "HashMap", [_, inner]) => format!("table of {}", words(inner)),
        _ if name.trim_start_matches(['u', 'i']).parse::<u8>().is_ok() => "integer".to_owned(),
        ("usize" | "isize" | "NonZeroUsize" | "NonZeroU32" | "NonZeroU64", _) => {
            "integer".to_owned()
        }
        _ => name,
    }
}

/// What a type's own `Default` is in TOML.
fn zero(kind: &str) -> &'static str {
    match kind {
        "boolean" => "false",
        "integer" => "0",
        "number" => "0.0",
        _ if kind.starts_with("list") => "[]",
        _ if kind.starts_with("table") => "{}",
        _ => "",
    }
}

fn last_name(kind: &Type) -> String {
    match kind {
        Type::Path(path) => path
            .path
            .segments
            .last()
            .map_or_else(String::new, |s| s.ident.to_string()),
        _ => String::new(),
    }
}

fn arguments(kind: &Type) -> Vec<&Type> {
    let Type::Path(path) = kind else {
        return Vec::new();
    };
    let arguments = path.path.segments.last().map(|segment| &segment.arguments);
    arguments.map_or_else(Vec::new, kinds)
}

/// The types between angle brackets.
fn kinds(arguments: &PathArguments) -> Vec<&Type> {
    let PathArguments::AngleBracketed(arguments) = arguments else {
        return Vec::new();
    };
    arguments
        .args
        .iter()
        .filter_map(|argument| match argument {
            GenericArgument::Type(kind) => Some(kind),
            _ => None,
        })
        .collect()
}
