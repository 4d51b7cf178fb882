//! How many units of a variant there are, and what may happen to that number.
//!
//! `reserved` counts what held reservations hold until their expiry is written down; `overdue` is the
//! part of it whose time has run out already. It can be bought again at once, whether or not a
//! sweeper has come by.

use crate::error::Error;

/// The most units of a variant that can be on hand.
pub const ON_HAND_MAX: i32 = 2_000_000_000;
/// The largest adjustment either way.
pub const DELTA_MAX: i32 = 1_000_000_000;

/// The units of one variant. `0 <= overdue <= reserved <= on_hand`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stock {
    /// The variant's SKU.
    pub sku: String,
    /// Units in the house.
    pub on_hand: i32,
    /// Units that reservations in state HELD hold, as stored.
    pub reserved: i32,
    /// Those of them whose time has run out.
    pub overdue: i32,
    /// Raised by one with every change.
    pub version: i64,
}

impl Stock {
    /// Units held by reservations that have not expired.
    pub fn held(&self) -> i32 {
        self.reserved - self.overdue
    }

    /// Units that can be bought.
    pub fn available(&self) -> i32 {
        self.on_hand - self.held()
    }

    /// The stock after an adjustment by hand.
    pub fn adjust(&self, delta: i32) -> Result<Self, Error> {
        let on_hand = i64::from(self.on_hand) + i64::from(delta);
        if on_hand < i64::from(self.held()) {
            return Err(Error::StockReserved {
                sku: self.sku.clone(),
                on_hand: self.on_hand,
                reserved: self.held(),
            });
        }
        self.with_on_hand(on_hand)
    }

    /// The stock with so many units in the house.
    pub fn with_on_hand(&self, on_hand: i64) -> Result<Self, Error> {
        match i32::try_from(on_hand) {
            Ok(on_hand) if on_hand <= ON_HAND_MAX => Ok(Self {
                on_hand,
                version: self.version + 1,
                ..self.clone()
            }),
            _ => Err(Error::StockFull {
                sku: self.sku.clone(),
                on_hand_max: ON_HAND_MAX,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stock(on_hand: i32, reserved: i32, overdue: i32) -> Stock {
        Stock {
            sku: "A".into(),
            on_hand,
            reserved,
            overdue,
            version: 1,
        }
    }

    #[test]
    fn overdue_units_can_be_bought_at_once() {
        let stock = stock(10, 7, 3);
        assert_eq!(stock.held(), 4);
        assert_eq!(stock.available(), 6);
    }

    #[test]
    fn what_is_reserved_stays_covered() {
        assert_eq!(stock(10, 4, 0).adjust(-6).unwrap().on_hand, 4);
        assert!(matches!(
            stock(10, 4, 0).adjust(-7),
            Err(Error::StockReserved {
                on_hand: 10,
                reserved: 4,
                ..
            })
        ));
        assert_eq!(stock(10, 4, 4).adjust(-10).unwrap().on_hand, 0);
        assert_eq!(stock(0, 0, 0).adjust(5).unwrap().version, 2);
    }

    #[test]
    fn stock_never_overflows() {
        assert!(matches!(
            stock(ON_HAND_MAX, 0, 0).adjust(1),
            Err(Error::StockFull { .. })
        ));
        assert!(stock(ON_HAND_MAX, 0, 0).adjust(i32::MIN + 1).is_err());
    }
}
