//! What the derives print does what it says: encodings, names, codes, fields.

use serde::{Deserialize, Serialize};
use statefn::{Egress, Encoding, Message, Reject, State, Wire, function};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Message)]
#[message(name = "sale")]
struct Sale {
    store: String,
    cents: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Message)]
#[message(name = "door")]
enum Door {
    Open,
    Shut { for_ms: u64 },
}

#[derive(Clone, PartialEq, prost::Message, Message)]
#[message(name = "sale-by-prost", prost)]
struct SaleByProst {
    #[prost(string, tag = "1")]
    store: String,
    #[prost(uint64, tag = "2")]
    cents: u64,
}

#[derive(Debug, PartialEq, Serialize, Deserialize, Reject)]
#[reject(code = "refused", status = 422)]
enum Refused {
    #[reject(code = "closed")]
    Closed,
    #[reject(status = 404)]
    Unknown(u64),
}

#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize, State)]
#[state(version = 2)]
struct Revenue {
    cents: u64,
    #[serde(rename = "by-store")]
    by_store: Vec<(String, u64)>,
}

static SALES: Egress<SaleByProst> = Egress::new("sales");

#[function(name = "shop/revenue", sends(Self), emits(SALES))]
impl Revenue {
    #[on]
    fn add(&mut self, sale: &Sale) {
        self.cents += sale.cents;
    }
    #[on(in_event_time_order)]
    fn add_by_prost(&mut self, sale: SaleByProst) {
        self.cents += sale.cents;
    }
    #[on]
    fn look(&self, door: &Door) -> u64 {
        self.cents + u64::from(*door == Door::Open)
    }
    #[on_timer]
    fn later(&mut self, _: &Sale) {}
}

/// Encodes and decodes a value, also into one that holds something else.
fn check<M: Wire + PartialEq + std::fmt::Debug>(value: M, mut other: M) -> Vec<u8> {
    let mut bytes = Vec::new();
    value.encode(&mut bytes);
    assert_eq!(M::decode(&bytes).expect("decodes"), value);
    other.decode_into(&bytes).expect("decodes into another");
    assert_eq!(other, value);
    bytes
}

#[test]
fn a_message_is_json_by_default() {
    let bytes = check(Sale { store: "a".into(), cents: 7 }, Sale { store: "b".into(), cents: 1 });
    assert_eq!(bytes, br#"{"store":"a","cents":7}"#);
    assert_eq!((Sale::NAME, Sale::ENCODING), ("sale", Encoding::Json));
    assert_eq!(check(Door::Shut { for_ms: 1 }, Door::Open), br#"{"Shut":{"for_ms":1}}"#);
    assert!(Sale::decode(b"{}").is_err());
}

#[test]
fn a_prost_message_is_protobuf() {
    let store = |store: &str, cents| SaleByProst { store: store.into(), cents };
    let bytes = check(store("a", 7), store("b", 1));
    assert_eq!(bytes, prost::Message::encode_to_vec(&store("a", 7)));
    // A field that is absent in the bytes is not left over from what was there before.
    assert_eq!(check(store("", 0), store("b", 1)), b"");
    assert_eq!((SaleByProst::NAME, SaleByProst::ENCODING), ("sale-by-prost", Encoding::Protobuf));
    assert!(SaleByProst::decode(&[0xff]).is_err());
}

#[test]
fn a_variant_has_its_own_code_and_status_or_those_of_the_enum() {
    assert_eq!((Refused::Closed.code(), Refused::Closed.status()), ("closed", 422));
    assert_eq!((Refused::Unknown(1).code(), Refused::Unknown(1).status()), ("refused", 404));
    assert_eq!(check(Refused::Unknown(1), Refused::Closed), br#"{"Unknown":1}"#);
}

#[test]
fn a_state_tells_its_fields_and_reads_back() {
    let fields: Vec<_> = Revenue::FIELDS.iter().map(|field| (field.name, field.ty)).collect();
    assert_eq!(fields, [("cents", "u64"), ("by-store", "Vec<(String, u64)>")]);
    let state = Revenue { cents: 3, by_store: vec![("a".into(), 3)] };
    let mut bytes = Vec::new();
    state.encode_state(&mut bytes);
    assert_eq!(bytes[1], 2, "the version stands behind the codec");
    assert_eq!(Revenue::decode_state(&bytes).expect("decodes"), state);
}

#[test]
fn a_function_declares_what_it_takes_sends_and_emits() {
    use statefn::__private::{Accepts, Access, Function, Handles, HandlesTimer, SendsTo, Target};

    assert_eq!(Revenue::NAME, "shop/revenue");
    assert_eq!(Revenue::MESSAGES, ["sale", "sale-by-prost", "door"]);
    assert_eq!(<Revenue as Accepts<Door>>::INDEX, 2);
    assert_eq!(<Revenue as Handles<Door>>::ACCESS, Access::Read);
    assert_eq!(<Revenue as Handles<Sale>>::ACCESS, Access::Write);
    let ordered =
        [<Revenue as Handles<Sale>>::IN_EVENT_TIME_ORDER, <Revenue as Handles<SaleByProst>>::IN_EVENT_TIME_ORDER];
    assert_eq!(ordered, [false, true]);
    assert_eq!(<Revenue as HandlesTimer<Sale>>::INDEX, 0);
    assert_eq!(<Revenue as SendsTo<Revenue>>::SLOT, 0);
    assert_eq!(Revenue::SENDS[0].name, "shop/revenue");
    let emits: Vec<_> = Revenue::emits().iter().map(|egress| (egress.name, egress.record)).collect();
    assert_eq!(emits, [("sales", "sale-by-prost")]);
    assert_eq!(format!("{:?}", Revenue::at("a")), r#"shop/revenue/"a""#);
}
