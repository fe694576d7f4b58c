// A prost message is a message like any other: handled, sent, set as a timer, emitted, answered.

use serde::{Deserialize, Serialize};
use statefn::prelude::*;

#[derive(Clone, PartialEq, prost::Message, Message)]
#[message(name = "sale", prost)]
struct Sale {
    #[prost(string, tag = "1")]
    store: String,
    #[prost(uint64, tag = "2")]
    cents: u64,
}

#[derive(Default, Clone, Serialize, Deserialize, State)]
struct Revenue {
    cents: u64,
}

static SALES: Egress<Sale> = Egress::new("sales");

#[function(name = "shop/revenue", sends(Self), emits(SALES))]
impl Revenue {
    #[on]
    fn add(&mut self, sale: &Sale, ctx: &mut Context<Self>) -> Sale {
        self.cents += sale.cents;
        ctx.emit(&SALES, sale);
        ctx.send(Revenue::at("all"), sale.clone());
        ctx.set_timer(ctx.event_time(), sale.clone());
        sale.clone()
    }

    #[on_timer]
    fn again(&mut self, sale: Sale) {
        self.cents += sale.cents;
    }
}

fn main() {}
