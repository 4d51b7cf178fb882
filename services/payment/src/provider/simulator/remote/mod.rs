//! The simulator as a process of its own: a small HTTP/JSON protocol, and both of its ends.
//!
//! HTTP/1.1 with `Authorization: Bearer KEY`. Bodies are JSON objects in `snake_case`; times are
//! microseconds since the Unix epoch; an amount is `{"currency_code": "USD", "amount_minor": 199}`.
//! References are the caller's own and idempotency keys at the same time: the same one with the same
//! parameters is carried out once and answered the same each time, as long as it is remembered. The same is
//! written for whoever speaks it in `docs/simulator.md`.
//!
//! | call | takes | answers |
//! |---|---|---|
//! | `GET /v1/capabilities` | | `manual_capture`, `partial_capture`, `void`, `authorization_ttl_us`, `idempotency_window_us`, `look_up_lag_us` |
//! | `POST /v1/charges` | `reference`, `amount`, `payment_method`, `order_ref`, `capture` | `charge` |
//! | `POST /v1/captures` | `reference`, `charge_reference`, `amount`, `last` | `settlement` |
//! | `POST /v1/voids` | `charge_reference` | `settlement` |
//! | `POST /v1/refunds` | `reference`, `charge_reference`, `amount` | `settlement` |
//! | `POST /v1/authentications` | `reference`, `ok`: what the customer did | `decided`: whether it was waited for |
//! | `POST /v1/disputes` | `charge_reference`, `amount` (null: all), `inquiry`: what a customer's bank does | `dispute_ref` |
//! | `POST /v1/returns` | `reference` of a refund that the customer's bank sends back | `returned` |
//! | `POST /v1/decisions` | `dispute_ref`, `decision`: `escalate`, `win`, `lose` or `close` | `dispute` |
//! | `POST /v1/evidence` | `reference`, `dispute_ref`, `texts` by kind, `files[]` of `kind`, `content_type`, `description`, `data` (base64) | `dispute` |
//! | `POST /v1/acceptances` | `reference`, `dispute_ref` | `dispute` |
//! | `GET /v1/charges/{reference}/disputes` | | `disputes[]` |
//! | `PUT /v1/faults` | `commands`, `webhooks`: what goes wrong from now on, with a `seed` each | the same |
//! | `GET /v1/charges/{reference}` | | `charge`, null where it never arrived |
//! | `GET /v1/settlements/{reference}` | of a capture or refund | `settlement`, null where it never arrived |
//! | `GET /v1/transactions?from=` | the `next` of an earlier page, or `since:` and a time | `transactions[]`, `next`, null at the end |
//! | `GET /v1/settlement_lines?from=` | the same | `lines[]`: `id`, `kind` (`fee` or `payout`), `reference`, `payout`, `amount`, `arrival_day`, `booked_at_us`; `next`, null at the end |
//!
//! A charge has a `state` of `authorized`, `captured`, `action_required`, `declined`, `pending` or
//! `voided`, a settlement one of `done`, `declined` or `pending`; beside it stand `provider_ref`,
//! `expires_at_us`, `redirect_url`, `code` and `message` as they apply.
//!
//! A dispute has a `dispute_ref`, a `state` of `inquiry`, `needs_response`, `under_review`, `won`, `lost` or `closed`,
//! `amount`, `reason`, `evidence_due_at_us` (or null), and whether its money is `withdrawn` and `reinstated`, and whether
//! evidence was handed in (`responded`).
//!
//! | status | `error.code` | means |
//! |---|---|---|
//! | 400 | `INVALID_REQUEST` | the body or a parameter cannot be read; `error.message` names what |
//! | 401 | `UNAUTHENTICATED` | the key is missing or wrong |
//! | 404 | `NO_SUCH_CALL` | no call has this method and path |
//! | 413 | `BODY_TOO_LARGE` | more than 16 KiB, of evidence 8 MiB |
//! | 422 | such as `AMOUNT_EXCEEDED` | the command was understood and is wrong |
//! | 503 | `UNAVAILABLE` | not now; nothing was done |
//!
//! Every one of them says that nothing was done. Where the outcome is not known there is no answer at
//! all: the connection breaks, or stays silent. A "not found" is never a status, so that no server that
//! happens to listen there can say it.
//!
//! Deliberately missing: TLS (both ends stand in one network and move no real money), retries and
//! time-outs of whole calls (the saga owns them).

mod calls;
mod client;
mod connect;
mod disputes;
mod messages;
mod post;
mod process;
mod server;

pub use calls::{Calls, LostAnswers};
pub use client::{RemoteConfig, RemoteSimulator};
pub use post::Post;
pub use process::{ProcessConfig, run};
pub use server::serve;

/// The longest body of a request.
const BODY_BYTES_MAX: usize = 16 * 1024;

/// The longest body with evidence.
const EVIDENCE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// The code that says, with 404, that there is no such call.
const NO_SUCH_CALL: &str = "NO_SUCH_CALL";
/// The code that says, with 503, that nothing was done.
const UNAVAILABLE: &str = "UNAVAILABLE";
/// The code that says, with 401, that the key is wrong.
const UNAUTHENTICATED: &str = "UNAUTHENTICATED";
