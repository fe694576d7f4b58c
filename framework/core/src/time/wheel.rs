//! Hierarchical timing wheels: what is due in the future, found without sorting.
//!
//! A wheel holds the numbers of items by the millisecond they are due. Adding, removing and
//! taking out what is due next are O(1); items cascade through at most 11 levels of 64 slots.
//!
//! The items of a slot stand in a chain of chunks, beside the times at which they are due. So a
//! cascade reads memory in its order and touches no item, and a wheel grows by one block of chunks
//! at a time; an item takes 13 bytes.
//!
//! Source: Varghese and Lauck, "Hashed and Hierarchical Timing Wheels", SOSP 1987, scheme 6, with
//! a bit map of the occupied slots of each level, so that empty stretches of time cost nothing.
//!
//! Invariants: a slot above the lowest level never covers the present, so the slot of an item
//! follows from its time and the present. All chunks of a slot but the last are full.
//!
//! Deliberately absent: the items themselves, any clock, and an order of items that are due at the
//! same time: one that is removed is replaced by the last of its slot.

const LEVEL_BITS: u32 = 6;
const LEVELS: usize = 64_usize.div_ceil(LEVEL_BITS as usize);
const SLOTS: usize = 1 << LEVEL_BITS;
const NONE: u32 = u32::MAX;

/// How many items a chunk holds: with the links it then takes three lines of the cache.
const CHUNK_ITEMS: usize = 15;
/// How many places a chunk has in the numbering of positions.
const CHUNK_POSITIONS: u32 = 16;
/// How many chunks are made at once.
const BLOCK_CHUNKS: usize = 16;

/// A stretch of a slot's items.
#[derive(Debug, Clone, Copy)]
struct Chunk {
    /// Offset, so that they order as unsigned numbers.
    dues: [u64; CHUNK_ITEMS],
    items: [u32; CHUNK_ITEMS],
    previous: u32,
    next: u32,
}

const EMPTY: Chunk = Chunk { dues: [0; CHUNK_ITEMS], items: [0; CHUNK_ITEMS], previous: NONE, next: NONE };

/// Every chunk, those included that no slot has.
#[derive(Debug)]
struct Chunks {
    blocks: Vec<Box<[Chunk]>>,
    /// The first one that is free; the others hang behind it.
    free: u32,
}

impl Chunks {
    fn get(&self, chunk: u32) -> &Chunk {
        &self.blocks[chunk as usize / BLOCK_CHUNKS][chunk as usize % BLOCK_CHUNKS]
    }

    fn get_mut(&mut self, chunk: u32) -> &mut Chunk {
        &mut self.blocks[chunk as usize / BLOCK_CHUNKS][chunk as usize % BLOCK_CHUNKS]
    }

    /// A chunk that nobody has, linked behind `previous`.
    fn take(&mut self, previous: u32) -> u32 {
        if self.free == NONE {
            self.grow();
        }
        let taken = self.free;
        let chunk = self.get_mut(taken);
        let free = std::mem::replace(&mut chunk.next, NONE);
        chunk.previous = previous;
        self.free = free;
        if previous != NONE {
            self.get_mut(previous).next = taken;
        }
        taken
    }

    fn release(&mut self, chunk: u32) {
        self.get_mut(chunk).next = self.free;
        self.free = chunk;
    }

    #[cold]
    fn grow(&mut self) {
        let first = self.blocks.len() * BLOCK_CHUNKS;
        let positions = (first + BLOCK_CHUNKS) * CHUNK_POSITIONS as usize;
        assert!(u32::try_from(positions).is_ok(), "a wheel holds fewer than 2^32 items");
        self.blocks.push(vec![EMPTY; BLOCK_CHUNKS].into_boxed_slice());
        (first..first + BLOCK_CHUNKS).rev().for_each(|chunk| self.release(chunk as u32));
    }
}

#[derive(Debug)]
struct Level {
    occupied: u64,
    heads: [u32; SLOTS],
    tails: [u32; SLOTS],
    /// How many items the last chunk of a slot has.
    fills: [u8; SLOTS],
}

#[derive(Debug, Default)]
struct Wheel {
    /// No item is due before this, but for those that came when it was past their time: they stand in its
    /// slot. Times are offset so that they order as unsigned numbers.
    present: u64,
    /// A time before which none of these is due, if there may be any.
    overdue: Option<u64>,
    levels: [Option<Box<Level>>; LEVELS],
}

/// Where an item is: it changes when time passes or others are removed, see [`Wheels::pop`].
pub type Position = u32;

/// Several wheels that share their memory.
///
/// ```
/// use statefn_core::time::wheel::Wheels;
/// let mut wheels = Wheels::new(1);
/// wheels.insert(0, 7, 1_000);
/// wheels.insert(0, 8, -5);
/// let mut due = Vec::new();
/// assert_eq!(wheels.pop(0, 999, &mut due, |_, _| {}), Some(-5));
/// assert_eq!(due, [8]);
/// due.clear();
/// assert_eq!(wheels.pop(0, 999, &mut due, |_, _| {}), None);
/// ```
#[derive(Debug)]
pub struct Wheels {
    chunks: Chunks,
    wheels: Vec<Wheel>,
}

impl Wheels {
    /// `count` empty wheels.
    #[must_use]
    pub fn new(count: usize) -> Self {
        Self {
            chunks: Chunks { blocks: Vec::new(), free: NONE },
            wheels: std::iter::repeat_with(Wheel::default).take(count).collect(),
        }
    }

    /// Adds `item`, due at `due` milliseconds, to `wheel`, and says where it is; one that is due in
    /// the past is due now.
    pub fn insert(&mut self, wheel: usize, item: u32, due: i64) -> Position {
        self.attach(wheel, item, ordered(due))
    }

    /// Takes `item` out of `wheel`, where it is at `position`; tells `moved` if another one is now
    /// there.
    ///
    /// # Panics
    /// If the item is elsewhere.
    pub fn remove(&mut self, wheel: usize, item: u32, position: Position, moved: impl FnOnce(u32, Position)) {
        let (chunk, at) = (position / CHUNK_POSITIONS, (position % CHUNK_POSITIONS) as usize);
        let Chunk { dues, items, .. } = self.chunks.get(chunk);
        assert_eq!(items[at], item, "an item is where its owner was told that it is");
        let (level, slot) = self.wheels[wheel].slot_of(dues[at]);
        let level = self.wheels[wheel].levels[level].as_mut().expect("the level of an item that is in it exists");
        let tail = level.tails[slot];
        let last = usize::from(level.fills[slot]) - 1;
        let Chunk { dues, items, previous, .. } = *self.chunks.get(tail);
        if (tail, last) != (chunk, at) {
            let hole = self.chunks.get_mut(chunk);
            (hole.dues[at], hole.items[at]) = (dues[last], items[last]);
            moved(items[last], position);
        }
        level.fills[slot] = last as u8;
        if last > 0 {
            return;
        }
        self.chunks.release(tail);
        if previous == NONE {
            level.occupied &= !(1 << slot);
        } else {
            self.chunks.get_mut(previous).next = NONE;
            (level.tails[slot], level.fills[slot]) = (previous, CHUNK_ITEMS as u8);
        }
    }

    /// Takes out all items of the earliest time at or before `upto`, in any order; returns that
    /// time. Tells `moved` where others are from now on.
    pub fn pop(
        &mut self,
        wheel: usize,
        upto: i64,
        out: &mut Vec<u32>,
        moved: impl FnMut(u32, Position),
    ) -> Option<i64> {
        self.take_out(wheel, upto, 0, out, moved)
    }

    /// As [`Self::pop`], but may take out the items of some milliseconds at once, 64 at most, of
    /// which nothing is left then; returns a time that is not behind the first of them.
    pub fn pop_some(
        &mut self,
        wheel: usize,
        upto: i64,
        out: &mut Vec<u32>,
        moved: impl FnMut(u32, Position),
    ) -> Option<i64> {
        self.take_out(wheel, upto, 1, out, moved)
    }

    /// Takes out the first slot of a level up to `level_max` that ends at or before `upto`.
    fn take_out(
        &mut self,
        wheel: usize,
        upto: i64,
        level_max: usize,
        out: &mut Vec<u32>,
        mut moved: impl FnMut(u32, Position),
    ) -> Option<i64> {
        let upto = ordered(upto);
        loop {
            let (level, slot, start) = self.wheels[wheel].first()?;
            if start > upto {
                return None;
            }
            let is_whole = level == 0 || level <= level_max && upto - start >= (1 << (level as u32 * LEVEL_BITS)) - 1;
            let at = &mut self.wheels[wheel];
            // The slot of the present is taken out now, or is empty.
            (at.present, at.overdue) = (start, None);
            let level_at = at.levels[level].as_mut().expect("an occupied level exists");
            level_at.occupied &= !(1 << slot);
            let (mut chunk, last) = (level_at.heads[slot], usize::from(level_at.fills[slot]));
            while chunk != NONE {
                let Chunk { dues, items, next, .. } = *self.chunks.get(chunk);
                let fill = if next == NONE { last } else { CHUNK_ITEMS };
                self.chunks.release(chunk);
                if is_whole {
                    out.extend_from_slice(&items[..fill]);
                } else {
                    for (item, due) in items.iter().zip(dues).take(fill) {
                        moved(*item, self.attach(wheel, *item, due));
                    }
                }
                chunk = next;
            }
            if is_whole {
                return Some(unordered(start));
            }
        }
    }

    /// A time at or before which nothing is due, but for the returned millisecond itself.
    #[must_use]
    pub fn earliest(&self, wheel: usize) -> Option<i64> {
        let wheel = &self.wheels[wheel];
        let (_, _, start) = wheel.first()?;
        let overdue = wheel.overdue.filter(|_| start == wheel.present);
        Some(unordered(overdue.map_or(start, |overdue| overdue.min(start))))
    }

    /// What they take of memory, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let levels = self.wheels.iter().flat_map(|wheel| &wheel.levels).flatten().count();
        let chunks = self.chunks.blocks.len() * BLOCK_CHUNKS * size_of::<Chunk>();
        chunks + levels * size_of::<Level>() + self.wheels.len() * size_of::<Wheel>()
    }

    #[inline]
    fn attach(&mut self, wheel: usize, item: u32, due: u64) -> Position {
        let wheel = &mut self.wheels[wheel];
        if due < wheel.present {
            wheel.overdue = Some(wheel.overdue.map_or(due, |overdue| overdue.min(due)));
        }
        let (level, slot) = wheel.slot_of(due);
        let level = wheel.levels[level].get_or_insert_with(|| {
            Box::new(Level { occupied: 0, heads: [NONE; SLOTS], tails: [NONE; SLOTS], fills: [0; SLOTS] })
        });
        if level.occupied & 1 << slot == 0 {
            level.occupied |= 1 << slot;
            level.tails[slot] = self.chunks.take(NONE);
            (level.heads[slot], level.fills[slot]) = (level.tails[slot], 0);
        } else if usize::from(level.fills[slot]) == CHUNK_ITEMS {
            (level.tails[slot], level.fills[slot]) = (self.chunks.take(level.tails[slot]), 0);
        }
        let (tail, fill) = (level.tails[slot], level.fills[slot]);
        level.fills[slot] += 1;
        let chunk = self.chunks.get_mut(tail);
        chunk.dues[usize::from(fill)] = due;
        chunk.items[usize::from(fill)] = item;
        tail * CHUNK_POSITIONS + u32::from(fill)
    }
}

impl Wheel {
    /// The level and the slot of an item that is due at `due`.
    #[inline]
    fn slot_of(&self, due: u64) -> (usize, usize) {
        let due = due.max(self.present);
        let level = match due ^ self.present {
            0 => 0,
            differing => (63 - differing.leading_zeros()) / LEVEL_BITS,
        };
        (level as usize, (due >> (level * LEVEL_BITS)) as usize % SLOTS)
    }

    /// The first occupied slot: its level, its place, and the time it begins at.
    fn first(&self) -> Option<(usize, usize, u64)> {
        for (level, at) in self.levels.iter().enumerate() {
            let Some(at) = at else { continue };
            if at.occupied == 0 {
                continue;
            }
            let slot = at.occupied.trailing_zeros() as usize;
            let shift = level as u32 * LEVEL_BITS;
            let above = u64::MAX.checked_shl(shift + LEVEL_BITS).unwrap_or(0);
            return Some((level, slot, self.present & above | (slot as u64) << shift));
        }
        None
    }
}

/// Moves signed time to unsigned numbers of the same order.
fn ordered(time: i64) -> u64 {
    time as u64 ^ 1 << 63
}

fn unordered(time: u64) -> i64 {
    (time ^ 1 << 63) as i64
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Insert(i64),
        Remove(usize),
        PopUpTo(i64),
        PopSomeUpTo(i64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let time = prop_oneof![4 => -50_i64..50, 4 => -100_000_i64..100_000, 1 => any::<i64>(), 4 => Just(40_i64)];
        let step = prop_oneof![
            10 => time.clone().prop_map(Step::Insert),
            3 => (0_usize..50).prop_map(Step::Remove),
            1 => time.clone().prop_map(Step::PopUpTo),
            1 => time.prop_map(Step::PopSomeUpTo),
        ];
        prop::collection::vec(step, 0..400)
    }

    /// Wheels and where each of their items is, as its owner knows it.
    struct Tracked {
        wheels: Wheels,
        positions: BTreeMap<u32, Position>,
    }

    impl Tracked {
        fn insert(&mut self, item: u32, due: i64) {
            let position = self.wheels.insert(1, item, due);
            self.positions.insert(item, position);
        }

        fn remove(&mut self, item: u32) {
            let position = self.positions.remove(&item).expect("it was inserted");
            self.wheels.remove(1, item, position, |moved, position| _ = self.positions.insert(moved, position));
        }

        /// What is due up to a time, that of one time in the order of its numbers; `dues` tells the
        /// times.
        fn pop_all(&mut self, upto: i64, some: bool, dues: &BTreeMap<u32, i64>) -> Vec<u32> {
            let mut out = Vec::new();
            loop {
                let from = out.len();
                let moved = |item, position| _ = self.positions.insert(item, position);
                let popped = match some {
                    true => self.wheels.pop_some(1, upto, &mut out, moved),
                    false => self.wheels.pop(1, upto, &mut out, moved),
                };
                let Some(time) = popped else { return out };
                out[from..].sort_unstable_by_key(|item| (dues[item], *item));
                let first = dues[&out[from]];
                assert!(if some { time <= first } else { time == first }, "{time} is the time of {first}");
                out[from..].iter().for_each(|item| _ = self.positions.remove(item));
            }
        }
    }

    proptest! {
        #[test]
        fn a_wheel_equals_a_sorted_map(steps in steps()) {
            let mut tracked = Tracked { wheels: Wheels::new(2), positions: BTreeMap::new() };
            let mut model: BTreeMap<(i64, u32), ()> = BTreeMap::new();
            let (mut dues, mut own) = (BTreeMap::new(), BTreeMap::new());
            let mut present = i64::MIN;
            let mut next = 0;
            for step in steps {
                match step {
                    Step::Insert(due) => {
                        tracked.insert(next, due);
                        dues.insert(next, due.max(present));
                        own.insert(next, due);
                        model.insert((due.max(present), next), ());
                        next += 1;
                    }
                    Step::Remove(nth) => {
                        if let Some(&(due, item)) = model.keys().nth(nth) {
                            tracked.remove(item);
                            model.remove(&(due, item));
                        }
                    }
                    Step::PopUpTo(upto) | Step::PopSomeUpTo(upto) => {
                        let out = tracked.pop_all(upto, matches!(step, Step::PopSomeUpTo(_)), &dues);
                        let due: Vec<(i64, u32)> = model.keys().copied().take_while(|(due, _)| *due <= upto).collect();
                        due.iter().for_each(|key| _ = model.remove(key));
                        prop_assert_eq!(out, due.iter().map(|(_, item)| *item).collect::<Vec<_>>());
                    }
                }
                let wheels = &tracked.wheels;
                // How far a wheel turns over an empty stretch is its own affair.
                present = unordered(wheels.wheels[1].present);
                prop_assert!(wheels.earliest(1).is_none() == model.is_empty());
                // One that came past its time is due now, and yet it holds what waits for its own time.
                if let (Some(bound), Some(due)) = (wheels.earliest(1), model.keys().map(|(_, item)| own[item]).min()) {
                    prop_assert!(bound <= due);
                }
            }
        }

        #[test]
        fn chunks_are_used_again(rounds in 1_usize..20, count in 1_u32..2_000) {
            let mut wheels = Wheels::new(1);
            let mut due = Vec::new();
            for round in 0..rounds as i64 {
                (0..count).for_each(|item| _ = wheels.insert(0, item, round * 10 + i64::from(item % 7)));
                while wheels.pop(0, round * 10 + 9, &mut due, |_, _| {}).is_some() {}
            }
            prop_assert_eq!(due.len(), rounds * count as usize);
            // A cascade takes chunks of lower levels before it has given back all of its own.
            let chunks = wheels.chunks.blocks.len() * BLOCK_CHUNKS;
            prop_assert!(chunks <= count as usize / CHUNK_ITEMS + 2 * 7 + 2 * BLOCK_CHUNKS, "{} chunks", chunks);
        }
    }
}
