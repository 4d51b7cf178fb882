//! The rounds: everything once for each number of clients, one after another, again and again.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use sqlx::{ConnectOptions as _, Connection as _, sqlite::SqliteConnectOptions};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use xtask::servers::Servers;

use crate::{
    cpu::{self, Used},
    figures::{Figure, Figures},
    house::House,
    load::{self, Caller, Run},
    own::{self, Own},
    payments::{self, Buyer},
    pgbench::{self, Script},
    products::{Reader, Reserver},
    profile, relay, seed,
    store::Options,
};

const PATIENCE: Duration = Duration::from_mins(2);
/// How often connections are counted.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(250);
/// A backend that has nothing to do reports what it did after ten seconds.
const STATISTICS_DELAY: Duration = Duration::from_secs(12);
/// At most one look of so many is shared: there are far more products than readers.
const SHARED_PART: u64 = 100;

/// What all rounds of a size came to.
pub(crate) struct Rounds {
    pub(crate) size: u64,
    pub(crate) figures: Figures,
    /// Latency from commit to consumer by round: the 99th percentile in milliseconds.
    pub(crate) deliveries_p99_ms: Vec<f64>,
    /// Transactions that write, for one purchase: on PostgreSQL, and in the simulator's journal.
    pub(crate) commits: Option<(f64, f64)>,
    /// Connections of the services at once, at most: product's and payment's.
    pub(crate) connections: [i64; 2],
    /// Answers of which the rows were counted.
    pub(crate) verified: u64,
    /// What a call cost in each process, by figure and clients: processor milliseconds, a value a round.
    pub(crate) costs: BTreeMap<(Figure, usize), Vec<[f64; cpu::WHO.len()]>>,
}

/// What the rounds are run on.
struct Ground<'a> {
    options: &'a Options,
    servers: &'a Servers,
    house: &'a House,
    relay: &'a relay::Bench,
    own: Own,
    product: Vec<Channel>,
    payment: Vec<Channel>,
    ids: Arc<[String]>,
    size: u64,
}

/// Runs all rounds at a size.
pub(crate) async fn run(
    options: &Options,
    servers: &Servers,
    house: &House,
    relay: &relay::Bench,
    size: u64,
) -> Result<Rounds> {
    let (product, payment) = (&house.product.address, &house.payment.address);
    let channels = load::connect(payment).await?;
    let prefix = format!("sample{size}");
    let mut buyer = Buyer::many(1, &channels, size, false, &prefix).remove(0);
    buyer.buy().await?; // The statement is prepared.
    let own = Own::overhear(
        servers.postgres(),
        &house.payment,
        &mut buyer,
        &house.folder,
    );
    let ground = Ground {
        options,
        servers,
        house,
        relay,
        own: own.await?,
        product: load::connect(product).await?,
        payment: channels,
        ids: seed::product_ids(house).await?.into(),
        size,
    };
    let mut rounds = Rounds {
        size,
        figures: Figures::default(),
        deliveries_p99_ms: Vec::new(),
        commits: None,
        connections: [0; 2],
        verified: 0,
        costs: BTreeMap::new(),
    };
    let stop = CancellationToken::new();
    let sampling = mesh::spawn(peak_connections(servers.postgres().url(), stop.clone()));
    for number in 1..=options.rounds {
        for &clients in &options.clients {
            ground.round(number, clients, &mut rounds).await?;
        }
        ground.events(number, &mut rounds).await?;
    }
    stop.cancel();
    rounds.connections = sampling.await??;
    if options.wants(Figure::Get) {
        ground.reads_come_from_postgres(&mut rounds).await?;
    }
    Ok(rounds)
}

impl Ground<'_> {
    async fn round(&self, number: usize, clients: usize, rounds: &mut Rounds) -> Result<()> {
        let options = self.options;
        let all = [
            Figure::TpcB,
            Figure::Own,
            Figure::Create,
            Figure::Purchase,
            Figure::Reserve,
            Figure::SelectOnly,
            Figure::Get,
        ];
        for figure in all.into_iter().filter(|figure| options.wants(*figure)) {
            let prefix = format!("s{}r{number}k{clients}", self.size);
            let rate = match figure {
                Figure::TpcB => self.pgbench(&Script::TpcB, clients)?.rate,
                Figure::SelectOnly => self.pgbench(&Script::SelectOnly, clients)?.rate,
                Figure::Own => self.own_statement(clients, rounds).await?,
                Figure::Create => {
                    self.create(clients, &format!("{prefix}create"), rounds)
                        .await?
                }
                Figure::Purchase => {
                    self.purchase(clients, &format!("{prefix}buy"), rounds)
                        .await?
                }
                Figure::Reserve => self.reserve(clients, rounds).await?,
                Figure::Get => self.get(clients, rounds).await?,
                Figure::Bare | Figure::Relay => continue,
            };
            println!(
                "round {number}, {clients} clients: {} {rate:.0}/s",
                figure.name()
            );
            rounds.figures.add(figure, clients, rate);
        }
        Ok(())
    }

    fn pgbench(&self, script: &Script<'_>, clients: usize) -> Result<pgbench::Run> {
        pgbench::run(
            self.servers.postgres(),
            script,
            clients,
            self.options.length(),
        )
    }

    async fn own_statement(&self, clients: usize, rounds: &mut Rounds) -> Result<f64> {
        let count = || {
            payments::count(
                &self.house.payment.database,
                own::PREFIX,
                "REQUIRES_CONFIRMATION",
            )
        };
        let (_, before) = count().await?;
        let run = self.pgbench(&self.own.script(), clients)?;
        let (_, after) = count().await?;
        rounds.verify("payments of pgbench", run.transactions, after - before)?;
        Ok(run.rate)
    }

    /// Lets clients ask, and notes what it cost whom.
    async fn load<C: Caller>(
        &self,
        figure: Figure,
        clients: usize,
        callers: Vec<C>,
        rounds: &mut Rounds,
    ) -> Result<Run> {
        let url = self.servers.postgres().url();
        if self.options.profile {
            profile::reset(&url).await?;
        }
        let before = Used::now(self.house)?;
        let run = load::run(callers, self.options.length()).await?;
        let cost = Used::now(self.house)?.each_since(before, run.calls);
        if self.options.profile {
            let table = profile::table(&url, run.calls).await?;
            println!("{}, {clients} clients, each call:\n{table}", figure.name());
        }
        let costs = rounds.costs.entry((figure, clients)).or_default();
        costs.push(cost);
        Ok(run)
    }

    async fn create(&self, clients: usize, prefix: &str, rounds: &mut Rounds) -> Result<f64> {
        let buyers = Buyer::many(clients, &self.payment, self.size, false, prefix);
        let run = self.load(Figure::Create, clients, buyers, rounds).await?;
        let database = &self.house.payment.database;
        let (there, waiting) = payments::count(database, prefix, "REQUIRES_CONFIRMATION").await?;
        rounds.verify("payments", run.calls, there)?;
        rounds.verify("payments that wait", run.calls, waiting)?;
        self.wait_until_told().await?;
        Ok(rounds.latency(Figure::Create, clients, &run))
    }

    async fn purchase(&self, clients: usize, prefix: &str, rounds: &mut Rounds) -> Result<f64> {
        let before = self.counted().await?;
        let buyers = Buyer::many(clients, &self.payment, self.size, true, prefix);
        let run = self.load(Figure::Purchase, clients, buyers, rounds).await?;
        let database = &self.house.payment.database;
        let (there, succeeded) = payments::count(database, prefix, "SUCCEEDED").await?;
        rounds.verify("purchases", run.calls, there)?;
        rounds.verify("purchases that succeeded", run.calls, succeeded)?;
        self.wait_until_told().await?;
        self.wait_until_sold(before.sold + there).await?;
        let after = self.counted().await?;
        rounds.verify(
            "units that left the stock",
            run.calls,
            before.on_hand - after.on_hand,
        )?;
        rounds.verify(
            "reservations committed",
            run.calls,
            after.committed - before.committed,
        )?;
        rounds.verify(
            "entries in the books",
            run.calls,
            after.entries - before.entries,
        )?;
        ensure!(after.unbalanced == 0, "the books do not sum to zero");
        let each = |after: i64, before: i64| {
            load::per_second(
                usize::try_from(after - before).unwrap_or(0),
                Duration::from_secs(run.calls),
            )
        };
        rounds.commits = Some((
            each(after.transactions, before.transactions),
            each(after.journal, before.journal),
        ));
        Ok(rounds.latency(Figure::Purchase, clients, &run))
    }

    async fn reserve(&self, clients: usize, rounds: &mut Rounds) -> Result<f64> {
        let held = || async {
            let row: (i64, i64) = sqlx::query_as(
                "SELECT reserved::bigint, (SELECT count(*) FROM reservation_line l \
                     WHERE l.sku = s.sku AND held_until_us IS NOT NULL) FROM stock s WHERE sku = $1",
            )
            .bind(seed::HOT_SKU)
            .fetch_one(&self.house.product.database)
            .await?;
            anyhow::Ok(row)
        };
        let before = held().await?;
        let reservers = Reserver::many(clients, &self.product);
        let run = self
            .load(Figure::Reserve, clients, reservers, rounds)
            .await?;
        let after = held().await?;
        rounds.verify("units reserved", run.calls, after.0 - before.0)?;
        rounds.verify("lines that hold", run.calls, after.1 - before.1)?;
        self.wait_until_told().await?;
        Ok(rounds.latency(Figure::Reserve, clients, &run))
    }

    async fn get(&self, clients: usize, rounds: &mut Rounds) -> Result<f64> {
        let readers = Reader::many(clients, &self.product, &self.ids);
        let run = self.load(Figure::Get, clients, readers, rounds).await?;
        Ok(rounds.latency(Figure::Get, clients, &run))
    }

    async fn events(&self, number: usize, rounds: &mut Rounds) -> Result<()> {
        if !self.options.wants(Figure::Relay) {
            return Ok(());
        }
        let round = self.relay.round(self.options.length()).await?;
        let p99_ms = round.percentile_ms(99);
        println!(
            "round {number}: bare publisher {:.0}/s, relay {:.0}/s; delivered at 500/s within {p99_ms:.1} ms (p99)",
            round.bare, round.relayed
        );
        rounds.figures.add(Figure::Bare, 0, round.bare);
        rounds.figures.add(Figure::Relay, 0, round.relayed);
        rounds.deliveries_p99_ms.push(p99_ms);
        Ok(())
    }

    /// Until the services have published what they have to tell, so that nobody pays for the one before.
    async fn wait_until_told(&self) -> Result<()> {
        let started = Instant::now();
        for service in self.house.services() {
            let waiting = "SELECT count(*) FROM (SELECT FROM mesh_outbox LIMIT 1) AS one";
            while service.number(waiting).await? > 0 {
                ensure!(
                    started.elapsed() < PATIENCE,
                    "events of {} are not published",
                    service.name
                );
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Ok(())
    }

    /// Until product has heard of every purchase.
    async fn wait_until_sold(&self, units: i64) -> Result<()> {
        let started = Instant::now();
        while self.counted().await?.sold != units {
            ensure!(
                started.elapsed() < PATIENCE,
                "product has not heard of every purchase"
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    async fn counted(&self) -> Result<Counted> {
        let (product, payment) = (&self.house.product, &self.house.payment);
        let mut journal = SqliteConnectOptions::new()
            .filename(&self.house.journal)
            .read_only(true)
            .connect()
            .await?;
        let counted = Counted {
            sold: product
                .number("SELECT coalesce(sum(quantity), 0)::bigint FROM product_sales")
                .await?,
            on_hand: product
                .number("SELECT sum(on_hand)::bigint FROM stock")
                .await?,
            committed: product
                .number("SELECT count(*) FROM reservation WHERE state = 'COMMITTED'")
                .await?,
            entries: payment
                .number("SELECT count(*) FROM ledger_transactions")
                .await?,
            unbalanced: payment
                .number("SELECT abs(coalesce(sum(balance_minor), 0))::bigint FROM ledger_balances")
                .await?,
            transactions: payment
                .number("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint")
                .await?,
            journal: sqlx::query_scalar("SELECT count(*) FROM journal")
                .fetch_one(&mut journal)
                .await?,
        };
        journal.close().await?;
        Ok(counted)
    }

    /// Reads once more while nothing else does, and looks up how often the server looked a product up.
    async fn reads_come_from_postgres(&self, rounds: &mut Rounds) -> Result<()> {
        let product = &self.house.product;
        let scans = "SELECT idx_scan FROM pg_stat_user_tables WHERE relname = 'product'";
        tokio::time::sleep(STATISTICS_DELAY).await;
        let before = product.number(scans).await?;
        let readers = Reader::many(self.options.clients[0], &self.product, &self.ids);
        let run = load::run(readers, Duration::from_secs(1)).await?;
        tokio::time::sleep(STATISTICS_DELAY).await;
        let looked_up = product.number(scans).await? - before;
        // Those who ask for one product at the same moment share a look.
        let (answers, shared_max) = (i64::try_from(run.calls)?, run.calls.div_ceil(SHARED_PART));
        let shared_max = i64::try_from(shared_max)?;
        ensure!(
            (answers - shared_max..=answers).contains(&looked_up),
            "the server looked up {looked_up} products for {answers} answers"
        );
        rounds.verified += run.calls;
        Ok(())
    }
}

/// What purchases change.
struct Counted {
    sold: i64,
    on_hand: i64,
    committed: i64,
    entries: i64,
    unbalanced: i64,
    transactions: i64,
    journal: i64,
}

impl Rounds {
    /// As many as were answered, or all is for nothing.
    fn verify(&mut self, what: &str, answered: u64, found: i64) -> Result<()> {
        ensure!(
            i64::try_from(answered)? == found,
            "{what}: {found} were found for {answered} answers"
        );
        self.verified += answered;
        Ok(())
    }

    fn latency(&mut self, figure: Figure, clients: usize, run: &Run) -> f64 {
        let percentiles_ms = (run.percentile_ms(50), run.percentile_ms(99));
        self.figures.add_latency(figure, clients, percentiles_ms);
        run.rate
    }
}

/// The most connections that each service had.
async fn peak_connections(url: String, stop: CancellationToken) -> Result<[i64; 2]> {
    let mut connection = sqlx::PgConnection::connect(&url).await?;
    let mut every = interval(SAMPLE_INTERVAL);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut peak = [0; 2];
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(peak),
            _ = every.tick() => {}
        }
        let now: (i64, i64) = sqlx::query_as(
            "SELECT count(*) FILTER (WHERE usename = 'product'), count(*) FILTER (WHERE usename = 'payment') \
             FROM pg_stat_activity",
        )
        .fetch_one(&mut connection)
        .await
        .context("counting connections")?;
        peak = [peak[0].max(now.0), peak[1].max(now.1)];
    }
}
