//! Addresses and the shard that a key lives in.

use std::marker::PhantomData;

use crate::{
    function::Target,
    key::{IntoKey, Key, KeyBytes},
};

/// The number of a shard, from 0.
pub type ShardId = u32;

/// Where a message goes: a function (or its contract) and a key.
///
/// Made by the `at` that `#[function]` and `contract!` print: `Account::at("alice")`. It holds the bytes of the key,
/// so a reference to a key is as good as the key and neither is copied to the heap unless it is long.
pub struct Address<T: Target> {
    key: KeyBytes,
    target: PhantomData<fn() -> T>,
}

impl<T: Target> Address<T> {
    /// The instance of `T` with this key.
    pub fn new(key: impl IntoKey<T::Key>) -> Self {
        Self { key: key.into_bytes(), target: PhantomData }
    }

    /// The bytes of the key.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        self.key.get()
    }
}

impl<T: Target> Clone for Address<T> {
    fn clone(&self) -> Self {
        Self { key: self.key.clone(), target: PhantomData }
    }
}

impl<T: Target> std::fmt::Debug for Address<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match T::Key::read(self.key()) {
            Ok(key) => write!(f, "{}/{key:?}", T::NAME),
            Err(_) => write!(f, "{}/{:?}", T::NAME, self.key),
        }
    }
}

/// The hash of Kafka's Java default partitioner: murmur2 with seed `0x9747b28c`.
///
/// Source: `org.apache.kafka.common.utils.Utils.murmur2`; the test uses its published vectors.
///
/// ```
/// assert_eq!(statefn_core::address::murmur2(b"foobar") as i32, -790332482);
/// ```
#[must_use]
pub fn murmur2(bytes: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;
    // The length of a key is far below u32::MAX (`limits::KEY_BYTES_MAX`).
    let mut h = 0x9747_b28c_u32 ^ (bytes.len() as u32);
    let mut words = bytes.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_le_bytes([word[0], word[1], word[2], word[3]]).wrapping_mul(M);
        k ^= k >> R;
        h = h.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        for (i, byte) in rest.iter().enumerate() {
            h ^= u32::from(*byte) << (8 * i);
        }
        h = h.wrapping_mul(M);
    }
    h ^= h >> 13;
    h = h.wrapping_mul(M);
    h ^ (h >> 15)
}

/// The shard of a key with this [`murmur2`] hash: `(hash & 0x7fffffff) mod shards`.
///
/// # Panics
/// If `shards` is 0.
///
/// ```
/// use statefn_core::address::{murmur2, shard_of};
/// assert!(shard_of(murmur2(b"alice"), 64) < 64);
/// ```
#[must_use]
pub fn shard_of(hash: u32, shards: u32) -> ShardId {
    (hash & 0x7fff_ffff) % shards
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn murmur2_equals_kafkas() {
        // From Kafka's UtilsTest.testMurmur2.
        let vectors: [(&[u8], i32); 6] = [
            (b"21", -973_932_308),
            (b"foobar", -790_332_482),
            (b"a-little-bit-long-string", -985_981_536),
            (b"a-little-bit-longer-string", -1_486_304_829),
            (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            (b"abc", 479_470_107),
        ];
        for (key, expected) in vectors {
            assert_eq!(murmur2(key) as i32, expected, "{key:?}");
        }
        // From librdkafka's rdmurmur2.c; they have all lengths of the last, incomplete word.
        let vectors: [(&[u8], u32); 11] = [
            (b"kafka", 0xd067_cf64),
            (b"giberish123456789", 0x8f55_2b0c),
            (b"1234", 0x9fc9_7b14),
            (b"234", 0xe7c0_09ca),
            (b"34", 0x8739_30da),
            (b"4", 0x5a4b_5ca1),
            (b"PreAmbleWillBeRemoved,ThePrePartThatIs", 0x7842_4f1c),
            (b"reAmbleWillBeRemoved,ThePrePartThatIs", 0x4a62_b377),
            (b"eAmbleWillBeRemoved,ThePrePartThatIs", 0xe0e4_e09e),
            (b"AmbleWillBeRemoved,ThePrePartThatIs", 0x62b8_b43f),
            (b"", 0x106e_08d9),
        ];
        for (key, expected) in vectors {
            assert_eq!(murmur2(key), expected, "{key:?}");
        }
    }

    #[test]
    fn keys_spread_over_the_shards() {
        const KEYS: usize = 64_000;
        for shards in [3, 64] {
            let mut counts = vec![0_usize; shards as usize];
            (0..KEYS).for_each(|key| counts[shard_of(murmur2(key.to_string().as_bytes()), shards) as usize] += 1);
            let mean = KEYS / shards as usize;
            let is_even = counts.iter().all(|count| count.abs_diff(mean) * 5 < mean);
            assert!(is_even, "each of {shards} shards has about {mean} keys: {counts:?}");
        }
    }

    #[test]
    fn the_sign_bit_does_not_count() {
        assert_eq!(shard_of(0x8000_0003, 64), 3);
    }
}
