//! The shape of files and functions, and words that must not be in them.

use syn::{
    Attribute, ImplItemFn, ItemFn, Meta, Signature, TraitItemFn, spanned::Spanned, visit::Visit,
};

use crate::{
    Violation, none, one,
    source::{self, Source, is_kind, paths},
};

const FUNCTION_LINES_MAX: usize = 100;
const FILE_LINES_MAX: usize = 800;

/// What people write by hand and others have to read.
const WRITTEN: [&str; 5] = ["rs", "proto", "sql", "py", "sh"];

fn long_files(files: &[(String, String)]) -> Vec<Violation> {
    let written = files
        .iter()
        .filter(|(path, _)| WRITTEN.iter().any(|kind| is_kind(path, kind)));
    let long = written.filter(|(_, text)| text.lines().count() > FILE_LINES_MAX);
    long.map(|(path, text)| {
        let what = format!(
            "has {} lines, more than {FILE_LINES_MAX}: find the seam",
            text.lines().count()
        );
        Violation::new(path, what)
    })
    .collect()
}

/// From the `fn` line to the closing brace; clippy's own limit leaves out comments and blank lines.
fn long_functions(sources: &[Source]) -> Vec<Violation> {
    let mut violations = Vec::new();
    for source in sources {
        let mut functions = Functions(Vec::new());
        functions.visit_file(&source.syntax);
        for (name, first, last) in functions.0 {
            let lines = last - first + 1;
            if lines > FUNCTION_LINES_MAX {
                let what = format!("`{name}` has {lines} lines, more than {FUNCTION_LINES_MAX}");
                violations.push(Violation::new(format!("{}:{first}", source.path), what));
            }
        }
    }
    violations
}

/// Name, first and last line of every function.
struct Functions(Vec<(String, usize, usize)>);

impl Functions {
    fn add(&mut self, signature: &Signature, body: &syn::Block) {
        let (first, last) = (signature.span().start().line, body.span().end().line);
        self.0.push((signature.ident.to_string(), first, last));
    }
}

impl<'ast> Visit<'ast> for Functions {
    fn visit_item_fn(&mut self, item: &'ast ItemFn) {
        self.add(&item.sig, &item.block);
        syn::visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast ImplItemFn) {
        self.add(&item.sig, &item.block);
        syn::visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast TraitItemFn) {
        if let Some(body) = &item.default {
            self.add(&item.sig, body);
        }
        syn::visit::visit_trait_item_fn(self, item);
    }
}

/// Attributes that hide something: a test that is not run, a lint that is silenced without a reason.
fn attributes(sources: &[Source]) -> Vec<Violation> {
    let mut violations = Vec::new();
    for source in sources {
        let mut attributes = Attributes(Vec::new());
        attributes.visit_file(&source.syntax);
        for (line, what) in attributes.0 {
            violations.push(Violation::new(format!("{}:{line}", source.path), what));
        }
    }
    violations
}

struct Attributes(Vec<(usize, &'static str)>);

impl<'ast> Visit<'ast> for Attributes {
    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        let reason = || match &attribute.meta {
            Meta::List(list) => list.tokens.to_string().contains("reason ="),
            _ => false,
        };
        let what = if attribute.path().is_ident("ignore") {
            "a test is run or deleted, not ignored"
        } else if attribute.path().is_ident("allow") {
            "expect(lint, reason = \"…\") instead of allow: it says why, and when it is not needed any more"
        } else if attribute.path().is_ident("expect") && !reason() {
            "expect a lint with a reason"
        } else {
            return;
        };
        self.0.push((attribute.span().start().line, what));
    }
}

fn sleeps(sources: &[Source]) -> Vec<Violation> {
    let mut violations = Vec::new();
    for source in sources {
        let sleeps = paths(&source.syntax)
            .into_iter()
            .filter(|path| path.ends_with(&["thread".to_owned(), "sleep".to_owned()]));
        for _ in sleeps {
            violations.push(Violation::new(
                &source.path,
                "thread::sleep blocks; wait for what is awaited",
            ));
        }
    }
    violations
}

/// Places of one machine have no meaning on another.
fn machine_paths(files: &[(String, String)]) -> Vec<Violation> {
    let homes = ["home", "root", "Users", "work"].map(|folder| format!("/{folder}/"));
    let mut violations = Vec::new();
    for (path, text) in files {
        for (index, line) in text.lines().enumerate() {
            // Within a longer path, such as `https://example.com/home/`, it is no folder of a machine.
            let starts = |at: usize| {
                let before = line[..at].chars().next_back();
                before.is_none_or(|character| {
                    !character.is_alphanumeric() && !"._-/}*".contains(character)
                })
            };
            if homes
                .iter()
                .any(|home| line.match_indices(home.as_str()).any(|(at, _)| starts(at)))
            {
                let place = format!("{path}:{}", index + 1);
                violations.push(Violation::new(
                    place,
                    format!("names a folder of one machine: {}", line.trim()),
                ));
            }
        }
    }
    violations
}

/// A module opens with what it is for; tests beside the code say it by their names.
fn unexplained(sources: &[Source]) -> Vec<Violation> {
    let explained = |source: &&Source| {
        source
            .syntax
            .attrs
            .iter()
            .any(|attribute| attribute.path().is_ident("doc"))
    };
    let silent = sources.iter().filter(|source| {
        !explained(source) && !source.is_tests() && !source.text.trim().is_empty()
    });
    silent
        .map(|source| Violation::new(&source.path, "does not say what it is for (`//!`)"))
        .collect()
}

#[test]
fn no_file_is_too_long() {
    none(&long_files(&source::files()));
}

#[test]
fn a_long_file_is_found() {
    let plant = |path: &str, lines| long_files(&[(path.to_owned(), "\n".repeat(lines))]);
    one(&plant("a.rs", 801), "a.rs: has 801 lines");
    none(&plant("a.rs", 800));
    none(&plant("a.csv", 801));
}

#[test]
fn no_function_is_too_long() {
    none(&long_functions(&Source::all()));
}

#[test]
fn a_long_function_is_found() {
    let plant = |lines: usize| {
        let body = "// …\n".repeat(lines - 2);
        long_functions(&[Source::parse(
            "a.rs",
            &format!("impl A {{\n/// F.\nfn f() {{\n{body}}} }}"),
        )])
    };
    one(&plant(101), "a.rs:3: `f` has 101 lines");
    none(&plant(100));
}

#[test]
fn no_test_is_ignored_and_no_lint_silenced() {
    none(&attributes(&Source::all()));
}

#[test]
fn an_ignored_test_and_a_bare_allow_are_found() {
    let plant = |text: &str| attributes(&[Source::parse("a.rs", text)]);
    one(
        &plant("#[test]\n#[ignore]\nfn t() {}"),
        "a.rs:2: a test is run",
    );
    one(
        &plant("#[test]\n#[ignore = \"slow\"]\nfn t() {}"),
        "a test is run",
    );
    one(
        &plant("fn f() { #[allow(dead_code)] let x = 1; }"),
        "instead of allow",
    );
    one(
        &plant("#![allow(missing_docs, reason = \"none\")]"),
        "instead of allow",
    );
    one(&plant("#[expect(dead_code)]\nfn f() {}"), "with a reason");
    none(&plant("#[expect(dead_code, reason = \"soon\")]\nfn f() {}"));
}

#[test]
fn nothing_sleeps_on_a_thread() {
    none(&sleeps(&Source::all()));
}

#[test]
fn a_sleep_is_found() {
    let plant = |text: &str| sleeps(&[Source::parse("a.rs", text)]);
    one(&plant("fn f() { std::thread::sleep(d) }"), "thread::sleep");
    one(&plant("use std::thread::{sleep, spawn};"), "thread::sleep");
    none(&plant("async fn f() { tokio::time::sleep(d).await }"));
}

#[test]
fn no_file_names_a_folder_of_one_machine() {
    none(&machine_paths(&source::files()));
}

#[test]
fn a_machine_path_is_found() {
    let plant = |text: String| machine_paths(&[("README.md".to_owned(), text)]);
    one(
        &plant(format!("see\n`/{}/me/notes`", "home")),
        "README.md:2",
    );
    one(&plant(format!("cd /{}/main", "work")), "one machine");
    none(&plant(format!(
        "https://example.com/{}/x and GET /v1/{}/",
        "home", "work"
    )));
}

#[test]
fn every_file_says_what_it_is_for() {
    none(&unexplained(&Source::all()));
}

#[test]
fn a_file_without_a_word_is_found() {
    one(
        &unexplained(&[Source::parse("a.rs", "/// F.\nfn f() {}")]),
        "what it is for",
    );
    none(&unexplained(&[Source::parse("a.rs", "//! A.\nfn f() {}")]));
}
