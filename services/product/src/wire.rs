//! Domain values as messages of the contract: for answers, events and the change log.
//!
//! The other direction is in `grpc.rs`: only requests are read.

use kernel::Money;
use proto::commerce::{money::v1 as money, product::v1 as pb};

use crate::{
    listing::View,
    product::{Status, Variant},
    reservation::{Line, Reservation, State},
    stock::Stock,
};

/// A product as it is shown.
pub fn product(view: &View) -> pb::Product {
    let product = &view.product;
    let variants = product.variants.iter().zip(&view.available);
    let revenue = view
        .sales
        .revenue
        .iter()
        .map(|(code, amount_minor)| money::Money {
            currency_code: code.clone(),
            amount_minor: *amount_minor,
        });
    pb::Product {
        id: product.id.to_string(),
        title: product.title.clone(),
        description_html: product.description_html.clone(),
        vendor: product.vendor.clone(),
        category: product.category.clone(),
        tags: product.tags.clone(),
        status: status(product.status).into(),
        handle: product.handle.clone(),
        variants: variants
            .map(|(variant, available)| self::variant(variant, *available))
            .collect(),
        sold_quantity: view.sales.quantity,
        revenue: revenue.collect(),
        etag: product.etag(),
        create_time: Some(timestamp(product.created_at_us)),
        update_time: Some(timestamp(product.updated_at_us)),
        delete_time: product.deleted_at_us.map(timestamp),
    }
}

fn variant(variant: &Variant, available: i32) -> pb::Variant {
    let options = variant.options.iter().map(|option| pb::variant::Option {
        name: option.name.clone(),
        value: option.value.clone(),
    });
    pb::Variant {
        sku: variant.sku.clone(),
        options: options.collect(),
        prices: variant.prices.iter().copied().map(self::money).collect(),
        available_quantity: available,
        initial_quantity: None,
        barcode: variant.barcode.clone(),
        weight_grams: variant.weight_grams,
    }
}

fn status(status: Status) -> pb::product::Status {
    match status {
        Status::Active => pb::product::Status::Active,
        Status::Draft => pb::product::Status::Draft,
        Status::Archived => pb::product::Status::Archived,
    }
}

/// The units of a variant.
pub fn stock(stock: &Stock) -> pb::Stock {
    pb::Stock {
        sku: stock.sku.clone(),
        on_hand: stock.on_hand,
        reserved: stock.held(),
        available: stock.available(),
    }
}

/// A reservation as stored; see [`Reservation::seen_at`].
pub fn reservation(reservation: &Reservation) -> pb::Reservation {
    let state = match reservation.state {
        State::Held => pb::reservation::State::Held,
        State::Committed => pb::reservation::State::Committed,
        State::Released => pb::reservation::State::Released,
        State::Expired => pb::reservation::State::Expired,
    };
    pb::Reservation {
        id: reservation.id.to_string(),
        reference: reservation.reference.clone(),
        state: state.into(),
        lines: reservation.lines.iter().map(line).collect(),
        expire_time: Some(timestamp(reservation.expires_at_us)),
        create_time: Some(timestamp(reservation.created_at_us)),
    }
}

fn line(line: &Line) -> pb::ReservationLine {
    pb::ReservationLine {
        sku: line.sku.clone(),
        quantity: line.quantity,
        product_id: line.product_id.to_string(),
        title: line.title.clone(),
        category: line.category.clone(),
        unit_price: Some(money(line.unit_price)),
        committed_quantity: line.committed,
        restocked_quantity: line.restocked,
    }
}

fn money(money: Money) -> money::Money {
    money::Money {
        currency_code: money.currency().code().to_owned(),
        amount_minor: money.amount_minor(),
    }
}

/// A moment as the contract writes it.
pub fn timestamp(us: i64) -> prost_types::Timestamp {
    let nanos = i32::try_from(us.rem_euclid(1_000_000) * 1_000).expect("below 10^9");
    prost_types::Timestamp {
        seconds: us.div_euclid(1_000_000),
        nanos,
    }
}
