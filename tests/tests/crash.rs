//! The whole shop as a process that is killed, stopped, or loses its power while customers buy.
#![expect(clippy::unwrap_used, reason = "a test")]

use std::path::Path;
use std::time::Duration;

use mesh_runtime::Clock;
use rand::Rng;
use tests::chance::{random, random_moment};
use tests::customers::{Customers, DISK_FAILS, STOPPED};
use tests::eventually;
use tests::invariants::{Stores, check_all, nothing_is_left_undone};
use tests::orders::{order, put_on_sale};
use tests::power_cut::{Disk, Loss};
use tests::process::ShopProcess;
use xtask::servers::free_address;

const SHOP: &str = env!("CARGO_BIN_EXE_shop");
const DISK: &str = env!("CARGO_BIN_EXE_power-cut-disk");
const KILLS: usize = 50;
const POWER_CUTS: usize = 10;
const CUSTOMERS: usize = 4;

/// Shorter than in production, so that what a killed process left is taken up soon.
const CONFIG: &str = "
    [payment]
    worker_poll_ms = 50
    [payment.saga]
    lease_ms = 2000
    provider_timeout_ms = 1000
    retry_first_ms = 20
    retry_ms_max = 500
    look_up_first_ms = 50
    look_up_ms_max = 500
    settle_ms = 500
    [simulator]
    webhook_delay_ms = 50
";

async fn start(data: &Path, listen: &str, log: &Path) -> ShopProcess {
    let config = log.with_extension("toml");
    std::fs::write(&config, CONFIG).unwrap();
    ShopProcess::start(SHOP, data, listen, &config, log)
        .await
        .unwrap()
}

/// Waits until nothing is left to do, stops the shop as Ctrl-C does, and checks every invariant.
async fn close(shop: ShopProcess, data: &Path) {
    let now_us = || Clock::system().now_us();
    eventually("the shop has come to rest", || async {
        let mut stores = Stores::open(data, now_us()).await.unwrap();
        let undone = nothing_is_left_undone(&mut stores).await.unwrap();
        undone.is_empty() && stores.undelivered().await.unwrap() == 0
    })
    .await;
    let status = shop.interrupt().await;
    assert!(status.success(), "{status}");
    let mut stores = Stores::open(data, now_us()).await.unwrap();
    let violations = check_all(&mut stores).await.unwrap();
    assert!(violations.is_empty(), "{violations:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_kills_lose_and_repeat_nothing() {
    let mut random = random("fifty_kills_lose_and_repeat_nothing");
    let folder = tempfile::tempdir().unwrap();
    let (data, log) = (folder.path().join("data"), folder.path().join("log"));
    let listen = free_address().unwrap().to_string();
    let mut shop = start(&data, &listen, &log).await;
    let customers = Customers::enter(shop.rest(), CUSTOMERS, STOPPED, &mut random).await;
    for kill in 0..KILLS {
        if kill % 2 == 0 {
            // In the middle of the work; else at any moment after the start.
            let enough = customers.answers() + random.random_range(1..8);
            eventually("some answers", || async { customers.answers() >= enough }).await;
        }
        random_moment(&mut random, Duration::from_millis(400)).await;
        shop.kill();
        shop = start(&data, &listen, &log).await;
    }
    let acknowledged = customers.leave().await;
    println!("{KILLS} kills, {} answers", acknowledged.len());
    assert!(acknowledged.len() > KILLS, "hardly anything happened");
    close(shop, &data).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn power_cuts_take_no_acknowledged_payment() {
    let mut disk = match Disk::mount(DISK) {
        Ok(disk) => disk,
        Err(why) => {
            println!("SKIPPED power_cuts_take_no_acknowledged_payment: {why}");
            return;
        }
    };
    let mut random = random("power_cuts_take_no_acknowledged_payment");
    let folder = tempfile::tempdir().unwrap();
    let (data, log) = (disk.path().join("data"), folder.path().join("log"));
    let listen = free_address().unwrap().to_string();
    let mut shop = start(&data, &listen, &log).await;
    let customers = Customers::enter(shop.rest(), CUSTOMERS, DISK_FAILS, &mut random).await;
    for _ in 0..POWER_CUTS {
        let answers = customers.answers();
        eventually("some answers", || async {
            customers.answers() > answers + 3
        })
        .await;
        random_moment(&mut random, Duration::from_millis(100)).await;
        let everything = random.random();
        let loss = if everything {
            Loss::Everything
        } else {
            Loss::Some {
                seed: random.random(),
            }
        };
        disk.cut(loss).unwrap();
        shop.kill();
        disk.power_on().unwrap();
        shop = start(&data, &listen, &log).await;
    }
    let acknowledged = customers.leave().await;
    println!("{POWER_CUTS} power cuts, {} answers", acknowledged.len());
    close(shop, &data).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_shop_exits_with_0_and_is_there_again() {
    let folder = tempfile::tempdir().unwrap();
    let (data, log) = (folder.path().join("data"), folder.path().join("log"));
    let listen = free_address().unwrap().to_string();
    let shop = start(&data, &listen, &log).await;
    put_on_sale(shop.rest(), "MUG-1", 1250, 10).await;
    let request = order("ORDER-1", &[("MUG-1", 1)]);
    let paid = shop
        .rest()
        .post_once("/v1/payments", "key-1", &request)
        .await;
    assert_eq!(paid.ok()["state"], "SUCCEEDED");
    assert!(shop.interrupt().await.success());

    let shop = start(&data, &listen, &log).await;
    let replay = shop
        .rest()
        .post_once("/v1/payments", "key-1", &request)
        .await;
    assert_eq!((replay.replayed(), replay.text()), (true, paid.text()));
    assert_eq!(
        shop.rest()
            .list("/v1/products?pageSize=10", "products")
            .await
            .len(),
        1
    );
    close(shop, &data).await;
}
