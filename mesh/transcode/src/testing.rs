//! Contracts for the tests, compiled on the spot.

use std::sync::OnceLock;

use protox::file::{
    ChainFileResolver, File, FileResolver, GoogleFileResolver, IncludeFileResolver,
};

use crate::{Router, Schema};

/// One `.proto` text under the name `t.proto`.
struct Text(String);

impl FileResolver for Text {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        if name == "t.proto" {
            File::from_source(name, &self.0)
        } else {
            Err(protox::Error::file_not_found(name))
        }
    }
}

fn compile(source: &str) -> Vec<u8> {
    let mut resolver = ChainFileResolver::new();
    resolver.add(Text(source.to_owned()));
    resolver.add(IncludeFileResolver::new(mesh_proto::PROTO_ROOT.into()));
    resolver.add(GoogleFileResolver::new());
    let mut compiler = protox::Compiler::with_file_resolver(resolver);
    compiler.include_imports(true).include_source_info(true);
    compiler.open_file("t.proto").unwrap();
    compiler.encode_file_descriptor_set()
}

/// The contract of `tests/proto/library.proto`.
pub(crate) fn library() -> &'static (Schema, Router) {
    static LIBRARY: OnceLock<(Schema, Router)> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let source = include_str!("../tests/proto/library.proto");
        let schema = Schema::decode(&compile(source)).unwrap();
        let router = Router::new(&schema, |_| true).unwrap();
        (schema, router)
    })
}

/// A contract with one method `t.S.M` that carries this rule.
pub(crate) fn schema_with_rule(rule: &str, input: &str) -> Schema {
    small(&format!(
        "rpc M({input} Request) returns (Request) {{ option (google.api.http) = {{ {rule} }}; }}"
    ))
}

/// A contract with one method for each rule, `t.S.M0` and so on.
pub(crate) fn schema_of(rules: &[&str]) -> Schema {
    let method = |(i, rule)| {
        format!(
            "rpc M{i}(Request) returns (Request) {{ option (google.api.http) = {{ {rule} }}; }}\n"
        )
    };
    small(&rules.iter().enumerate().map(method).collect::<String>())
}

/// The router of [`schema_of`].
pub(crate) fn router_of(rules: &[&str]) -> Router {
    Router::new(&schema_of(rules), |_| true).unwrap()
}

fn small(methods: &str) -> Schema {
    let source = format!(
        r#"syntax = "proto3";
        package t;
        import "google/api/annotations.proto";
        service S {{ {methods} }}
        message Inner {{ string id = 1; }}
        message Request {{
          string name = 1;
          string title = 2;
          repeated string names = 3;
          Inner inner = 4;
          map<string, string> map = 5;
        }}"#
    );
    Schema::decode(&compile(&source)).unwrap()
}
