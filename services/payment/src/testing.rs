//! What tests of several modules begin with.

use crate::attempt::{Attempt, AttemptState, Hold};
use crate::charges::Charges;
use crate::fact::Turn;
use crate::payment::{CaptureMethod, Item, Order, Payment};
use crate::policy::Rules;
use kernel::Currency;

/// A payment of two items of 100 dollar cents, with an attempt that has taken them.
pub(crate) fn paid(rules: &Rules, now_us: i64) -> Payment {
    let item = Item {
        sku: "A".into(),
        quantity: 2,
        product_id: "prd_1".into(),
        title: "A".into(),
        category: "c".into(),
        unit_price_minor: 100,
    };
    let order = Order {
        principal: "shop".into(),
        order_ref: "1".into(),
        customer_ref: String::new(),
        currency: Currency::parse("USD").unwrap(),
        items: vec![item],
        charges: Charges::default(),
        payment_method: "pm_card_visa".into(),
        capture_method: CaptureMethod::Automatic,
        provider: "p".into(),
        ordered_at_us: None,
    };
    let mut payment = Payment::create(order, &mut Turn::new(now_us, rules)).unwrap();
    let mut attempt = Attempt::new("pm_card_visa".into(), 200, now_us);
    attempt.state = AttemptState::Captured;
    attempt.taken = true;
    attempt.hold = Hold::Committed;
    payment.attempts.push(attempt);
    payment
}
