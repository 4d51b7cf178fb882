//! What the authors of services state about their methods, read once from the descriptors.
//!
//! Deliberately without mechanism: the layers look a method up here and act on it. HTTP rules are read
//! by the transcoder, not here.

use std::{collections::HashMap, fmt, str::FromStr, sync::Arc, time::Duration};

use prost_reflect::{
    DescriptorPool, ExtensionDescriptor, MethodDescriptor, Value, prost_types::method_options,
};

/// Who may call a method. Enforced by the edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// Callers without an API key, through the edge: the method authenticates them itself.
    Anyone,
    /// Clients, through the edge.
    Public,
    /// Operators, through the edge, with the scope `operator`.
    Operator,
    /// Other services only; also every method that states nothing.
    Internal,
}

/// How much it matters that a call succeeds, lowest first: the classes of "Site Reliability
/// Engineering", chapter 21.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Criticality {
    /// Full unavailability now and then is expected.
    Sheddable,
    /// Partial unavailability is expected.
    SheddablePlus,
    /// Losing it is visible to users. The default.
    Critical,
    /// Losing it costs money or data.
    CriticalPlus,
}

impl Criticality {
    /// The spelling in the header `mesh-criticality` and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sheddable => "sheddable",
            Self::SheddablePlus => "sheddable_plus",
            Self::Critical => "critical",
            Self::CriticalPlus => "critical_plus",
        }
    }
}

impl fmt::Display for Criticality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Criticality {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        [
            Self::Sheddable,
            Self::SheddablePlus,
            Self::Critical,
            Self::CriticalPlus,
        ]
        .into_iter()
        .find(|criticality| criticality.as_str() == text)
        .ok_or(())
    }
}

/// protobuf's own `idempotency_level`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idempotency {
    /// Nothing is known: a repeated call may do its work twice.
    Unknown,
    /// Reads only.
    NoSideEffects,
    /// Repeating it changes nothing more.
    Idempotent,
}

impl Idempotency {
    /// Whether the same request may be sent twice.
    pub fn is_repeatable(self) -> bool {
        match self {
            Self::Unknown => false,
            Self::NoSideEffects | Self::Idempotent => true,
        }
    }
}

/// What `mesh.v1.deadline_ms` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MethodDeadline {
    /// Nothing: the configured default counts.
    Default,
    /// The longest a call, with its whole stream, may take.
    Within(Duration),
    /// A stream without an end of its own (`deadline_ms = 0`).
    Unbounded,
}

/// One method of the contract.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct MethodContract {
    /// `/package.Service/Method`.
    pub path: String,
    /// `package.Service`.
    pub service: String,
    /// Who may call it.
    pub audience: Audience,
    /// How long it may take.
    pub deadline: MethodDeadline,
    /// How much it matters.
    pub criticality: Criticality,
    /// Whether it may be repeated.
    pub idempotency: Idempotency,
    /// Whether the request is a stream.
    pub client_streaming: bool,
    /// Whether the response is a stream.
    pub server_streaming: bool,
}

impl MethodContract {
    /// Whether either side is a stream.
    pub(crate) fn streams(&self) -> bool {
        self.client_streaming || self.server_streaming
    }
}

/// Why a descriptor set is not a contract.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ContractError {
    /// Not an encoded `FileDescriptorSet`, or one without its imports.
    #[error("descriptor set is not readable")]
    Descriptors(#[source] prost_reflect::DescriptorError),
    /// `deadline_ms = 0` means "a stream without an end".
    #[error("method \"{0}\" has deadline_ms = 0, which only a streaming method may have")]
    UnaryWithoutDeadline(String),
    /// A value of `mesh.v1` that this version does not know.
    #[error("method \"{method}\" has an unknown value of mesh.v1.{option}")]
    UnknownOption {
        /// `/package.Service/Method`.
        method: String,
        /// The option's name.
        option: &'static str,
    },
}

/// Every method of a descriptor set, by path. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Contract {
    descriptor_set: &'static [u8],
    methods: Arc<HashMap<String, Arc<MethodContract>>>,
}

impl Contract {
    /// Reads an encoded `FileDescriptorSet` that includes its imports.
    pub fn new(descriptor_set: &'static [u8]) -> Result<Self, ContractError> {
        // The options' own file comes first: a set that imports it holds the same file again, which is
        // skipped, and a set that does not still resolves the extensions.
        let mut pool = DescriptorPool::new();
        pool.decode_file_descriptor_set(mesh_proto::FILE_DESCRIPTOR_SET)
            .and_then(|()| pool.decode_file_descriptor_set(descriptor_set))
            .map_err(ContractError::Descriptors)?;
        let options = Options::of(&pool);
        let mut methods = HashMap::new();
        for method in pool
            .services()
            .flat_map(|s| s.methods().collect::<Vec<_>>())
        {
            let method = options.read(&method)?;
            methods.insert(method.path.clone(), Arc::new(method));
        }
        Ok(Self {
            descriptor_set,
            methods: Arc::new(methods),
        })
    }

    /// The method at `/package.Service/Method`.
    pub fn method(&self, path: &str) -> Option<&MethodContract> {
        self.methods.get(path).map(AsRef::as_ref)
    }

    /// All methods, in no particular order.
    pub fn methods(&self) -> impl Iterator<Item = &MethodContract> {
        self.methods.values().map(AsRef::as_ref)
    }

    /// Whether a service (`package.Service`) is part of the contract.
    pub fn has_service(&self, service: &str) -> bool {
        self.methods
            .values()
            .any(|method| method.service == service)
    }

    /// What the contract was read from, for reflection and for the edge.
    pub fn descriptor_set(&self) -> &'static [u8] {
        self.descriptor_set
    }

    /// The longest that a call of the method at `path` may take; `None`: for ever.
    pub(crate) fn deadline(&self, path: &str, default: Duration) -> Option<Duration> {
        match self.method(path).map(|method| method.deadline) {
            Some(MethodDeadline::Within(deadline)) => Some(deadline),
            Some(MethodDeadline::Unbounded) => None,
            // Health and reflection are part of every server, and streams without an end.
            None if is_housekeeping(path) => None,
            Some(MethodDeadline::Default) | None => Some(default),
        }
    }

    /// What [`Contract::deadline`] goes by, for errors.
    pub(crate) fn deadline_by(&self, path: &str) -> &'static str {
        match self.method(path).map(|method| method.deadline) {
            Some(MethodDeadline::Within(_)) => "mesh.v1.deadline_ms",
            _ => "mesh.deadline_default_ms",
        }
    }

    pub(crate) fn lookup(&self, path: &str) -> Option<Arc<MethodContract>> {
        self.methods.get(path).cloned()
    }
}

/// Whether a method is one of health or reflection, which every server has.
pub(crate) fn is_housekeeping(path: &str) -> bool {
    path.starts_with("/grpc.health.") || path.starts_with("/grpc.reflection.")
}

/// The name of the destination that serves a method: the last part of the package that is not a version,
/// `product` for `/commerce.product.v1.ProductService/GetProduct`. `None`: the package has no such part.
pub fn destination_of(path: &str) -> Option<&str> {
    let service = path.strip_prefix('/')?.split('/').next()?;
    let (package, _) = service.rsplit_once('.')?;
    let (rest, version) = package.rsplit_once('.')?;
    let is_version = version
        .strip_prefix('v')
        .is_some_and(|v| v.starts_with(|c: char| c.is_ascii_digit()));
    is_version.then(|| rest.rsplit('.').next().unwrap_or(rest))
}

/// The `mesh.v1` extensions of the pool.
struct Options {
    audience: ExtensionDescriptor,
    deadline_ms: ExtensionDescriptor,
    criticality: ExtensionDescriptor,
}

impl Options {
    fn of(pool: &DescriptorPool) -> Self {
        let extension = |name: &str| {
            pool.get_extension_by_name(name)
                .expect("mesh_proto's own descriptors were added first")
        };
        Self {
            audience: extension("mesh.v1.audience"),
            deadline_ms: extension("mesh.v1.deadline_ms"),
            criticality: extension("mesh.v1.criticality"),
        }
    }

    fn read(&self, method: &MethodDescriptor) -> Result<MethodContract, ContractError> {
        let service = method.parent_service().full_name().to_owned();
        let path = format!("/{service}/{}", method.name());
        let unknown = |option| ContractError::UnknownOption {
            method: path.clone(),
            option,
        };
        let stated = method.options();
        let number = |option| match &*stated.get_extension(option) {
            Value::EnumNumber(number) => *number,
            _ => 0,
        };
        let streaming = method.is_client_streaming() || method.is_server_streaming();
        let deadline = match (
            stated.has_extension(&self.deadline_ms),
            stated.get_extension(&self.deadline_ms).as_u32(),
        ) {
            (true, Some(0)) if streaming => MethodDeadline::Unbounded,
            (true, Some(0)) => return Err(ContractError::UnaryWithoutDeadline(path)),
            (true, Some(ms)) => MethodDeadline::Within(Duration::from_millis(ms.into())),
            (true, None) => return Err(unknown("deadline_ms")),
            (false, _) => MethodDeadline::Default,
        };
        Ok(MethodContract {
            audience: audience(number(&self.audience)).ok_or_else(|| unknown("audience"))?,
            deadline,
            criticality: criticality(number(&self.criticality))
                .ok_or_else(|| unknown("criticality"))?,
            idempotency: idempotency(method),
            client_streaming: method.is_client_streaming(),
            server_streaming: method.is_server_streaming(),
            service,
            path,
        })
    }
}

fn audience(number: i32) -> Option<Audience> {
    use mesh_proto::v1::Audience as Stated;
    Some(match Stated::try_from(number).ok()? {
        Stated::Anyone => Audience::Anyone,
        Stated::Public => Audience::Public,
        Stated::Operator => Audience::Operator,
        Stated::Unspecified | Stated::Internal => Audience::Internal,
    })
}

fn criticality(number: i32) -> Option<Criticality> {
    use mesh_proto::v1::Criticality as Stated;
    Some(match Stated::try_from(number).ok()? {
        Stated::CriticalPlus => Criticality::CriticalPlus,
        Stated::Unspecified | Stated::Critical => Criticality::Critical,
        Stated::SheddablePlus => Criticality::SheddablePlus,
        Stated::Sheddable => Criticality::Sheddable,
    })
}

fn idempotency(method: &MethodDescriptor) -> Idempotency {
    use method_options::IdempotencyLevel as Stated;
    let options = method.method_descriptor_proto().options.as_ref();
    match options.map_or(Stated::IdempotencyUnknown, |options| {
        options.idempotency_level()
    }) {
        Stated::IdempotencyUnknown => Idempotency::Unknown,
        Stated::NoSideEffects => Idempotency::NoSideEffects,
        Stated::Idempotent => Idempotency::Idempotent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{compile, descriptor_set};

    #[test]
    fn everything_that_a_method_states_is_read() {
        let contract = Contract::new(descriptor_set()).unwrap();
        let method = contract.method("/mesh.test.v1.TestService/Read").unwrap();
        assert_eq!(method.service, "mesh.test.v1.TestService");
        assert_eq!(method.audience, Audience::Public);
        assert_eq!(
            method.deadline,
            MethodDeadline::Within(Duration::from_secs(5))
        );
        assert_eq!(method.criticality, Criticality::SheddablePlus);
        assert_eq!(method.idempotency, Idempotency::NoSideEffects);
        assert!(!method.client_streaming && !method.server_streaming);
        assert_eq!(contract.methods().count(), 6);
    }

    #[test]
    fn what_is_not_stated_is_safe() {
        let contract = Contract::new(descriptor_set()).unwrap();
        let method = contract.method("/mesh.test.v1.TestService/Post").unwrap();
        assert_eq!(method.audience, Audience::Internal);
        assert_eq!(method.deadline, MethodDeadline::Default);
        assert_eq!(method.criticality, Criticality::Critical);
        assert_eq!(method.idempotency, Idempotency::Unknown);
    }

    #[test]
    fn a_stream_may_have_no_deadline_and_a_unary_call_may_not() {
        let contract = Contract::new(descriptor_set()).unwrap();
        let method = contract.method("/mesh.test.v1.TestService/Watch").unwrap();
        assert_eq!(method.deadline, MethodDeadline::Unbounded);
        assert!(method.server_streaming);

        let endless = compile(&[(
            "a.proto",
            "syntax = \"proto3\"; package a.v1; import \"mesh/v1/options.proto\"; message M {}
             service S { rpc Get(M) returns (M) { option (mesh.v1.deadline_ms) = 0; } }",
        )]);
        let error = Contract::new(endless).unwrap_err().to_string();
        assert!(error.contains("\"/a.v1.S/Get\""), "{error}");
    }

    #[test]
    fn a_contract_need_not_import_the_options() {
        let plain = compile(&[(
            "a.proto",
            "syntax = \"proto3\"; package a.v1; message M {}
             service S { rpc Get(M) returns (M); }",
        )]);
        let contract = Contract::new(plain).unwrap();
        assert_eq!(
            contract.method("/a.v1.S/Get").unwrap().audience,
            Audience::Internal
        );
        assert!(contract.has_service("a.v1.S") && !contract.has_service("a.v1.T"));
    }

    #[test]
    fn a_value_of_a_later_version_is_refused_and_not_guessed() {
        let later = compile(&[
            (
                "a.proto",
                "syntax = \"proto3\"; package a.v1; import \"mesh/v1/options.proto\"; message M {}
                 service S { rpc Get(M) returns (M) { option (mesh.v1.audience) = MARTIANS; } }",
            ),
            (
                "mesh/v1/options.proto",
                "syntax = \"proto3\"; package mesh.v1; import \"google/protobuf/descriptor.proto\";
                 enum Audience { AUDIENCE_UNSPECIFIED = 0; MARTIANS = 99; }
                 extend google.protobuf.MethodOptions { Audience audience = 50101; }",
            ),
        ]);
        let error = Contract::new(later).unwrap_err().to_string();
        assert_eq!(
            error,
            "method \"/a.v1.S/Get\" has an unknown value of mesh.v1.audience"
        );
    }

    #[test]
    fn bytes_that_are_no_descriptors_are_refused() {
        assert!(matches!(
            Contract::new(b"\xff\xff"),
            Err(ContractError::Descriptors(_))
        ));
    }

    #[test]
    fn health_and_reflection_have_no_deadline_and_strangers_have_the_default() {
        let contract = Contract::new(descriptor_set()).unwrap();
        let default = Duration::from_secs(9);
        let deadline = |path| contract.deadline(path, default);
        assert_eq!(deadline("/grpc.health.v1.Health/Watch"), None);
        assert_eq!(deadline("/mesh.test.v1.TestService/Watch"), None);
        assert_eq!(deadline("/mesh.test.v1.TestService/Post"), Some(default));
        assert_eq!(deadline("/x.y.Z/W"), Some(default));
    }

    #[test]
    fn a_destination_is_the_part_before_the_version() {
        for (path, destination) in [
            (
                "/commerce.product.v1.ProductService/GetProduct",
                Some("product"),
            ),
            ("/payment.v2beta1.Payments/Get", Some("payment")),
            ("/grpc.health.v1.Health/Check", Some("health")),
            ("/commerce.product.ProductService/GetProduct", None),
            ("/v1.Service/Get", None),
            ("/Service/Get", None),
            ("commerce.product.v1.ProductService/GetProduct", None),
            ("", None),
        ] {
            assert_eq!(destination_of(path), destination, "{path}");
        }
    }

    #[test]
    fn criticality_is_ordered_and_spelled() {
        assert!(Criticality::Sheddable < Criticality::SheddablePlus);
        assert!(Criticality::Critical < Criticality::CriticalPlus);
        assert_eq!("sheddable_plus".parse(), Ok(Criticality::SheddablePlus));
        assert_eq!("SHEDDABLE".parse::<Criticality>(), Err(()));
    }
}
