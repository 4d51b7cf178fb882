//! Pages of lists, the first beside the ten-thousandth: a page far in must not cost more.

use std::time::Instant;

use anyhow::{Result, ensure};
use proto::commerce::{
    payment::v1::{ListPaymentsRequest, payment_service_client::PaymentServiceClient},
    product::v1::{ListProductsRequest, product_service_client::ProductServiceClient},
};
use tonic::transport::Channel;

use crate::{
    house::House,
    load::{self, percentile_ms},
};

const PAGE_SIZE: i32 = 10;
const FAR: usize = 10_000;
/// How often each of the two is read.
const READS: usize = 200;

/// The median of a list's first page and of its ten-thousandth, in milliseconds.
pub(crate) struct Pages {
    pub(crate) list: &'static str,
    pub(crate) first_ms: f64,
    pub(crate) far_ms: f64,
}

/// Something that has pages.
enum List {
    Products(ProductServiceClient<Channel>),
    Payments(PaymentServiceClient<Channel>),
}

/// Walks to the far page of each list, then reads both pages again and again.
pub(crate) async fn measure(house: &House) -> Result<Vec<Pages>> {
    let product = load::connect(&house.product.address).await?.remove(0);
    let payment = load::connect(&house.payment.address).await?.remove(0);
    let lists = [
        List::Products(ProductServiceClient::new(product)),
        List::Payments(PaymentServiceClient::new(payment)),
    ];
    let mut measured = Vec::new();
    for mut list in lists {
        println!("walking through {}", list.name());
        measured.push(list.measure().await?);
    }
    Ok(measured)
}

impl List {
    fn name(&self) -> &'static str {
        match self {
            List::Products(_) => "ListProducts",
            List::Payments(_) => "ListPayments",
        }
    }

    /// The rows of a page, and where the next one begins.
    async fn page(&mut self, token: &str) -> Result<(usize, String)> {
        let page_token = token.to_owned();
        Ok(match self {
            List::Products(client) => {
                let request = ListProductsRequest {
                    page_size: PAGE_SIZE,
                    page_token,
                    ..ListProductsRequest::default()
                };
                let page = client.list_products(request).await?.into_inner();
                (page.products.len(), page.next_page_token)
            }
            List::Payments(client) => {
                let request = ListPaymentsRequest {
                    page_size: PAGE_SIZE,
                    page_token,
                    ..ListPaymentsRequest::default()
                };
                let page = client.list_payments(request).await?.into_inner();
                (page.payments.len(), page.next_page_token)
            }
        })
    }

    async fn measure(&mut self) -> Result<Pages> {
        let mut far = String::new();
        for number in 1..FAR {
            let (rows, next) = self.page(&far).await?;
            let full = i32::try_from(rows)? == PAGE_SIZE && !next.is_empty();
            ensure!(full, "{} ends with page {number}", self.name());
            far = next;
        }
        let (mut first_us, mut far_us) = (Vec::new(), Vec::new());
        for _ in 0..READS {
            first_us.push(self.timed("").await?);
            far_us.push(self.timed(&far).await?);
        }
        first_us.sort_unstable();
        far_us.sort_unstable();
        Ok(Pages {
            list: self.name(),
            first_ms: percentile_ms(&first_us, 50),
            far_ms: percentile_ms(&far_us, 50),
        })
    }

    async fn timed(&mut self, token: &str) -> Result<u64> {
        let started = Instant::now();
        let (rows, _) = self.page(token).await?;
        ensure!(
            i32::try_from(rows)? == PAGE_SIZE,
            "{}: a page is short",
            self.name()
        );
        Ok(u64::try_from(started.elapsed().as_micros())?)
    }
}
