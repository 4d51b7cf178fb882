//! Requests as values of the domain. Everything that is wrong is named at once, in the contract's
//! spelling.

use std::collections::BTreeMap;

use bytes::Bytes;
use kernel::{Currency, Invalid, Money, text};
use mesh_store::idempotency::{self, Key};
use prost::Message;
use proto::commerce::product::v1 as pb;

use crate::{
    error::Error,
    product::{Draft, Field, Status, VARIANTS_MAX, Variant, VariantDraft, VariantOption},
    reservation::{self, Part, REFERENCE_CHARACTERS_MAX, Wish},
    stock::DELTA_MAX,
    transfer::Report,
};

/// The longest reason of an adjustment, in characters.
const REASON_CHARACTERS_MAX: usize = 200;

/// A request that carries the caller's key.
pub(super) trait Keyed: Message + Clone {
    /// The method's path.
    const METHOD: &'static str;
    /// Whether the key must be there.
    const REQUIRED: bool;
    /// The key.
    fn request_id(&mut self) -> &mut String;
}

macro_rules! keyed {
    ($($request:ident $method:literal $required:literal;)*) => {$(
        impl Keyed for pb::$request {
            const METHOD: &'static str = concat!("/commerce.product.v1.ProductService/", $method);
            const REQUIRED: bool = $required;
            fn request_id(&mut self) -> &mut String {
                &mut self.request_id
            }
        }
    )*};
}

keyed! {
    CreateProductRequest "CreateProduct" false;
    UpdateProductRequest "UpdateProduct" false;
    DeleteProductRequest "DeleteProduct" false;
    UndeleteProductRequest "UndeleteProduct" false;
    AdjustStockRequest "AdjustStock" false;
    ReserveStockRequest "ReserveStock" true;
    ExtendReservationRequest "ExtendReservation" true;
    CommitReservationRequest "CommitReservation" true;
    ReleaseReservationRequest "ReleaseReservation" true;
    RestockReservationRequest "RestockReservation" true;
}

/// The key of a request, scoped to who calls which method; `None` where it has none.
pub(super) fn key<R: Keyed>(request: &R, principal: &str) -> Result<Option<Key>, Error> {
    let mut canonical = request.clone();
    let request_id = std::mem::take(canonical.request_id());
    text::request_id(&request_id)?;
    if request_id.is_empty() {
        if R::REQUIRED {
            return Err(Error::invalid("request_id", "must not be empty"));
        }
        return Ok(None);
    }
    Ok(Some(Key {
        principal: principal.to_owned(),
        method: R::METHOD.to_owned(),
        request_id,
        fingerprint: idempotency::fingerprint(&canonical.encode_to_vec()),
    }))
}

/// A value of a field, or what is wrong with it.
pub(super) fn parsed<T, E: std::fmt::Display>(
    field: &str,
    parsed: Result<T, E>,
) -> Result<T, Vec<Invalid>> {
    parsed.map_err(|error| vec![Invalid::new(field, error.to_string())])
}

/// Every element of a repeated field, or all that is wrong with them.
pub(super) fn each<T>(
    field: &str,
    values: &[String],
    read: impl Fn(&str, &str) -> Result<T, Vec<Invalid>>,
) -> Result<Vec<T>, Vec<Invalid>> {
    let mut good = Vec::with_capacity(values.len());
    let mut invalid = Vec::new();
    for (index, value) in values.iter().enumerate() {
        match read(&format!("{field}[{index}]"), value) {
            Ok(value) => good.push(value),
            Err(mut wrong) => invalid.append(&mut wrong),
        }
    }
    if invalid.is_empty() {
        Ok(good)
    } else {
        Err(invalid)
    }
}

/// Both values, or all that is wrong with either.
pub(super) fn both<A, B>(
    a: Result<A, Vec<Invalid>>,
    b: Result<B, Vec<Invalid>>,
) -> Result<(A, B), Error> {
    match (a, b) {
        (Ok(a), Ok(b)) => Ok((a, b)),
        (a, b) => Err(Error::Invalid(
            a.err()
                .into_iter()
                .flatten()
                .chain(b.err().into_iter().flatten())
                .collect(),
        )),
    }
}

/// A currency.
pub(super) fn currency(field: &str, code: &str) -> Result<Currency, Error> {
    Ok(super::currency(field, code)?)
}

/// A product as a caller describes it. Its output fields are ignored.
pub(super) fn draft(product: Option<&pb::Product>) -> Result<Draft, Error> {
    let product = product.ok_or_else(|| Error::invalid("product", "must be given"))?;
    let mut invalid = Vec::new();
    let status = status(product.status).unwrap_or_else(|wrong| {
        invalid.push(wrong);
        None
    });
    if product.variants.len() > VARIANTS_MAX {
        let reason = format!("must have at most {VARIANTS_MAX} variants");
        return Err(Error::invalid("product.variants", reason));
    }
    let variants = product.variants.iter().enumerate();
    let variants = variants.map(|(index, variant)| self::variant(index, variant, &mut invalid));
    let draft = Draft {
        title: product.title.clone(),
        description_html: product.description_html.clone(),
        vendor: product.vendor.clone(),
        category: product.category.clone(),
        tags: product.tags.clone(),
        status,
        handle: product.handle.clone(),
        variants: variants.collect(),
    };
    if invalid.is_empty() {
        Ok(draft)
    } else {
        Err(Error::Invalid(invalid))
    }
}

fn status(number: i32) -> Result<Option<Status>, Invalid> {
    match pb::product::Status::try_from(number) {
        Ok(pb::product::Status::Unspecified) => Ok(None),
        Ok(pb::product::Status::Active) => Ok(Some(Status::Active)),
        Ok(pb::product::Status::Draft) => Ok(Some(Status::Draft)),
        Ok(pb::product::Status::Archived) => Ok(Some(Status::Archived)),
        Err(_) => Err(Invalid::new(
            "product.status",
            format!("{number} is not a status"),
        )),
    }
}

fn variant(index: usize, variant: &pb::Variant, invalid: &mut Vec<Invalid>) -> VariantDraft {
    let mut prices = Vec::with_capacity(variant.prices.len());
    for (place, price) in variant.prices.iter().enumerate() {
        let at = format!("product.variants[{index}].prices[{place}]");
        let money = super::currency(&format!("{at}.currency_code"), &price.currency_code).and_then(
            |currency| {
                let money = Money::new(currency, price.amount_minor);
                money.map_err(|error| error.at(format!("{at}.amount_minor")))
            },
        );
        match money {
            Ok(money) => prices.push(money),
            Err(wrong) => invalid.push(wrong),
        }
    }
    let option = |option: &pb::variant::Option| VariantOption {
        name: option.name.clone(),
        value: option.value.clone(),
    };
    VariantDraft {
        variant: Variant {
            sku: variant.sku.clone(),
            options: variant.options.iter().map(option).collect(),
            prices,
            barcode: variant.barcode.clone(),
            weight_grams: variant.weight_grams,
            columns: BTreeMap::new(),
        },
        initial_quantity: variant.initial_quantity,
    }
}

/// The fields that an update without a mask means: those that are set.
pub(super) fn fields_set(product: &pb::Product) -> Vec<Field> {
    let set = |field: Field| match field {
        Field::Title => !product.title.is_empty(),
        Field::DescriptionHtml => !product.description_html.is_empty(),
        Field::Vendor => !product.vendor.is_empty(),
        Field::Category => !product.category.is_empty(),
        Field::Tags => !product.tags.is_empty(),
        Field::Status => product.status != 0,
        Field::Handle => !product.handle.is_empty(),
        Field::Variants => !product.variants.is_empty(),
    };
    Field::ALL
        .into_iter()
        .map(|(_, field)| field)
        .filter(|field| set(*field))
        .collect()
}

/// A piece of a file. Only the first one has to name the currency.
pub(super) fn piece(
    message: pb::ImportProductsRequest,
    currency: Currency,
) -> Result<Bytes, Error> {
    if !message.currency_code.is_empty() && message.currency_code != currency.code() {
        return Err(Error::invalid(
            "currency_code",
            "differs from that of the first message",
        ));
    }
    Ok(message.file.unwrap_or_default().data.into())
}

/// Why the next piece of a file did not come.
pub(super) fn broken_off(status: tonic::Status) -> Error {
    match status.code() {
        tonic::Code::OutOfRange | tonic::Code::ResourceExhausted => {
            Error::invalid("file", "has a piece that is longer than a message may be")
        }
        _ => Error::BrokenOff,
    }
}

/// What an import did.
pub(super) fn report(report: Report) -> pb::ImportProductsResponse {
    let number = |count: u32| i32::try_from(count).unwrap_or(i32::MAX);
    let refused =
        report
            .refused
            .into_iter()
            .map(|refusal| pb::import_products_response::RefusedRow {
                line: number(refusal.line),
                column: refusal.column,
                reason: refusal.reason,
            });
    pb::ImportProductsResponse {
        created: number(report.created),
        updated: number(report.updated),
        unchanged: number(report.unchanged),
        refused: refused.collect(),
        refused_count: number(report.refused_count),
    }
}

/// An adjustment of stock.
pub(super) fn check_adjustment(request: &pb::AdjustStockRequest) -> Result<(), Error> {
    let mut invalid = Vec::new();
    invalid.extend(text::sku("sku", &request.sku).err());
    if request.delta == 0 || request.delta.unsigned_abs() > DELTA_MAX.unsigned_abs() {
        let reason = format!("must be -{DELTA_MAX} to {DELTA_MAX}, and not 0");
        invalid.push(Invalid::new("delta", reason));
    }
    let reason = text::bounded("reason", &request.reason, 1, REASON_CHARACTERS_MAX);
    let reason = reason.and_then(|()| text::refuse_card_number("reason", &request.reason));
    invalid.extend(reason.err());
    if invalid.is_empty() {
        Ok(())
    } else {
        Err(Error::Invalid(invalid))
    }
}

/// What somebody wants to have held.
pub(super) fn wish(
    request: &pb::ReserveStockRequest,
    ttl_default_us: i64,
    now_us: i64,
) -> Result<Wish, Error> {
    let mut invalid = Vec::new();
    let reference = text::bounded("reference", &request.reference, 1, REFERENCE_CHARACTERS_MAX);
    let reference =
        reference.and_then(|()| text::refuse_card_number("reference", &request.reference));
    invalid.extend(reference.err());
    if request.lines.is_empty() {
        invalid.push(Invalid::new("lines", "must be at least one line"));
    }
    let line = |line: &pb::reserve_stock_request::Line| Part {
        sku: line.sku.clone(),
        quantity: line.quantity,
    };
    let parts: Vec<Part> = request.lines.iter().map(line).collect();
    invalid.extend(
        reservation::check_parts("lines", &parts)
            .err()
            .into_iter()
            .flatten(),
    );
    let ttl = request
        .ttl
        .as_ref()
        .map_or(Ok(ttl_default_us), |ttl| ttl_us(Some(ttl)));
    let expires = ttl.and_then(|ttl_us| reservation::expiry("ttl", ttl_us, now_us));
    let currency = super::currency("currency_code", &request.currency_code);
    match (currency, expires) {
        (Ok(currency), Ok(expires_at_us)) if invalid.is_empty() => Ok(Wish {
            reference: request.reference.clone(),
            parts,
            currency,
            expires_at_us,
        }),
        (currency, expires) => {
            invalid.extend(currency.err().into_iter().chain(expires.err()));
            Err(Error::Invalid(invalid))
        }
    }
}

/// A duration in microseconds.
pub(super) fn ttl_us(ttl: Option<&prost_types::Duration>) -> Result<i64, Invalid> {
    let ttl = ttl.ok_or_else(|| Invalid::new("ttl", "must be given"))?;
    let seconds_us = ttl.seconds.checked_mul(1_000_000);
    seconds_us
        .and_then(|us| us.checked_add(i64::from(ttl.nanos) / 1_000))
        .ok_or_else(|| Invalid::new("ttl", "is out of range"))
}

/// Lines with quantities.
pub(super) fn parts(lines: &[pb::ReservationLineQuantity]) -> Result<Vec<Part>, Vec<Invalid>> {
    let part = |line: &pb::ReservationLineQuantity| Part {
        sku: line.sku.clone(),
        quantity: line.quantity,
    };
    let parts: Vec<Part> = lines.iter().map(part).collect();
    reservation::check_parts("lines", &parts)?;
    Ok(parts)
}
