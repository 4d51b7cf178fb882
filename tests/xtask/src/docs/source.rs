//! The structs, enums and constants of the workspace, found by package and name.

use std::{collections::HashMap, fs, path::Path};

use anyhow::{Context, Result, bail};
use syn::{
    Attribute, Expr, ExprCall, ExprLit, GenericArgument, ImplItem, Item, ItemEnum, ItemImpl,
    ItemStruct, Lit, PathArguments, Stmt, Type, UseTree, visit::Visit,
};

use crate::checkout;

/// One Rust file: its library's name, its path from the root, its text.
#[derive(Clone, Copy, Debug)]
pub struct Unit<'a> {
    /// The name of the library it belongs to, such as `mesh_runtime`.
    pub package: &'a str,
    /// Where it lies, from the root.
    pub path: &'a str,
    /// Its content.
    pub text: &'a str,
}

/// All parsed files.
pub struct Sources {
    files: Vec<File>,
}

/// One parsed file, with what configuration is made of picked out.
pub(super) struct File {
    pub(super) package: String,
    path: String,
    /// What `use` brings in: the name here to the library and name there.
    imports: HashMap<String, (String, String)>,
    pub(super) structs: HashMap<String, ItemStruct>,
    pub(super) enums: HashMap<String, ItemEnum>,
    pub(super) constants: HashMap<String, Expr>,
    /// The value of each type's `default()`.
    pub(super) defaults: HashMap<String, Expr>,
    /// The prefix and the type with which the file calls `config::load`, if it does.
    load: Option<(String, syn::Path)>,
}

impl Sources {
    /// Reads every library and program of the workspace below `root`.
    pub fn read(root: &Path) -> Result<Sources> {
        let metadata = checkout::metadata()?;
        let mut files = Vec::new();
        for package in metadata["packages"].as_array().into_iter().flatten() {
            let manifest = Path::new(package["manifest_path"].as_str().unwrap_or_default());
            let folder = manifest.parent().unwrap_or(root).join("src");
            let targets = package["targets"].as_array().into_iter().flatten();
            let library = targets.clone().find(|target| target["kind"][0] == "lib");
            let name = library.unwrap_or(&package["targets"][0])["name"]
                .as_str()
                .unwrap_or_default();
            read_folder(root, &folder, name, &mut files)?;
        }
        Ok(Sources { files })
    }

    /// Parses texts.
    pub fn parse<'a>(units: impl IntoIterator<Item = Unit<'a>>) -> Result<Sources> {
        let files = units.into_iter().map(File::parse).collect::<Result<_>>()?;
        Ok(Sources { files })
    }

    /// Each program that calls `config::load`: its name, the prefix of its variables, the file that calls
    /// and the type that it names, by name.
    pub(super) fn loads(&self) -> Vec<(&str, &str, &File, &syn::Path)> {
        let services = self
            .files
            .iter()
            .filter(|file| file.path.starts_with("services/"));
        let mut loads: Vec<_> = services
            .filter_map(|file| {
                let (prefix, root) = file.load.as_ref()?;
                Some((file.program(), prefix.as_str(), file, root))
            })
            .collect();
        loads.sort_by_key(|(name, ..)| *name);
        loads
    }

    /// A constant that `here` names, and the file that it stands in: this one, else the one of the module
    /// that the path names, else the only one of the library that has it.
    pub(super) fn constant(&self, here: &File, path: &[String]) -> Option<(&File, &Expr)> {
        let name = path.last()?;
        let found: Vec<_> = self
            .files
            .iter()
            .filter(|file| file.package == here.package)
            .filter_map(|file| Some((file, file.constants.get(name)?)))
            .collect();
        let in_module = |module: &String, file: &File| {
            file.path.ends_with(&format!("/{module}.rs"))
                || file.path.ends_with(&format!("/{module}/mod.rs"))
        };
        let named = path.len().checked_sub(2).map(|index| &path[index]);
        found
            .iter()
            .find(|(file, _)| path.len() == 1 && std::ptr::eq(*file, here))
            .or_else(|| {
                found
                    .iter()
                    .find(|(file, _)| named.is_some_and(|name| in_module(name, file)))
            })
            .or(if let [only] = found.as_slice() {
                Some(only)
            } else {
                None
            })
            .copied()
    }

    /// The file and the name under which a type that `here` mentions is defined, if the workspace does.
    pub(super) fn resolve(&self, here: &File, path: &syn::Path) -> Result<Option<(&File, String)>> {
        let names: Vec<_> = path
            .segments
            .iter()
            .map(|segment| segment.ident.to_string())
            .collect();
        let (first, name) = (&names[0], names[names.len() - 1].clone());
        let library = |name: &String| self.files.iter().any(|file| file.package == *name);
        let (package, name) = if names.len() > 1 && library(first) {
            (first.clone(), name)
        } else if let Some((package, original)) = here.imports.get(first) {
            let package = if library(package) {
                package
            } else {
                &here.package
            };
            (
                package.clone(),
                if names.len() > 1 {
                    name
                } else {
                    original.clone()
                },
            )
        } else {
            (here.package.clone(), name)
        };
        let found: Vec<_> = self
            .files
            .iter()
            .filter(|file| file.package == package)
            .filter(|file| file.structs.contains_key(&name) || file.enums.contains_key(&name))
            .collect();
        let by_module = |file: &&&File| {
            names.len() > 1
                && file
                    .path
                    .ends_with(&format!("/{}.rs", names[names.len() - 2]))
        };
        let nearest = found
            .iter()
            .find(|file| std::ptr::eq(**file, here))
            .or_else(|| found.iter().find(by_module));
        match (nearest, found.as_slice()) {
            (Some(file), _) | (None, [file]) => Ok(Some((file, name))),
            (None, []) => Ok(None),
            (None, _) => bail!("{package} has several types {name}: qualify it with its module"),
        }
    }
}

fn read_folder(root: &Path, folder: &Path, package: &str, files: &mut Vec<File>) -> Result<()> {
    let mut entries = fs::read_dir(folder)?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>>>()?;
    entries.sort();
    for path in entries {
        if path.is_dir() {
            read_folder(root, &path, package, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path)?;
            let relative = path.strip_prefix(root).unwrap_or(&path).to_string_lossy();
            files.push(File::parse(Unit {
                package,
                path: &relative,
                text: &text,
            })?);
        }
    }
    Ok(())
}

impl File {
    /// The name of the program that the file is the main one of: its own below `bin/`, else the package's.
    fn program(&self) -> &str {
        let own = self.path.rsplit_once("/src/bin/");
        let named = own.and_then(|(_, file)| file.strip_suffix(".rs"));
        named.unwrap_or(&self.package)
    }

    fn parse(unit: Unit<'_>) -> Result<File> {
        let syntax =
            syn::parse_file(unit.text).with_context(|| format!("{} is not Rust", unit.path))?;
        let mut file = File {
            package: unit.package.to_owned(),
            path: unit.path.to_owned(),
            imports: HashMap::new(),
            structs: HashMap::new(),
            enums: HashMap::new(),
            constants: HashMap::new(),
            defaults: HashMap::new(),
            load: None,
        };
        let mut load = Load(None);
        load.visit_file(&syntax);
        file.load = load.0;
        file.take(syntax.items);
        Ok(file)
    }

    fn take(&mut self, items: Vec<Item>) {
        for item in items {
            match item {
                Item::Struct(item) => drop(self.structs.insert(item.ident.to_string(), item)),
                Item::Enum(item) => drop(self.enums.insert(item.ident.to_string(), item)),
                Item::Const(item) => {
                    self.constants.insert(item.ident.to_string(), *item.expr);
                }
                Item::Use(item) => import(&item.tree, None, &mut self.imports),
                Item::Impl(item) => {
                    if let Some((name, value)) = default_impl(item) {
                        self.defaults.insert(name, value);
                    }
                }
                Item::Mod(item) if !is_test(&item.attrs) => {
                    self.take(item.content.map_or_else(Vec::new, |(_, items)| items));
                }
                _ => {}
            }
        }
    }
}

fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute
                .parse_args::<syn::Path>()
                .is_ok_and(|path| path.is_ident("test"))
    })
}

fn import(tree: &UseTree, root: Option<&str>, imports: &mut HashMap<String, (String, String)>) {
    let mut add = |here: String, there: String| {
        imports.insert(here, (root.unwrap_or_default().to_owned(), there));
    };
    match tree {
        UseTree::Path(path) => {
            let name = path.ident.to_string();
            import(&path.tree, Some(root.unwrap_or(&name)), imports);
        }
        UseTree::Group(group) => group
            .items
            .iter()
            .for_each(|tree| import(tree, root, imports)),
        UseTree::Name(name) => add(name.ident.to_string(), name.ident.to_string()),
        UseTree::Rename(rename) => add(rename.rename.to_string(), rename.ident.to_string()),
        UseTree::Glob(_) => {}
    }
}

/// The type and the value of an `impl Default`, when its function is one expression.
fn default_impl(item: ItemImpl) -> Option<(String, Expr)> {
    let (_, of, _) = item.trait_?;
    let Type::Path(this) = *item.self_ty else {
        return None;
    };
    if of.segments.last()?.ident != "Default" {
        return None;
    }
    let name = this.path.segments.last()?.ident.to_string();
    item.items.into_iter().find_map(|item| match item {
        ImplItem::Fn(function) => match function.block.stmts.into_iter().last() {
            Some(Stmt::Expr(value, None)) => Some((name.clone(), value)),
            _ => None,
        },
        _ => None,
    })
}

/// Finds `config::load::<Type>(…, "PREFIX", …)`.
struct Load(Option<(String, syn::Path)>);

impl<'ast> Visit<'ast> for Load {
    fn visit_expr_call(&mut self, call: &'ast ExprCall) {
        let prefix = call.args.iter().find_map(|argument| match argument {
            Expr::Lit(ExprLit {
                lit: Lit::Str(prefix),
                ..
            }) => Some(prefix.value()),
            _ => None,
        });
        if let Expr::Path(function) = &*call.func
            && let [.., module, name] = function.path.segments.iter().collect::<Vec<_>>().as_slice()
            && module.ident == "config"
            && name.ident == "load"
            && let PathArguments::AngleBracketed(arguments) = &name.arguments
            && let Some(GenericArgument::Type(Type::Path(root))) = arguments.args.first()
            && let Some(prefix) = prefix
        {
            self.0 = Some((prefix, root.path.clone()));
        }
        syn::visit::visit_expr_call(self, call);
    }
}
