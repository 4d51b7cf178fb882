//! The files of the checkout, read and parsed once per test.

use std::{fs, path::Path};

use syn::visit::Visit;

/// A Rust file.
pub(crate) struct Source {
    /// From the root, such as `services/payment/src/ledger.rs`.
    pub(crate) path: String,
    pub(crate) text: String,
    pub(crate) syntax: syn::File,
}

impl Source {
    /// Whether the file holds nothing but tests: `tests.rs` beside the code, or a folder `tests/`.
    pub(crate) fn is_tests(&self) -> bool {
        self.path.ends_with("/tests.rs") || self.path.contains("/tests/")
    }

    /// A file as if it stood at `path`.
    pub(crate) fn parse(path: &str, text: &str) -> Source {
        let syntax = syn::parse_file(text).unwrap_or_else(|error| panic!("{path}: {error}"));
        Source {
            path: path.to_owned(),
            text: text.to_owned(),
            syntax,
        }
    }

    /// Every Rust file of the checkout.
    pub(crate) fn all() -> Vec<Source> {
        let files = files().into_iter().filter(|(path, _)| is_kind(path, "rs"));
        files
            .map(|(path, text)| Source::parse(&path, &text))
            .collect()
    }
}

/// Every text file of the checkout as path from the root and content, except what others wrote: lock
/// files, licences, and what a tool made.
pub(crate) fn files() -> Vec<(String, String)> {
    let root = xtask::checkout::root();
    let mut files = Vec::new();
    collect(&root, &root, &mut files);
    files.sort();
    assert!(
        files.len() > 50,
        "the checkout has only {} files",
        files.len()
    );
    files
}

fn collect(root: &Path, folder: &Path, files: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).expect("a folder of the checkout is readable") {
        let path = entry.expect("a folder of the checkout is readable").path();
        let name = path
            .file_name()
            .expect("an entry has a name")
            .to_string_lossy()
            .into_owned();
        let relative = path
            .strip_prefix(root)
            .expect("below the root")
            .to_string_lossy()
            .into_owned();
        if path.is_dir() {
            let own = !name.starts_with('.') || name == ".ci" || name == ".cargo";
            if own && !["target", "data", "node_modules"].contains(&name.as_str()) {
                collect(root, &path, files);
            }
        } else if !name.ends_with("lock")
            && !name.contains("-lock.")
            && !name.starts_with("LICENSE")
        {
            // What is not UTF-8 is no text, and none of these rules speaks of it.
            if let Ok(text) = fs::read_to_string(&path) {
                files.push((relative, text));
            }
        }
    }
}

/// Whether a path ends with `.kind`.
pub(crate) fn is_kind(path: &str, kind: &str) -> bool {
    Path::new(path)
        .extension()
        .is_some_and(|extension| extension == kind)
}

/// Every path that a file names, in code and in `use`, as its segments; without its unit tests and
/// without what macros hide.
pub(crate) fn paths(file: &syn::File) -> Vec<Vec<String>> {
    let mut paths = Paths(Vec::new());
    paths.visit_file(file);
    paths.0
}

struct Paths(Vec<Vec<String>>);

impl<'ast> Visit<'ast> for Paths {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !for_tests(&item.attrs) {
            syn::visit::visit_item_mod(self, item);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.0.push(
            path.segments
                .iter()
                .map(|segment| segment.ident.to_string())
                .collect(),
        );
        syn::visit::visit_path(self, path);
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        flatten(&item.tree, &[], &mut self.0);
    }
}

/// Whether an item is compiled for tests only.
pub(crate) fn for_tests(attributes: &[syn::Attribute]) -> bool {
    let mut configured = attributes
        .iter()
        .filter(|attribute| attribute.path().is_ident("cfg"));
    configured.any(|attribute| {
        attribute
            .parse_args::<syn::Path>()
            .is_ok_and(|path| path.is_ident("test"))
    })
}

fn flatten(tree: &syn::UseTree, above: &[String], paths: &mut Vec<Vec<String>>) {
    let with = |name: &syn::Ident| [above, &[name.to_string()]].concat();
    match tree {
        syn::UseTree::Path(path) => flatten(&path.tree, &with(&path.ident), paths),
        syn::UseTree::Group(group) => {
            group
                .items
                .iter()
                .for_each(|tree| flatten(tree, above, paths));
        }
        syn::UseTree::Name(name) => paths.push(with(&name.ident)),
        syn::UseTree::Rename(rename) => paths.push(with(&rename.ident)),
        syn::UseTree::Glob(_) => paths.push(above.to_vec()),
    }
}

#[test]
fn paths_are_found_in_use_in_types_and_in_calls() {
    let source = Source::parse(
        "a.rs",
        "use a::{b::C, d as e}; fn f(x: g::H) -> i::J<k::L> { m::n() }
         #[cfg(test)] mod tests { use x::Y; }",
    );
    let found: Vec<_> = paths(&source.syntax)
        .iter()
        .map(|path| path.join("::"))
        .collect();
    assert!(!found.iter().any(|path| path == "x::Y"), "{found:?}");
    for expected in ["a::b::C", "a::d", "g::H", "i::J", "k::L", "m::n"] {
        assert!(
            found.iter().any(|path| path == expected),
            "{expected} in {found:?}"
        );
    }
}
