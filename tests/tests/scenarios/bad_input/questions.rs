//! Questions that have no answer, and routes that are not there.

use reqwest::Method;
use tests::rest::query;

use super::{Case, Stage, case, get, raw};

/// Lists, filters, searches and watches.
pub(super) fn about_products(stage: &Stage) -> Vec<Case> {
    let filter = |text: &str| {
        get(
            &format!("/v1/products?filter={}", query(text)),
            400,
            "filter",
        )
    };
    let comparisons = vec!["title = a"; 21].join(" OR ");
    let ids = "&skus=MUG-1".repeat(101);
    let elsewhere = format!(
        "/v1/products?pageSize=1&filter=title%3Da&pageToken={}",
        stage.next_page
    );
    vec![
        get("/v1/products?pageSize=-1", 400, "pageSize|page_size"),
        get("/v1/products?pageSize=1001", 400, "pageSize|page_size"),
        get(
            "/v1/products?pageSize=99999999999",
            400,
            "pageSize|page_size",
        ),
        get("/v1/products?pageSize=ten", 400, "pageSize|page_size"),
        get(
            "/v1/products?pageSize=1&pageSize=2",
            400,
            "pageSize|page_size",
        ),
        get("/v1/products?pageToken=%25%25", 400, "pageToken|page_token"),
        get("/v1/products?pageToken=AAAA", 400, "pageToken|page_token"),
        get(&elsewhere, 400, "pageToken|page_token"),
        get("/v1/products?limit=5", 400, "limit"),
        get(
            "/v1/products?showDeleted=maybe",
            400,
            "showDeleted|show_deleted",
        ),
        get("/v1/products?orderBy=price", 400, "orderBy|order_by"),
        get(
            "/v1/products?orderBy=title%20sideways",
            400,
            "orderBy|order_by",
        ),
        filter("colour = red"),
        filter("title = "),
        filter("(title = a"),
        filter(&"x".repeat(1001)),
        filter(&comparisons),
        filter("create_time > yesterday"),
        get("/v1/products/nonsense", 400, "id"),
        get("/v1/products/..%2f..%2fpayment.db", 400, "id"),
        get("/v1/products/prd_%00", 400, "id"),
        get("/v1/products:batchGet", 400, "ids|skus"),
        get(
            &format!("/v1/products:batchGet?{}", &ids[1..]),
            400,
            "ids|skus|100",
        ),
        get("/v1/products:batchGet?skus=NOT-THERE", 404, "NOT-THERE"),
        get("/v1/products:search", 400, "query"),
        get(
            &format!("/v1/products:search?query={}", "w".repeat(201)),
            400,
            "query",
        ),
        get(
            "/v1/products:search?query=a&pageSize=101",
            400,
            "pageSize|page_size",
        ),
        get(
            "/v1/products:watch?resumeRevision=999999999",
            400,
            "revision",
        ),
        get(
            "/v1/products:watch?resumeRevision=soon",
            400,
            "resumeRevision|resume_revision",
        ),
    ]
}

/// Files, stock, payments, sales and books.
pub(super) fn about_the_rest() -> Vec<Case> {
    vec![
        get("/v1/products:export", 400, "currency"),
        get("/v1/products:export?currencyCode=dollars", 400, "currency"),
        get("/v1/stock/NOT-THERE", 404, "NOT-THERE"),
        get("/v1/stock/..%2F..%2Fetc%2Fpasswd", 400, "sku"),
        get("/v1/payments/pay_nonsense", 400, "id"),
        get("/v1/payments?filter=colour%3Dred", 400, "filter"),
        get("/v1/payments?orderBy=amount", 400, "orderBy|order_by"),
        get("/v1/payments?pageSize=1001", 400, "pageSize|page_size"),
        get("/v1/refunds/nonsense", 400, "id"),
        get("/v1/disputes/nonsense", 400, "id"),
        get("/v1/disputes?state=BROKEN", 400, "state"),
        get(
            "/v1/disputes?paymentId=nonsense",
            400,
            "paymentId|payment_id",
        ),
        get("/v1/disputes?pageSize=1001", 400, "pageSize|page_size"),
        get(
            "/v1/sales:summarize?groupBy=COLOUR",
            400,
            "groupBy|group_by",
        ),
        get(
            "/v1/sales:summarize?groupBy=DAY&groupBy=DAY",
            400,
            "groupBy|group_by",
        ),
        get("/v1/sales:summarize?from=2021-02-30", 400, "from"),
        get("/v1/sales:summarize?to=yesterday", 400, "to"),
        get("/v1/ledger/accounts?currencyCode=usd", 400, "currency"),
        get(
            "/v1/ledger/transactions?paymentId=nonsense",
            400,
            "paymentId|payment_id",
        ),
    ]
}

/// Paths and methods that nobody serves.
pub(super) fn routes(stage: &Stage) -> Vec<Case> {
    let paid = &stage.paid;
    vec![
        get("/v1/nothing", 404, "/v1/nothing|route|found"),
        get("/v2/products", 404, "/v2/products|route|found"),
        get(&format!("/v1/payments/{paid}:explode"), 400, "id"),
        case(
            Method::PUT,
            "/v1/payments",
            b"{}".to_vec(),
            405,
            "PUT|method",
        ),
        case(
            Method::DELETE,
            &format!("/v1/payments/{paid}"),
            Vec::new(),
            405,
            "DELETE|method",
        ),
        raw("/v1/reservations", b"{}", 404, "reservations|route|found"),
        raw(
            "/commerce.product.v1.ProductService/ReserveStock",
            b"{}",
            404,
            "route|found|ReserveStock",
        ),
        raw("/v1/products:reserve", b"{}", 404, "reserve|route|found"),
    ]
}
