//! The books as an accountant reads them, and their closing.

use crate::suite::api::{api, as_operator, reason};
use crate::suite::bulk::Bulk;
use crate::suite::world::{Buy, NOW_US, Process, SECOND_US, World, owned};
use futures_util::StreamExt as _;
use kernel::day::{self, DAY_US};
use payment::audit::Record;
use payment::error::Error;
use payment::refund::Wanted;
use payment::state::State;
use payment::store::books::Closing;
use proto::commerce::payment::v1 as pb;
use proto::commerce::payment::v1::payment_service_server::PaymentService as _;
use std::collections::BTreeMap;
use std::time::Duration;
use tonic::{Code, Request};

/// Account and currency, and what they come to.
type Sums = BTreeMap<(String, String), i64>;

async fn export(process: &Process, from: &str, to: &str) -> String {
    let request = pb::ExportLedgerRequest {
        from: from.into(),
        to: to.into(),
    };
    let api = api(process);
    let mut pieces = api
        .export_ledger(Request::new(request))
        .await
        .unwrap()
        .into_inner();
    let mut file = Vec::new();
    while let Some(piece) = pieces.next().await {
        file.extend(piece.unwrap().body.unwrap().data);
    }
    String::from_utf8(file).unwrap()
}

/// The sums of a file, by an RFC 4180 reader that is not ours.
fn sums_of(file: &str) -> Sums {
    let mut sums = Sums::new();
    for row in csv::Reader::from_reader(file.as_bytes()).deserialize() {
        let row: BTreeMap<String, String> = row.unwrap();
        let amount: i64 = row["amount_minor"].parse().unwrap();
        *sums
            .entry((row["account"].clone(), row["currency"].clone()))
            .or_default() += amount;
    }
    sums
}

async fn trial(process: &Process, day: &str) -> pb::GetTrialBalanceResponse {
    let request = pb::GetTrialBalanceRequest { day: day.into() };
    api(process)
        .get_trial_balance(Request::new(request))
        .await
        .unwrap()
        .into_inner()
}

fn sums_of_trial(trial: &pb::GetTrialBalanceResponse) -> Sums {
    let accounts = trial.balances.iter().flat_map(|balance| &balance.accounts);
    let sums = accounts.map(|account| {
        let balance = account.balance.clone().unwrap();
        (
            (account.id.clone(), balance.currency_code),
            balance.amount_minor,
        )
    });
    sums.collect()
}

#[tokio::test]
async fn the_file_sums_up_to_the_balances() {
    let seed = rand::random();
    println!("seed {seed}");
    let world = World::new().await;
    let process = world.process();
    let mut bulk = Bulk::new(&world, seed);
    for number in 0..700 {
        let sale = bulk.sale(
            NOW_US - 9 * DAY_US + number * (DAY_US / 100),
            number % 3 == 0,
        );
        bulk.write(&sale);
    }
    bulk.flush().await;
    let file = export(&process, "", "").await;
    assert_eq!(
        file.lines().count(),
        1 + 2 * (700 + 234),
        "a line a posting"
    );
    assert!(file.lines().all(|line| !line.ends_with('\r')) && file.ends_with("\r\n"));
    assert_eq!(file, export(&process, "", "").await, "byte for byte");
    let whole = trial(&process, "").await;
    assert_eq!(sums_of(&file), sums_of_trial(&whole));
    assert!(
        whole
            .balances
            .iter()
            .all(|one| one.sum.as_ref().unwrap().amount_minor == 0)
    );

    // Day by day: the last balance of each account is that of the trial balance, and the file's days add up.
    let (from, to) = (day::of(NOW_US - 7 * DAY_US), day::of(NOW_US - 5 * DAY_US));
    let mut rows = Vec::new();
    let mut page_token = String::new();
    let api = api(&process);
    loop {
        let request = pb::ListLedgerBalancesRequest {
            from: from.clone(),
            to: to.clone(),
            page_size: 2,
            page_token,
            ..Default::default()
        };
        let page = api
            .list_ledger_balances(Request::new(request))
            .await
            .unwrap()
            .into_inner();
        rows.extend(page.balances);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    let days: Vec<&str> = rows.iter().map(|row| row.day.as_str()).collect();
    assert!(
        days.is_sorted()
            && days
                .iter()
                .all(|day| *day >= from.as_str() && *day < to.as_str())
    );
    let mut last = Sums::new();
    let mut moved = Sums::new();
    for row in &rows {
        let (debits, credits) = (row.debits.as_ref().unwrap(), row.credits.as_ref().unwrap());
        let key = (row.account_id.clone(), debits.currency_code.clone());
        last.insert(key.clone(), row.balance.as_ref().unwrap().amount_minor);
        *moved.entry(key).or_default() += debits.amount_minor - credits.amount_minor;
    }
    let before = day::of(day::parse_start("to", &to).unwrap() - 1);
    assert_eq!(last, sums_of_trial(&trial(&process, &before).await));
    assert_eq!(moved, sums_of(&export(&process, &from, &to).await));
}

#[tokio::test]
async fn a_closed_period_stays_as_it_is() {
    let world = World::new().await;
    let process = world.process();
    let sold = process.create(&world, Buy::some()).await.unwrap();
    let today = day::of(NOW_US);
    let close = |day: &str, key: &str| {
        Request::new(pb::ClosePeriodRequest {
            day: day.to_owned(),
            request_id: key.to_owned(),
        })
    };
    let api = api(&process);
    let early = as_operator(api.close_period(close(&today, "early")))
        .await
        .unwrap_err();
    assert_eq!(
        (early.code(), reason(&early).as_str()),
        (Code::FailedPrecondition, "DAY_NOT_OVER")
    );
    assert_eq!(trial(&process, "").await.closed_through, "");
    world.clock.advance(DAY_US);
    let before = export(&process, "", &day::of(NOW_US + DAY_US)).await;
    for (day, key) in [
        (today.clone(), "k"),
        (today.clone(), "k"),
        (day::of(NOW_US - 3 * DAY_US), "less"),
    ] {
        let closed = as_operator(api.close_period(close(&day, key)))
            .await
            .unwrap();
        assert_eq!(
            closed.into_inner().closed_through,
            today,
            "and not taken back"
        );
    }
    assert_eq!(trial(&process, &today).await.closed_through, today);

    // Neither a new entry nor another posting of an old one.
    for statement in [
        "INSERT INTO ledger_transactions (id, kind, payment_id, source_id, recorded_at_us) \
         SELECT source_id, 'fee', NULL, source_id, recorded_at_us FROM ledger_transactions",
        "INSERT INTO ledger_postings (transaction_id, line, account, currency, amount_minor) \
         SELECT transaction_id, line + 5, account, currency, amount_minor FROM ledger_postings",
        "UPDATE ledger_periods SET closed_until_us = 0",
        "DELETE FROM ledger_periods",
    ] {
        let refused = world.storage.execute(statement).await.unwrap_err();
        let expected = if statement.starts_with("INSERT") {
            "the period is closed"
        } else {
            "append-only"
        };
        assert!(refused.contains(expected), "{statement}: {refused}");
    }
    // What is recorded now is dated now.
    let wanted = Wanted::Lines(owned(&[("A", 1)]));
    process
        .refund(&world, &sold.id, wanted, false)
        .await
        .unwrap();
    assert_eq!(
        export(&process, "", &day::of(NOW_US + DAY_US)).await,
        before,
        "byte for byte"
    );
    world.check().await;
}

/// The clock of a replica may be behind the one that closed: what it records is refused, and dated anew.
#[tokio::test]
async fn an_entry_that_comes_too_late_is_dated_anew() {
    let world = World::new().await;
    let process = world.process();
    let closing = Closing {
        until_us: NOW_US + 10 * SECOND_US,
        by: "boss".to_owned(),
        now_us: NOW_US,
    };
    let record = Record::new("boss", "m", "ledger:x".to_owned(), String::new(), NOW_US);
    process
        .books
        .close(None, &closing, &record, &|_| Vec::new())
        .await
        .unwrap();
    // It is not answered before it is booked, and this clock stands still.
    let waits = process.create(&world, Buy::some());
    tokio::time::timeout(Duration::from_secs(2), waits)
        .await
        .unwrap_err();
    let late = world.payments().await.remove(0);
    assert_eq!(
        world.storage.count("ledger_transactions").await,
        0,
        "it is not booked"
    );
    world.clock.advance(11 * SECOND_US);
    world.outlast_leases().await;
    world.settle(&process).await;
    let booked = process.payment(&late.id.to_string()).await;
    assert_eq!(booked.state, State::Succeeded);
    let entries = process.store.entries(None, None, 9).await.unwrap();
    assert_eq!(entries.len(), 1);
    assert!(entries[0].recorded_at_us >= closing.until_us);
    let closed = Error::from(sqlx::Error::RowNotFound);
    assert!(
        !matches!(closed, Error::PeriodClosed),
        "only what the triggers say"
    );
}
