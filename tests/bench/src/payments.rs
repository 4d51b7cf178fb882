//! New payments, and whole purchases, through gRPC.

use anyhow::{Result, ensure};
use proto::commerce::payment::v1::{
    CreatePaymentRequest, LineQuantity, Payment, payment::State,
    payment_service_client::PaymentServiceClient,
};
use sqlx::PgPool;
use tonic::transport::Channel;

use crate::{
    load::{Caller, fresh_key},
    seed,
};

/// A customer who buys a unit of some product each time.
pub(crate) struct Buyer {
    client: PaymentServiceClient<Channel>,
    products: u64,
    confirm: bool,
    /// What order references begin with.
    prefix: String,
    count: u64,
}

impl Buyer {
    /// So many of them; with `confirm` the purchase is carried out, else the payment waits for it.
    pub(crate) fn many(
        clients: usize,
        channels: &[Channel],
        products: u64,
        confirm: bool,
        prefix: &str,
    ) -> Vec<Buyer> {
        let buyer = |(number, channel): (usize, &Channel)| Buyer {
            client: PaymentServiceClient::new(channel.clone()),
            products,
            confirm,
            prefix: format!("{prefix}c{number}n"),
            count: 0,
        };
        let channels = channels.iter().cycle();
        channels.take(clients).enumerate().map(buyer).collect()
    }

    /// Buys; answers the payment.
    pub(crate) async fn buy(&mut self) -> Result<Payment> {
        self.count += 1;
        let number = rand::random_range(2..=self.products);
        let request = CreatePaymentRequest {
            order_ref: format!("{}{}", self.prefix, self.count),
            customer_ref: format!("customer-{}", number % 1_000),
            currency_code: "USD".to_owned(),
            items: vec![LineQuantity {
                sku: seed::sku(number),
                quantity: 1,
            }],
            payment_method: "pm_card_visa".to_owned(),
            confirm: self.confirm,
            request_id: fresh_key(),
            ..CreatePaymentRequest::default()
        };
        let answer = self.client.create_payment(request).await?.into_inner();
        let payment = answer.payment.unwrap_or_default();
        let wanted = if self.confirm {
            State::Succeeded
        } else {
            State::RequiresConfirmation
        };
        ensure!(
            payment.state() == wanted,
            "payment {:?} is {:?}: {:?}",
            payment.id,
            payment.state(),
            payment.last_error
        );
        Ok(payment)
    }
}

impl Caller for Buyer {
    async fn call(&mut self) -> Result<()> {
        self.buy().await.map(drop)
    }
}

/// How many payments there are whose order reference begins so, and how many of them are in this state.
pub(crate) async fn count(payment: &PgPool, prefix: &str, state: &str) -> Result<(i64, i64)> {
    // The byte after any that a reference has.
    let query = "SELECT count(*), count(*) FILTER (WHERE state = $2) FROM payments \
        WHERE principal = 'anonymous' AND order_ref >= $1 AND order_ref < $1 || '~' AND NOT is_canceled";
    let counts = sqlx::query_as(query).bind(prefix).bind(state);
    Ok(counts.fetch_one(payment).await?)
}
