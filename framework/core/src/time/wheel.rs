//! Hierarchical timing wheels: what is due in the future, found without sorting.
//!
//! A wheel holds the numbers of items by the millisecond they are due. Adding, removing and
//! taking out what is due next are O(1); items cascade through at most 11 levels of 64 slots.
//! Items due at the same time come out in the order they were added.
//!
//! Source: Varghese and Lauck, "Hashed and Hierarchical Timing Wheels", SOSP 1987, scheme 6, with
//! a bit map of the occupied slots of each level, so that empty stretches of time cost nothing.
//!
//! Invariant: a slot above the lowest level never covers the present, so what was added earlier
//! is never behind what was added later for the same time.
//!
//! Deliberately absent: the items themselves and any clock.

const LEVEL_BITS: u32 = 6;
const LEVELS: usize = 64_usize.div_ceil(LEVEL_BITS as usize);
const SLOTS: usize = 1 << LEVEL_BITS;
const NONE: u32 = u32::MAX;

/// Where an item hangs.
#[derive(Debug, Clone, Copy)]
struct Link {
    previous: u32,
    next: u32,
    /// Level and slot, or [`DETACHED`].
    place: u16,
}

const DETACHED: Link = Link { previous: NONE, next: NONE, place: u16::MAX };

#[derive(Debug)]
struct Level {
    occupied: u64,
    heads: [u32; SLOTS],
    tails: [u32; SLOTS],
}

#[derive(Debug, Default)]
struct Wheel {
    /// No item is due before this; times are offset so that they order as unsigned numbers.
    present: u64,
    levels: [Option<Box<Level>>; LEVELS],
}

/// Several wheels that share one numbering of items.
///
/// ```
/// use statefn_core::time::wheel::Wheels;
/// let mut wheels = Wheels::new(1);
/// wheels.insert(0, 7, 1_000);
/// wheels.insert(0, 8, -5);
/// let mut due = Vec::new();
/// assert_eq!(wheels.pop(0, 999, &mut due), Some(-5));
/// assert_eq!(due, [8]);
/// due.clear();
/// assert_eq!(wheels.pop(0, 999, &mut due), None);
/// ```
#[derive(Debug, Default)]
pub struct Wheels {
    links: Vec<Link>,
    dues: Vec<u64>,
    wheels: Vec<Wheel>,
}

impl Wheels {
    /// `count` empty wheels.
    #[must_use]
    pub fn new(count: usize) -> Self {
        Self {
            links: Vec::new(),
            dues: Vec::new(),
            wheels: std::iter::repeat_with(Wheel::default).take(count).collect(),
        }
    }

    /// Adds `item`, due at `due` milliseconds, to `wheel`; one that is due in the past is due now.
    ///
    /// # Panics
    /// If the item is in a wheel already.
    pub fn insert(&mut self, wheel: usize, item: u32, due: i64) {
        let at = item as usize;
        if at >= self.links.len() {
            self.links.resize(at + 1, DETACHED);
            self.dues.resize(at + 1, 0);
        }
        assert_eq!(self.links[at].place, DETACHED.place, "an item is in one wheel at a time");
        self.dues[at] = ordered(due);
        self.attach(wheel, item);
    }

    /// Takes `item` out of `wheel`; nothing happens if it is in none.
    pub fn remove(&mut self, wheel: usize, item: u32) {
        let Some(&Link { previous, next, place }) = self.links.get(item as usize) else { return };
        if place == DETACHED.place {
            return;
        }
        let (level, slot) = (usize::from(place) / SLOTS, usize::from(place) % SLOTS);
        let level = self.wheels[wheel].levels[level].as_mut().expect("the level of an item that hangs in it exists");
        match previous {
            NONE => level.heads[slot] = next,
            _ => self.links[previous as usize].next = next,
        }
        match next {
            NONE => level.tails[slot] = previous,
            _ => self.links[next as usize].previous = previous,
        }
        if level.heads[slot] == NONE {
            level.occupied &= !(1 << slot);
        }
        self.links[item as usize] = DETACHED;
    }

    /// Takes out all items of the earliest time at or before `upto`; returns that time.
    pub fn pop(&mut self, wheel: usize, upto: i64, out: &mut Vec<u32>) -> Option<i64> {
        let upto = ordered(upto);
        loop {
            let (level, slot, start) = self.wheels[wheel].first()?;
            if start > upto {
                return None;
            }
            let at = &mut self.wheels[wheel];
            at.present = start;
            let level_at = at.levels[level].as_mut().expect("an occupied level exists");
            let mut item = std::mem::replace(&mut level_at.heads[slot], NONE);
            level_at.tails[slot] = NONE;
            level_at.occupied &= !(1 << slot);
            while item != NONE {
                let next = self.links[item as usize].next;
                self.links[item as usize] = DETACHED;
                if level == 0 {
                    out.push(item);
                } else {
                    self.attach(wheel, item);
                }
                item = next;
            }
            if level == 0 {
                return Some(unordered(start));
            }
        }
    }

    /// A time at or before which nothing is due, but for the returned millisecond itself.
    #[must_use]
    pub fn earliest(&self, wheel: usize) -> Option<i64> {
        self.wheels[wheel].first().map(|(_, _, start)| unordered(start))
    }

    fn attach(&mut self, wheel: usize, item: u32) {
        let wheel = &mut self.wheels[wheel];
        let due = self.dues[item as usize].max(wheel.present);
        let level = match due ^ wheel.present {
            0 => 0,
            differing => (63 - differing.leading_zeros()) / LEVEL_BITS,
        };
        let slot = (due >> (level * LEVEL_BITS)) as usize % SLOTS;
        let level = level as usize;
        let level_at = wheel.levels[level]
            .get_or_insert_with(|| Box::new(Level { occupied: 0, heads: [NONE; SLOTS], tails: [NONE; SLOTS] }));
        let tail = std::mem::replace(&mut level_at.tails[slot], item);
        match tail {
            NONE => level_at.heads[slot] = item,
            _ => self.links[tail as usize].next = item,
        }
        level_at.occupied |= 1 << slot;
        self.links[item as usize] = Link { previous: tail, next: NONE, place: (level * SLOTS + slot) as u16 };
    }
}

impl Wheel {
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
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let time = prop_oneof![-50_i64..50, -100_000_i64..100_000, any::<i64>()];
        let step = prop_oneof![
            5 => time.clone().prop_map(Step::Insert),
            1 => (0_usize..50).prop_map(Step::Remove),
            1 => time.prop_map(Step::PopUpTo),
        ];
        prop::collection::vec(step, 0..200)
    }

    proptest! {
        #[test]
        fn a_wheel_equals_a_sorted_map(steps in steps()) {
            let mut wheels = Wheels::new(2);
            let mut model: BTreeMap<(i64, u32), ()> = BTreeMap::new();
            let mut present = i64::MIN;
            let mut next = 0;
            for step in steps {
                match step {
                    Step::Insert(due) => {
                        wheels.insert(1, next, due);
                        model.insert((due.max(present), next), ());
                        next += 1;
                    }
                    Step::Remove(nth) => {
                        if let Some(&(due, item)) = model.keys().nth(nth) {
                            wheels.remove(1, item);
                            model.remove(&(due, item));
                        }
                    }
                    Step::PopUpTo(upto) => {
                        let mut out = Vec::new();
                        while wheels.pop(1, upto, &mut out).is_some() {}
                        let due: Vec<(i64, u32)> = model.keys().copied().take_while(|(due, _)| *due <= upto).collect();
                        due.iter().for_each(|key| _ = model.remove(key));
                        prop_assert_eq!(out, due.iter().map(|(_, item)| *item).collect::<Vec<_>>());
                    }
                }
                // How far a wheel turns over an empty stretch is its own affair.
                present = unordered(wheels.wheels[1].present);
                prop_assert!(wheels.earliest(1).is_none() == model.is_empty());
                if let (Some(bound), Some(((due, _), ()))) = (wheels.earliest(1), model.first_key_value()) {
                    prop_assert!(bound <= *due);
                }
            }
        }
    }
}
