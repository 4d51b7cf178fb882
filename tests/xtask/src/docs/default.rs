//! Reads the value of a default from the expression that makes it.
//!
//! Knows literals, arithmetic on them, constants of the same library and the usual conversions, not
//! arbitrary code: a default that takes more than that is not one that a reader could look up either.

use anyhow::{Context, Result, bail};
use syn::{BinOp, Expr, ExprCall, ExprLit, Lit, UnOp, punctuated::Punctuated};

use super::source::{File, Sources};

/// Where an expression stands: constants are looked for in its file, then in its library.
#[derive(Clone, Copy)]
pub(super) struct Scope<'a> {
    pub(super) sources: &'a Sources,
    pub(super) file: &'a File,
}

/// What an expression says.
#[derive(Debug, PartialEq)]
pub(super) enum Value {
    /// A value as TOML writes it, without quotes around text.
    Text(String),
    /// Nothing, or whatever the type's own default is.
    Unset,
    /// A path that is no constant here, such as an enum's variant.
    Path(String),
}

pub(super) fn value(scope: Scope<'_>, expression: &Expr) -> Result<Value> {
    let text = |text: String| Ok(Value::Text(text));
    match expression {
        Expr::Lit(ExprLit { lit, .. }) => match lit {
            Lit::Str(literal) => text(literal.value()),
            Lit::Bool(literal) => text(literal.value.to_string()),
            Lit::Int(literal) => text(literal.base10_digits().to_owned()),
            Lit::Float(literal) => text(literal.base10_digits().to_owned()),
            _ => bail!("a literal of this kind is no configuration value"),
        },
        Expr::Paren(inner) => value(scope, &inner.expr),
        Expr::Group(inner) => value(scope, &inner.expr),
        Expr::Reference(inner) => value(scope, &inner.expr),
        Expr::Cast(cast) => value(scope, &cast.expr),
        Expr::Unary(unary) if matches!(unary.op, UnOp::Neg(_)) => {
            text((-integer(scope, &unary.expr)?).to_string())
        }
        Expr::Binary(_) => text(integer(scope, expression)?.to_string()),
        Expr::Path(path) => named(scope, &path.path),
        // `"x".to_owned()`, `"127.0.0.1:1".parse().expect("…")`: a conversion of what stands before it.
        Expr::MethodCall(call) => value(scope, &call.receiver),
        Expr::Call(call) => called(scope, call),
        Expr::Array(array) => text(list(scope, array.elems.iter())?),
        Expr::Macro(call) if call.mac.path.is_ident("vec") => {
            let parse = Punctuated::<Expr, syn::Token![,]>::parse_terminated;
            text(list(scope, call.mac.parse_body_with(parse)?.iter())?)
        }
        // Known to the compiler alone, and not worth a stale page at each release.
        Expr::Macro(call) if call.mac.path.is_ident("env") => text(format!(
            "<{}>",
            call.mac.parse_body::<syn::LitStr>()?.value()
        )),
        Expr::Struct(literal) if literal.fields.is_empty() => Ok(Value::Unset),
        _ => bail!("write it as a literal or a constant"),
    }
}

fn named(scope: Scope<'_>, path: &syn::Path) -> Result<Value> {
    let names: Vec<_> = path
        .segments
        .iter()
        .map(|segment| segment.ident.to_string())
        .collect();
    match names.last().map(String::as_str) {
        Some("None") => Ok(Value::Unset),
        Some("LOCALHOST") => Ok(Value::Text("127.0.0.1".to_owned())),
        Some("UNSPECIFIED") => Ok(Value::Text("0.0.0.0".to_owned())),
        Some(_) => match scope.sources.constant(scope.file, &names) {
            Some((file, constant)) => value(Scope { file, ..scope }, constant),
            None => Ok(Value::Path(names.join("::"))),
        },
        None => bail!("an empty path"),
    }
}

/// A conversion (`Some(x)`, `PathBuf::from(x)`, `Secret::new(x)`) or the type's own default.
fn called(scope: Scope<'_>, call: &ExprCall) -> Result<Value> {
    let Expr::Path(function) = &*call.func else {
        bail!("write it as a literal")
    };
    let name = function
        .path
        .segments
        .last()
        .map(|segment| segment.ident.to_string());
    match (
        name.as_deref().unwrap_or_default(),
        call.args.iter().collect::<Vec<_>>().as_slice(),
    ) {
        ("default" | "new", []) => Ok(Value::Unset),
        ("from" | "new", [Expr::Tuple(pair)]) => address(scope, pair.elems.iter()),
        ("from" | "new" | "Some", [inner]) => value(scope, inner),
        ("new", parts @ [_, _]) => address(scope, parts.iter().copied()),
        _ => bail!("write it as a literal or a constant"),
    }
}

/// `([127, 0, 0, 1], 8080)` and `(Ipv4Addr::LOCALHOST, 8080)`.
fn address<'a>(scope: Scope<'_>, mut parts: impl Iterator<Item = &'a Expr>) -> Result<Value> {
    let mut part = || parts.next().context("an address has a host and a port");
    let host = match part()? {
        Expr::Array(octets) => {
            let octets = octets
                .elems
                .iter()
                .map(|octet| Ok(integer(scope, octet)?.to_string()));
            octets.collect::<Result<Vec<_>>>()?.join(".")
        }
        other => match value(scope, other)? {
            Value::Text(host) => host,
            _ => bail!("the host is not a literal"),
        },
    };
    Ok(Value::Text(format!("{host}:{}", integer(scope, part()?)?)))
}

fn list<'a>(scope: Scope<'_>, elements: impl Iterator<Item = &'a Expr>) -> Result<String> {
    let elements = elements.map(|element| match (element, value(scope, element)?) {
        (_, Value::Text(number)) if number.parse::<f64>().is_ok() => Ok(number),
        (_, Value::Text(text)) => Ok(format!("{text:?}")),
        _ => bail!("a list of something else than literals"),
    });
    Ok(format!(
        "[{}]",
        elements.collect::<Result<Vec<_>>>()?.join(", ")
    ))
}

fn integer(scope: Scope<'_>, expression: &Expr) -> Result<i128> {
    let Expr::Binary(binary) = expression else {
        return match value(scope, expression)? {
            Value::Text(digits) => digits
                .parse()
                .with_context(|| format!("{digits:?} is not an integer")),
            _ => bail!("write it as a literal or a constant"),
        };
    };
    let (left, right) = (
        integer(scope, &binary.left)?,
        integer(scope, &binary.right)?,
    );
    let result = match binary.op {
        BinOp::Add(_) => left.checked_add(right),
        BinOp::Sub(_) => left.checked_sub(right),
        BinOp::Mul(_) => left.checked_mul(right),
        BinOp::Div(_) => left.checked_div(right),
        BinOp::Shl(_) => u32::try_from(right)
            .ok()
            .and_then(|bits| left.checked_shl(bits)),
        _ => None,
    };
    result.context("arithmetic that is not known here")
}
