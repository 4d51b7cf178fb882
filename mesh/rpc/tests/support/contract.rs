//! The contract that the mesh's own tests are written against, compiled from its text.

use std::sync::OnceLock;

use protox::file::{
    ChainFileResolver, File, FileResolver, GoogleFileResolver, IncludeFileResolver,
};

/// One method for each thing that a contract can say.
const PROTO: &str = r#"
syntax = "proto3";
package mesh.test.v1;
import "mesh/v1/options.proto";

message Text { string text = 1; }

service TestService {
  rpc Read(Text) returns (Text) {
    option idempotency_level = NO_SIDE_EFFECTS;
    option (mesh.v1.audience) = PUBLIC;
    option (mesh.v1.deadline_ms) = 5000;
    option (mesh.v1.criticality) = SHEDDABLE_PLUS;
  }
  rpc Put(Text) returns (Text) {
    option idempotency_level = IDEMPOTENT;
    option (mesh.v1.audience) = OPERATOR;
    option (mesh.v1.criticality) = CRITICAL_PLUS;
  }
  rpc Post(Text) returns (Text);
  rpc Watch(Text) returns (stream Text) { option (mesh.v1.deadline_ms) = 0; }
  rpc Export(Text) returns (stream Text) { option (mesh.v1.deadline_ms) = 60000; }
  rpc Import(stream Text) returns (Text) { option (mesh.v1.deadline_ms) = 60000; }
}
"#;

/// Files that lie in the test's text.
struct Inline(Vec<(&'static str, String)>);

impl FileResolver for Inline {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        let found = self.0.iter().find(|(held, _)| *held == name);
        let (_, source) = found.ok_or_else(|| protox::Error::file_not_found(name))?;
        File::from_source(name, source)
    }
}

/// The descriptor set of the first of some `.proto` files, with its imports.
pub(crate) fn compile(files: &[(&'static str, &str)]) -> &'static [u8] {
    let mut resolver = ChainFileResolver::new();
    resolver.add(Inline(
        files
            .iter()
            .map(|(name, text)| (*name, (*text).to_owned()))
            .collect(),
    ));
    resolver.add(IncludeFileResolver::new(mesh_proto::PROTO_ROOT.into()));
    resolver.add(GoogleFileResolver::new());
    let mut compiler = protox::Compiler::with_file_resolver(resolver);
    compiler
        .include_imports(true)
        .open_file(files[0].0)
        .expect("the test's proto compiles");
    Box::leak(compiler.encode_file_descriptor_set().into_boxed_slice())
}

/// The descriptor set of `mesh.test.v1.TestService`.
pub(crate) fn descriptor_set() -> &'static [u8] {
    static COMPILED: OnceLock<&'static [u8]> = OnceLock::new();
    COMPILED.get_or_init(|| compile(&[("mesh/test/v1/test.proto", PROTO)]))
}
