//! Keys that the hash does not tell apart.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use statefn::{
    __private::{murmur2, shard_of},
    prelude::*,
    testing::TestApp,
};

const SHARDS: u32 = 64;

#[derive(Clone, Serialize, Deserialize, Message)]
#[message(name = "hit")]
struct Hit {
    key: u64,
}

#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize, State)]
struct Hits {
    key: u64,
    count: u64,
}

#[function(name = "keys/hits", key = u64)]
impl Hits {
    #[on]
    fn hit(&mut self, msg: &Hit) {
        assert!(self.count == 0 || self.key == msg.key, "the state of {} was given to {}", self.key, msg.key);
        (self.key, self.count) = (msg.key, self.count + 1);
    }
}

/// Two keys whose hashes are equal, and one whose hash is not, all of one shard.
fn keys() -> [u64; 3] {
    let mut known = BTreeMap::new();
    let hash = |key: u64| murmur2(&key.to_be_bytes());
    // Keys that differ in one word alone have different hashes.
    let mut spread = (1_u64..).map(|number| number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let twins = spread.find_map(|key| known.insert(hash(key), key).map(|twin| [twin, key]));
    let [first, second] = twins.expect("there are more keys than hashes");
    let is_near =
        |key: &u64| hash(*key) != hash(first) && shard_of(hash(*key), SHARDS) == shard_of(hash(first), SHARDS);
    [first, second, (0..).find(is_near).expect("a shard has many keys")]
}

#[test]
fn keys_with_equal_hashes_have_states_of_their_own() {
    let app = App::new("keys")
        .function::<Hits>()
        .ingress(Ingress::<Hit>::new("hits").to::<Hits>(), |hit, out| out.send(Hits::at(hit.key), hit));
    let mut app = TestApp::with_shards(app, SHARDS);
    let keys = keys();
    for round in 1..=3 {
        // More than are looked up at once, so that some calls find the keys there and some do not.
        for _ in 0..30 {
            keys.iter().for_each(|key| app.ingest("hits", &Hit { key: *key }));
        }
        app.run();
        for key in keys {
            assert_eq!(app.state(Hits::at(key)), Some(Hits { key, count: round * 30 }));
        }
    }
    assert!(app.parked().is_empty());
}
