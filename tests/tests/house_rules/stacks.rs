//! ARCHITECTURE.md's lists of the two stacks: their files exist and stand in the order of the code.
//!
//! The layers' order is that of the `.layer(…)` calls. What stands before or after them is called by hand: of
//! such a file only that somebody above names it is checked.

use std::collections::BTreeSet;

use syn::visit::Visit;

use crate::{
    Violation, none, one,
    source::{self, Source, paths},
};

const SECTION: &str = "## The two stacks\n";
const FOLDER: &str = "mesh/rpc/src/";
/// How each list begins, and the file that stacks its layers.
const STACKS: [(&str, &str); 2] = [
    ("The client, ", "client/mod.rs"),
    ("The server, ", "server/mod.rs"),
];

fn stacks(architecture: &str, sources: &[Source]) -> Vec<Violation> {
    let section = architecture
        .split_once(SECTION)
        .map_or("", |(_, rest)| rest.split("\n## ").next().unwrap_or(rest));
    let mut violations = Vec::new();
    for (begins, code) in STACKS {
        let list = section.split_once(begins).map_or("", |(_, rest)| rest);
        let listed = listed(list);
        let mut stacking = sources.iter();
        let Some(stacking) = stacking.find(|source| source.path == format!("{FOLDER}{code}"))
        else {
            violations.push(Violation::new(code, "is where the layers were stacked"));
            continue;
        };
        let found = compare(&listed, stacking, sources);
        violations.extend(found.into_iter().map(|what| Violation::new(code, what)));
    }
    violations
}

/// The files of the first list in a text; a folder stands for its `mod.rs`.
fn listed(text: &str) -> Vec<String> {
    let lines = text.lines().skip_while(|line| !line.starts_with("1. "));
    let list = lines.take_while(|line| !line.is_empty());
    let items = list.filter_map(|line| line.split_once(". `")?.1.split_once('`'));
    items.map(|(file, _)| file.to_owned()).collect()
}

fn module(file: &str) -> &str {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.strip_suffix(".rs").unwrap_or(name)
}

fn compare(listed: &[String], stacking: &Source, sources: &[Source]) -> Vec<String> {
    let mut wrong = Vec::new();
    let source = |file: &str| {
        let paths = [format!("{FOLDER}{file}"), format!("{FOLDER}{file}/mod.rs")];
        sources.iter().find(|source| paths.contains(&source.path))
    };
    let names: Vec<&str> = listed.iter().map(|file| module(file)).collect();
    let stacked = layers(stacking);
    let layers: Vec<&str> = stacked.iter().map(String::as_str).collect();
    let at = names
        .windows(layers.len().max(1))
        .position(|part| part == layers);
    let Some(begin) = at.filter(|_| !layers.is_empty()) else {
        return vec![format!(
            "the code stacks {layers:?}, the list says {names:?}"
        )];
    };
    let end = begin + layers.len();
    // What is stacked by hand is named by whoever stacks, or by a file further up.
    let named = |source: &Source| paths(&source.syntax).into_iter().flatten();
    let mut above: BTreeSet<String> = named(stacking).collect();
    for (index, file) in listed.iter().enumerate() {
        let Some(source) = source(file) else {
            wrong.push(format!("\"{file}\" is listed and no file of {FOLDER}"));
            continue;
        };
        let is_layer = (begin..end).contains(&index);
        if !is_layer && !above.contains(module(file)) {
            wrong.push(format!(
                "\"{file}\" is named by no file that is listed above it"
            ));
        }
        above.extend(named(source));
    }
    wrong
}

/// The modules whose layers a file stacks, from outside in.
fn layers(source: &Source) -> Vec<String> {
    let mut layers = Layers(Vec::new());
    layers.visit_file(&source.syntax);
    layers.0
}

struct Layers(Vec<String>);

impl<'ast> Visit<'ast> for Layers {
    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        self.visit_expr(&call.receiver); // What stands before the dot is further out.
        let is_stacking = call.method == "layer" || call.method == "service";
        if let Some(syn::Expr::Call(made)) = call.args.first()
            && is_stacking
            && let syn::Expr::Path(function) = &*made.func
            && function.path.segments.len() > 1
        {
            self.0.push(function.path.segments[0].ident.to_string());
        }
    }
}

#[test]
fn the_stacks_are_listed_as_they_are_built() {
    let files = source::files();
    let architecture = files.iter().find(|(path, _)| path == "ARCHITECTURE.md");
    let (_, architecture) = architecture.expect("there is an ARCHITECTURE.md");
    none(&stacks(architecture, &Source::all()));
}

#[test]
fn a_list_that_differs_from_the_code_is_found() {
    let parse = |path: &str, text: &str| Source::parse(&format!("{FOLDER}{path}"), text);
    let sources = [
        parse(
            "client/mod.rs",
            "fn f() { B::new().layer(a::layer(x)).layer(b::layer()).service(c::C::new()) }",
        ),
        parse(
            "server/mod.rs",
            "fn f() { B::new().layer(a::layer()).service(routes) }",
        ),
        parse("a.rs", ""),
        parse("b.rs", ""),
        parse("c.rs", "use super::d::D;"),
        parse("d.rs", "use super::e::E;"),
        parse("e/mod.rs", ""),
    ];
    let plant = |client: &[&str]| {
        let lines = client.iter().enumerate();
        let lines =
            lines.map(|(index, file)| format!("{}. `{file}`: why\n   it is there.", index + 1));
        let list = lines.collect::<Vec<_>>().join("\n");
        let text = format!(
            "{SECTION}\nThe client, from:\n\n{list}\n\nThe server, from:\n\n1. `a.rs`: why.\n"
        );
        stacks(&text, &sources)
    };
    none(&plant(&["a.rs", "b.rs", "c.rs", "d.rs", "e"]));
    one(
        &plant(&["b.rs", "a.rs", "c.rs"]),
        "client/mod.rs: the code stacks",
    );
    one(
        &plant(&["a.rs", "c.rs", "d.rs"]),
        "client/mod.rs: the code stacks",
    );
    one(&plant(&[]), "client/mod.rs: the code stacks");
    one(
        &plant(&["a.rs", "b.rs", "c.rs", "e", "d.rs"]),
        "\"e\" is named by no file",
    );
    one(
        &plant(&["a.rs", "b.rs", "c.rs", "f.rs"]),
        "\"f.rs\" is listed and no file",
    );
}
