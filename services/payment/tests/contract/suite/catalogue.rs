//! A catalogue in memory that keeps the promises of the product service: idempotent by request id,
//! all lines or none, holds that run out, commits of what ran out only while it is free.

use async_trait::async_trait;
use kernel::{Currency, ReservationId};
use mesh_runtime::Clock;
use payment::catalogue::{Catalogue, QuoteError};
use payment::failure::{Failure, FailureCode};
use payment::payment::Item;
use payment::record::{ReserveAnswer, StockAnswer};
use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

pub(crate) struct MemoryCatalogue {
    clock: Clock,
    /// Nothing is answered.
    pub(crate) down: AtomicBool,
    /// Commits are refused as if the units had gone.
    pub(crate) refuse_commits: AtomicBool,
    /// Commits take effect, but their answers are lost.
    pub(crate) lose_commits: AtomicBool,
    state: Mutex<Shelf>,
}

#[derive(Default)]
struct Shelf {
    variants: BTreeMap<String, Variant>,
    reservations: BTreeMap<String, Held>,
    reserved: HashMap<String, ReserveAnswer>,
    answered: HashMap<String, StockAnswer>,
}

#[derive(Clone)]
struct Variant {
    on_hand: i32,
    price_minor: i64,
}

struct Held {
    reference: String,
    lines: Vec<Line>,
    expires_at_us: i64,
    released: bool,
}

struct Line {
    sku: String,
    held: i32,
    committed: i32,
    restocked: i32,
}

/// What has left the stock for a payment: SKU, units committed, units put back.
pub(crate) type Sold = BTreeMap<String, (i32, i32)>;

impl MemoryCatalogue {
    /// A at 1.00, B at 2.50, FREE at nothing; plenty of each.
    pub(crate) fn new(clock: Clock) -> Self {
        let shelf = Shelf {
            variants: [("A", 100), ("B", 250), ("FREE", 0)]
                .map(|(sku, price_minor)| {
                    (
                        sku.to_owned(),
                        Variant {
                            on_hand: 1_000_000,
                            price_minor,
                        },
                    )
                })
                .into(),
            ..Shelf::default()
        };
        Self {
            clock,
            down: AtomicBool::new(false),
            refuse_commits: AtomicBool::new(false),
            lose_commits: AtomicBool::new(false),
            state: Mutex::new(shelf),
        }
    }

    pub(crate) fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::SeqCst);
    }

    pub(crate) fn set_price(&self, sku: &str, price_minor: i64) {
        self.shelf().variants.get_mut(sku).unwrap().price_minor = price_minor;
    }

    pub(crate) fn set_on_hand(&self, sku: &str, on_hand: i32) {
        self.shelf().variants.get_mut(sku).unwrap().on_hand = on_hand;
    }

    pub(crate) fn on_hand(&self, sku: &str) -> i32 {
        self.shelf().variants[sku].on_hand
    }

    /// Units that are held and have not run out.
    pub(crate) fn reserved(&self, sku: &str) -> i32 {
        self.shelf().reserved(sku, self.clock.now_us())
    }

    /// What has left the stock for a payment.
    pub(crate) fn sold(&self, payment: &str) -> Sold {
        let shelf = self.shelf();
        let mut sold = Sold::new();
        for held in shelf
            .reservations
            .values()
            .filter(|held| held.reference == payment)
        {
            for line in &held.lines {
                let (committed, restocked) = sold.entry(line.sku.clone()).or_default();
                *committed += line.committed;
                *restocked += line.restocked;
            }
        }
        sold
    }

    fn shelf(&self) -> std::sync::MutexGuard<'_, Shelf> {
        self.state.lock().unwrap()
    }

    fn is_down(&self) -> bool {
        self.down.load(Ordering::SeqCst)
    }

    /// Answers a command once; repeated, it is answered the same.
    fn once(
        &self,
        request_id: &str,
        command: impl FnOnce(&mut Shelf, i64) -> StockAnswer,
    ) -> StockAnswer {
        if self.is_down() {
            return StockAnswer::Unavailable;
        }
        let mut shelf = self.shelf();
        if let Some(answer) = shelf.answered.get(request_id) {
            return answer.clone();
        }
        let answer = command(&mut shelf, self.clock.now_us());
        if answer != StockAnswer::Refused {
            shelf.answered.insert(request_id.to_owned(), answer.clone());
        }
        answer
    }
}

impl Shelf {
    fn reserved(&self, sku: &str, now_us: i64) -> i32 {
        let live = self.reservations.values();
        live.filter(|held| held.expires_at_us > now_us && !held.released)
            .flat_map(|held| &held.lines)
            .filter(|line| line.sku == sku)
            .map(|line| line.held)
            .sum()
    }

    fn available(&self, sku: &str, now_us: i64) -> i32 {
        self.variants.get(sku).map_or(0, |variant| variant.on_hand) - self.reserved(sku, now_us)
    }

    fn items(&self, lines: &[(String, i32)]) -> Result<Vec<Item>, usize> {
        let item = |(index, (sku, quantity)): (usize, &(String, i32))| {
            let variant = self.variants.get(sku).ok_or(index)?;
            Ok(Item {
                sku: sku.clone(),
                quantity: *quantity,
                product_id: format!("prd_{sku}"),
                title: format!("Title of {sku}"),
                category: format!("Category of {sku}"),
                unit_price_minor: variant.price_minor,
            })
        };
        lines.iter().enumerate().map(item).collect()
    }

    fn reserve(
        &mut self,
        reference: &str,
        lines: &[(String, i32)],
        expires_at_us: i64,
        now_us: i64,
    ) -> ReserveAnswer {
        let Ok(items) = self.items(lines) else {
            let failure = Failure::new(FailureCode::ProductUnavailable, "no such SKU");
            return ReserveAnswer::Refused(failure);
        };
        if let Some((sku, _)) = lines
            .iter()
            .find(|(sku, quantity)| self.available(sku, now_us) < *quantity)
        {
            let failure = Failure::new(FailureCode::OutOfStock, "not enough").of_item(sku);
            return ReserveAnswer::Refused(failure);
        }
        let reservation = ReservationId::generate(now_us).to_string();
        let lines = lines
            .iter()
            .map(|(sku, quantity)| Line {
                sku: sku.clone(),
                held: *quantity,
                committed: 0,
                restocked: 0,
            })
            .collect();
        let reference = reference.to_owned();
        let held = Held {
            reference,
            lines,
            expires_at_us,
            released: false,
        };
        self.reservations.insert(reservation.clone(), held);
        ReserveAnswer::Held {
            reservation,
            expires_at_us,
            items,
        }
    }

    fn commit(&mut self, reservation: &str, lines: &[(String, i32)], now_us: i64) -> StockAnswer {
        let Some(mut held) = self.reservations.remove(reservation) else {
            return StockAnswer::Refused;
        };
        let expired = held.expires_at_us <= now_us;
        let wanted: Vec<(usize, i32)> = if lines.is_empty() {
            held.lines
                .iter()
                .enumerate()
                .map(|(index, line)| (index, line.held))
                .collect()
        } else {
            let place = |sku: &String| held.lines.iter().position(|line| line.sku == *sku);
            lines
                .iter()
                .map(|(sku, quantity)| (place(sku).unwrap(), *quantity))
                .collect()
        };
        let possible = !held.released
            && wanted.iter().all(|(index, quantity)| {
                let line = &held.lines[*index];
                let free = !expired || self.available(&line.sku, now_us) >= *quantity;
                *quantity <= line.held && free
            });
        if possible {
            for (index, quantity) in wanted {
                let line = &mut held.lines[index];
                line.held -= quantity;
                line.committed += quantity;
                self.variants.get_mut(&line.sku).unwrap().on_hand -= quantity;
            }
        }
        self.reservations.insert(reservation.to_owned(), held);
        if possible {
            StockAnswer::Done {
                expires_at_us: None,
            }
        } else {
            StockAnswer::Refused
        }
    }

    fn restock(&mut self, reservation: &str, lines: &[(String, i32)]) -> StockAnswer {
        let Some(held) = self.reservations.get_mut(reservation) else {
            return StockAnswer::Refused;
        };
        let fits = lines.iter().all(|(sku, quantity)| {
            held.lines
                .iter()
                .any(|line| line.sku == *sku && line.restocked + quantity <= line.committed)
        });
        if !fits {
            return StockAnswer::Refused;
        }
        for (sku, quantity) in lines {
            let line = held.lines.iter_mut().find(|line| line.sku == *sku).unwrap();
            line.restocked += quantity;
            self.variants.get_mut(sku).unwrap().on_hand += quantity;
        }
        StockAnswer::Done {
            expires_at_us: None,
        }
    }
}

#[async_trait]
impl Catalogue for MemoryCatalogue {
    async fn quote(
        &self,
        lines: &[(String, i32)],
        _currency: Currency,
    ) -> Result<Vec<Item>, QuoteError> {
        if self.is_down() {
            return Err(QuoteError::Unavailable);
        }
        let reason = "does not exist".to_owned();
        self.shelf()
            .items(lines)
            .map_err(|index| QuoteError::NotSold { index, reason })
    }

    async fn reserve(
        &self,
        request_id: &str,
        reference: &str,
        lines: &[(String, i32)],
        _currency: Currency,
        hold_us: i64,
    ) -> ReserveAnswer {
        if self.is_down() {
            return ReserveAnswer::Unavailable;
        }
        let now_us = self.clock.now_us();
        let mut shelf = self.shelf();
        if let Some(answer) = shelf.reserved.get(request_id) {
            return answer.clone();
        }
        let answer = shelf.reserve(reference, lines, now_us + hold_us, now_us);
        if matches!(answer, ReserveAnswer::Held { .. }) {
            shelf.reserved.insert(request_id.to_owned(), answer.clone());
        }
        answer
    }

    async fn extend(&self, request_id: &str, reservation: &str, hold_us: i64) -> StockAnswer {
        self.once(request_id, |shelf, now_us| {
            let held = shelf.reservations.get_mut(reservation);
            let live = |held: &&mut Held| held.expires_at_us > now_us && !held.released;
            let Some(held) = held.filter(live) else {
                return StockAnswer::Refused;
            };
            held.expires_at_us = held.expires_at_us.max(now_us + hold_us);
            StockAnswer::Done {
                expires_at_us: Some(held.expires_at_us),
            }
        })
    }

    async fn commit(
        &self,
        request_id: &str,
        reservation: &str,
        lines: &[(String, i32)],
    ) -> StockAnswer {
        let refuse = self.refuse_commits.load(Ordering::SeqCst);
        let answer = self.once(request_id, |shelf, now_us| {
            if refuse {
                StockAnswer::Refused
            } else {
                shelf.commit(reservation, lines, now_us)
            }
        });
        if self.lose_commits.load(Ordering::SeqCst) {
            StockAnswer::Unavailable
        } else {
            answer
        }
    }

    async fn release(&self, request_id: &str, reservation: &str) -> StockAnswer {
        self.once(request_id, |shelf, _| {
            let Some(held) = shelf.reservations.get_mut(reservation) else {
                return StockAnswer::Refused;
            };
            if held.lines.iter().all(|line| line.held == 0) {
                return StockAnswer::Refused; // Already committed in full.
            }
            held.released = true;
            StockAnswer::Done {
                expires_at_us: None,
            }
        })
    }

    async fn restock(
        &self,
        request_id: &str,
        reservation: &str,
        lines: &[(String, i32)],
    ) -> StockAnswer {
        self.once(request_id, |shelf, _| shelf.restock(reservation, lines))
    }
}
