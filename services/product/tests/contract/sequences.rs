//! Random sequences of commands: the outcome of each is compared with the model's, and what is stored
//! now and then and at the end. `SHOP_SEED` repeats a run, `SHOP_SEQUENCES` sets how many there are in
//! all; the default is the store's.

use std::sync::Arc;

use kernel::ReservationId;
use product::{
    error::Error,
    reservation::{self, Part, State},
    store::Store,
};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use crate::{
    fresh::{Fresh, SEQUENCES},
    harness::{SECOND_US, START_US, adjust, at, command, create, draft, variant, wish},
    model::{self, Command, Model},
};

const STEPS: usize = 8;
const SKUS: usize = 3;

/// In parts, so that they run side by side and none of them alone takes long.
macro_rules! random_sequences_agree_with_the_model {
    ($($part:ident $number:literal)*) => {
        mod random_sequences_agree_with_the_model {$(
            #[tokio::test(flavor = "multi_thread")]
            async fn $part() {
                super::run($number).await;
            }
        )*}
    };
}

random_sequences_agree_with_the_model! { first 0 second 1 third 2 fourth 3 }

const PARTS: usize = 4;

#[expect(clippy::disallowed_methods, reason = "lets a failed run be repeated")]
async fn run(part: usize) {
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .map(|text| text.parse::<u64>().unwrap())
    };
    let seed = number("SHOP_SEED").unwrap_or_else(rand::random);
    let sequences = number("SHOP_SEQUENCES").map_or(SEQUENCES, |n| usize::try_from(n).unwrap());
    println!("SHOP_SEED={seed} SHOP_SEQUENCES={sequences}");
    let fresh = Fresh::relaxed().await; // Nothing here is about power cuts.
    for sequence in (0..sequences).filter(|sequence| sequence % PARTS == part) {
        let rng = StdRng::seed_from_u64(seed.wrapping_add(sequence as u64));
        let mut run = Run::new(fresh.store.clone(), sequence, rng).await;
        for step in 0..STEPS {
            run.step(&format!("seed {seed}, sequence {sequence}, step {step}"))
                .await;
        }
        run.settle().await;
    }
    fresh.check().await;
}

/// One sequence on SKUs of its own, in a time of its own: an hour after the one before.
struct Run {
    store: Arc<dyn Store>,
    rng: StdRng,
    prefix: String,
    now_us: i64,
    model: Model,
    ids: Vec<ReservationId>,
}

impl Run {
    async fn new(store: Arc<dyn Store>, sequence: usize, mut rng: StdRng) -> Self {
        let prefix = format!("Q{sequence}-");
        let now_us = START_US + i64::try_from(sequence).unwrap() * 3_600 * SECOND_US;
        let mut model = Model::default();
        let mut variants = Vec::new();
        for sku in 0..SKUS {
            let quantity = rng.random_range(0..12);
            model.on_hand.insert(sku, quantity);
            variants.push(variant(&format!("{prefix}{sku}"), quantity));
        }
        let mut draft = draft("Q", variants);
        draft.handle = format!("q{sequence}");
        create(&*store, &draft, now_us).await;
        Self {
            store,
            rng,
            prefix,
            now_us,
            model,
            ids: Vec::new(),
        }
    }

    async fn step(&mut self, place: &str) {
        if self.rng.random_bool(0.3) {
            self.now_us += self.rng.random_range(1..40) * SECOND_US;
        }
        if self.rng.random_bool(0.1) {
            self.store
                .expire_overdue(self.now_us, self.rng.random_range(1..5))
                .await
                .unwrap();
        }
        self.model.pass_time(self.now_us);
        let command = self.random_command();
        let expected = self.model.apply(&command);
        let outcome = self.carry_out(&command).await;
        let outcome = outcome.as_ref().copied().map_err(Error::reason);
        assert_eq!(outcome, expected, "{place}: {command:?}");
        if self.rng.random_bool(0.1) {
            self.compare(place).await; // Each outcome is compared; what is stored, now and then.
        }
    }

    fn random_command(&mut self) -> Command {
        let expires_at_us = self.now_us + self.rng.random_range(1..90) * SECOND_US;
        if self.ids.is_empty() || self.rng.random_bool(0.35) {
            return Command::Reserve {
                lines: self.random_lines(1),
                expires_at_us,
            };
        }
        let reservation = self.rng.random_range(0..self.ids.len());
        match self.rng.random_range(0..10) {
            0 => Command::Adjust {
                sku: self.rng.random_range(0..SKUS),
                delta: *[-5, -2, -1, 1, 4].get(self.rng.random_range(0..5)).unwrap(),
            },
            1 => Command::Extend {
                reservation,
                expires_at_us,
            },
            2..=5 => Command::Commit {
                reservation,
                lines: self.random_lines(0),
                release_rest: self.rng.random_bool(0.3),
            },
            6 | 7 => Command::Release { reservation },
            _ => Command::Restock {
                reservation,
                lines: self.random_lines(1),
            },
        }
    }

    fn random_lines(&mut self, min: usize) -> Vec<(usize, i32)> {
        let mut skus: Vec<usize> = (0..SKUS).filter(|_| self.rng.random_bool(0.5)).collect();
        if skus.len() < min {
            skus.push(self.rng.random_range(0..SKUS));
        }
        skus.into_iter()
            .map(|sku| (sku, self.rng.random_range(1..5)))
            .collect()
    }

    async fn carry_out(&mut self, asked: &Command) -> Result<(), Error> {
        let now_us = self.now_us;
        let (reservation, asked) = match asked {
            Command::Reserve {
                lines,
                expires_at_us,
            } => {
                let mut wish = wish(&[], *expires_at_us);
                wish.parts = self.parts(lines);
                let reserved = self.store.reserve(&at(now_us), &wish).await?;
                self.ids
                    .push(ReservationId::parse(&reserved.resource.id).unwrap());
                return Ok(());
            }
            Command::Adjust { sku, delta } => {
                adjust(&*self.store, &self.sku(*sku), *delta, now_us).await?;
                return Ok(());
            }
            Command::Extend {
                reservation,
                expires_at_us,
            } => (
                reservation,
                reservation::Command::Extend {
                    expires_at_us: *expires_at_us,
                },
            ),
            Command::Commit {
                reservation,
                lines,
                release_rest,
            } => {
                let (parts, release_rest) = (self.parts(lines), *release_rest);
                (
                    reservation,
                    reservation::Command::Commit {
                        parts,
                        release_rest,
                    },
                )
            }
            Command::Release { reservation } => (reservation, reservation::Command::Release),
            Command::Restock { reservation, lines } => (
                reservation,
                reservation::Command::Restock {
                    parts: self.parts(lines),
                },
            ),
        };
        command(&*self.store, self.ids[*reservation], asked, now_us)
            .await
            .map(drop)
    }

    fn sku(&self, sku: usize) -> String {
        format!("{}{sku}", self.prefix)
    }

    fn parts(&self, lines: &[(usize, i32)]) -> Vec<Part> {
        let part = |(sku, quantity): &(usize, i32)| Part {
            sku: self.sku(*sku),
            quantity: *quantity,
        };
        lines.iter().map(part).collect()
    }

    async fn compare(&self, place: &str) {
        for (sku, on_hand) in &self.model.on_hand {
            let stock = self
                .store
                .stock(&format!("{}{sku}", self.prefix), self.now_us)
                .await
                .unwrap();
            let expected = (*on_hand, self.model.reserved(*sku));
            assert_eq!(
                (stock.on_hand, stock.held()),
                expected,
                "{place}: stock {sku}"
            );
        }
        for (id, expected) in self.ids.iter().zip(&self.model.reservations) {
            let found = self.store.reservation(*id, self.now_us).await.unwrap();
            let state = match found.state {
                State::Held => model::State::Held,
                State::Committed => model::State::Committed,
                State::Released => model::State::Released,
                State::Expired => model::State::Expired,
            };
            assert_eq!(state, expected.state, "{place}: {id}");
            assert_eq!(found.expires_at_us, expected.expires_at_us, "{place}: {id}");
            for (line, expected) in found.lines.iter().zip(&expected.lines) {
                let found = (line.quantity, line.committed, line.restocked);
                let expected = (expected.quantity, expected.committed, expected.restocked);
                assert_eq!(found, expected, "{place}: {id} {}", line.sku);
            }
        }
    }

    /// Lets every hold run out, so that the next sequence begins with none.
    async fn settle(&mut self) {
        self.now_us += 3_000 * SECOND_US;
        while self.store.expire_overdue(self.now_us, 100).await.unwrap() > 0 {}
        self.model.pass_time(self.now_us);
        self.compare("settled").await;
    }
}
