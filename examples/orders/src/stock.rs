//! The stock of one item.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use statefn::prelude::*;

use crate::api::{Release, Reserve, Restock, SHIPMENTS, Ship, Shipment, SoldOut};

/// The stock of one item; the key is its name.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize, State)]
pub struct Stock {
    /// How many pieces nobody has asked for.
    pub left: u32,
    /// What one costs, in cents.
    pub price_cents: u64,
    /// By order, how many pieces wait for it.
    pub reserved: BTreeMap<String, u32>,
    /// How many pieces were shipped.
    pub shipped: u32,
}

#[function(name = "shop/stock", emits(SHIPMENTS))]
impl Stock {
    #[on]
    fn restock(&mut self, msg: &Restock) -> u32 {
        self.left += msg.count;
        self.price_cents = msg.price_cents;
        self.left
    }

    /// Answers what one piece costs.
    #[on]
    fn reserve(&mut self, msg: &Reserve) -> Result<u64, SoldOut> {
        self.left = self.left.checked_sub(msg.count).ok_or(SoldOut { left: self.left })?;
        self.reserved.insert(msg.order.clone(), msg.count);
        Ok(self.price_cents)
    }

    #[on]
    fn release(&mut self, msg: &Release) {
        self.left += self.reserved.remove(&msg.order).unwrap_or_default();
    }

    #[on]
    fn ship(&mut self, msg: &Ship, ctx: &mut Context<Self>) -> Result<(), Fault> {
        let count = self.reserved.remove(&msg.order);
        let count = count.ok_or_else(|| Fault::new("nothing is reserved for this order"))?;
        self.shipped += count;
        ctx.emit(&SHIPMENTS, &Shipment { item: ctx.key().clone(), count, order: msg.order.clone() });
        Ok(())
    }
}
