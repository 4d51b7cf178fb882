//! SQL stands only in `store/`, in `mesh/store` and in migrations; tests may use it too.

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::Visit;

use crate::{
    Violation, none, one,
    source::{Source, for_tests},
};

/// Files beyond the stores that may hold SQL, and why.
const EXCEPTIONS: [(&str, &str); 1] = [(
    "tests/",
    "the checker of invariants reads the databases by its own SQL, so that it shares no bug with them",
)];

/// The first word of a statement, and a word that must follow somewhere for the text to be one.
const STATEMENTS: [(&str, &str); 12] = [
    ("SELECT", "FROM"),
    ("INSERT", "INTO"),
    ("REPLACE", "INTO"),
    ("UPDATE", "SET"),
    ("DELETE", "FROM"),
    ("CREATE", "TABLE"),
    ("CREATE", "INDEX"),
    ("ALTER", "TABLE"),
    ("DROP", "TABLE"),
    ("WITH", "SELECT"),
    ("BEGIN", "IMMEDIATE"),
    ("PRAGMA", "PRAGMA"),
];

fn statements(sources: &[Source]) -> Vec<Violation> {
    let mut violations = Vec::new();
    for source in sources {
        let excepted = source.is_tests()
            || EXCEPTIONS
                .iter()
                .any(|(path, _)| source.path.starts_with(path));
        if excepted || source.path.contains("/store/") || source.path.ends_with("/store.rs") {
            continue;
        }
        let mut texts = Texts(Vec::new());
        texts.visit_file(&source.syntax);
        for (line, text) in texts.0 {
            if is_statement(&text) {
                let what = format!("SQL belongs into store/: {:?}", text.trim());
                violations.push(Violation::new(format!("{}:{line}", source.path), what));
            }
        }
    }
    violations
}

fn is_statement(text: &str) -> bool {
    let text = text.to_uppercase();
    let mut words = text.split_whitespace();
    let Some(first) = words.next() else {
        return false;
    };
    let rest: Vec<_> = words.collect();
    STATEMENTS.iter().any(|(start, then)| {
        first == *start && (rest.contains(then) || (start == then && !rest.is_empty()))
    })
}

/// Every string of a file with its line; comments are not code, macros are.
struct Texts(Vec<(usize, String)>);

impl Texts {
    fn tokens(&mut self, tokens: TokenStream) {
        for token in tokens {
            match token {
                TokenTree::Group(group) => self.tokens(group.stream()),
                TokenTree::Literal(literal) => {
                    let line = literal.span().start().line;
                    if let Ok(text) = syn::parse_str::<syn::LitStr>(&literal.to_string()) {
                        self.0.push((line, text.value()));
                    }
                }
                _ => {}
            }
        }
    }
}

impl<'ast> Visit<'ast> for Texts {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !for_tests(&item.attrs) {
            syn::visit::visit_item_mod(self, item);
        }
    }

    fn visit_attribute(&mut self, _: &'ast syn::Attribute) {}

    fn visit_lit_str(&mut self, text: &'ast syn::LitStr) {
        self.0.push((text.span().start().line, text.value()));
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.tokens(call.tokens.clone());
    }
}

#[test]
fn sql_stands_in_stores_only() {
    none(&statements(&Source::all()));
}

#[test]
fn sql_elsewhere_is_found() {
    let plant = |path: &str, text: &str| statements(&[Source::parse(path, text)]);
    let domain = "services/payment/src/ledger.rs";
    one(
        &plant(domain, "const Q: &str = \"select id\\n from payments\";"),
        "ledger.rs:1",
    );
    one(
        &plant(domain, "fn f() { q(r#\"PRAGMA synchronous\"#) }"),
        "PRAGMA",
    );
    one(
        &plant(domain, "fn f() { x!(a, { format!(\"DELETE FROM {t}\") }) }"),
        "DELETE FROM",
    );
    none(&plant(
        "services/payment/src/store/sqlite.rs",
        "const Q: &str = \"SELECT 1 FROM t\";",
    ));
    none(&plant(
        domain,
        "/// Select one from the list.\nfn f() { g(\"update failed\") }",
    ));
}
