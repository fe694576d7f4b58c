//! Short stretches of bytes, each at a place that does not change while it is there.
//!
//! A page holds slots of one size, a multiple of 4 bytes; what is long has a page of its own. So a
//! stretch takes its length, rounded up, and half a byte of its page; and memory grows by a page at
//! a time.
//!
//! Invariants: a page whose slots are all free is given back, unless it is the last of its size
//! that has a free one; so sizes that are no longer used take no memory. Which place a stretch gets
//! follows from the calls before alone.
//!
//! Deliberately absent: what the bytes mean, and their exact length: a stretch reads as its whole
//! slot, behind its bytes stands anything.

use std::ops::Range;

/// Slots of a page are numbered by the low bits of a place.
const SLOT_BITS: u32 = 8;
/// The largest place: what is above is the owner's.
pub(super) const PLACE_MAX: u32 = (1 << 31) - 1;
/// With the head that an allocator puts before it, 2 KiB.
const PAGE_BYTES: usize = 2_032;
/// Sizes of slots are multiples of this.
const STEP_BYTES: usize = 4;
/// The smallest slot, of which a page has at most 256.
const SLOT_BYTES_MIN: usize = 8;
/// A longer stretch has a page of its own.
const SHARED_BYTES_MAX: usize = 256;
const CLASSES: usize = SHARED_BYTES_MAX / STEP_BYTES + 1;
const NONE: u32 = u32::MAX;
const NO_SLOT: u16 = u16::MAX;

#[derive(Debug)]
struct Page {
    /// Empty if the page is given back.
    bytes: Box<[u8]>,
    slot_bytes: u32,
    slots: u16,
    /// The first slot that is free again; its first bytes name the next one.
    free: u16,
    /// From here on no slot was ever used.
    fresh: u16,
    used: u16,
    /// The pages of this size that have a free slot are chained.
    previous: u32,
    next: u32,
}

impl Page {
    fn is_full(&self) -> bool {
        self.used == self.slots
    }

    fn slot(&self, slot: usize) -> &[u8] {
        let length = self.slot_bytes as usize;
        &self.bytes[slot * length..][..length]
    }

    fn slot_mut(&mut self, slot: usize) -> &mut [u8] {
        let length = self.slot_bytes as usize;
        &mut self.bytes[slot * length..][..length]
    }

    fn take(&mut self) -> u16 {
        self.used += 1;
        if self.free == NO_SLOT {
            self.fresh += 1;
            return self.fresh - 1;
        }
        let taken = self.free;
        self.free = self.next_free(taken);
        taken
    }

    fn next_free(&self, slot: u16) -> u16 {
        let bytes = self.slot(usize::from(slot));
        u16::from_le_bytes([bytes[0], bytes[1]])
    }

    fn release(&mut self, slot: u16) {
        let free = std::mem::replace(&mut self.free, slot);
        self.slot_mut(usize::from(slot))[..2].copy_from_slice(&free.to_le_bytes());
        self.used -= 1;
    }
}

/// The stretches of one owner.
#[derive(Debug)]
pub(super) struct Slab {
    pages: Vec<Page>,
    /// Numbers of pages that are given back.
    free_pages: Vec<u32>,
    /// By size, the first page that has a free slot.
    open: [u32; CLASSES],
    length: usize,
    /// What all pages hold together.
    page_bytes: usize,
}

impl Slab {
    pub(super) fn new() -> Self {
        Self { pages: Vec::new(), free_pages: Vec::new(), open: [NONE; CLASSES], length: 0, page_bytes: 0 }
    }

    /// How many stretches there are.
    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// Makes room for `length` bytes; returns their place.
    pub(super) fn insert(&mut self, length: usize) -> u32 {
        let slot_bytes = length.next_multiple_of(STEP_BYTES).max(SLOT_BYTES_MIN);
        let class = slot_bytes / STEP_BYTES;
        let page = match self.open.get(class) {
            Some(&open) if open != NONE => open,
            Some(_) => self.add_page(slot_bytes, PAGE_BYTES / slot_bytes),
            None => self.add_page(slot_bytes, 1),
        };
        self.length += 1;
        let at = &mut self.pages[page as usize];
        let slot = at.take();
        if at.is_full() {
            self.close(page);
        }
        page << SLOT_BITS | u32::from(slot)
    }

    /// Gives the slot at `place` back.
    pub(super) fn remove(&mut self, place: u32) {
        self.length -= 1;
        let page = place >> SLOT_BITS;
        let at = &mut self.pages[page as usize];
        let was_full = at.is_full();
        at.release((place % (1 << SLOT_BITS)) as u16);
        let (is_unused, class) = (at.used == 0, at.slot_bytes as usize / STEP_BYTES);
        if was_full {
            self.open(page);
        }
        if is_unused && (class >= CLASSES || self.open[class] != page || self.pages[page as usize].next != NONE) {
            self.close(page);
            let bytes = std::mem::take(&mut self.pages[page as usize].bytes);
            self.page_bytes -= bytes.len();
            self.free_pages.push(page);
        }
    }

    /// The slot at `place`: what was written there, and anything behind it.
    #[inline]
    pub(super) fn get(&self, place: u32) -> &[u8] {
        self.pages[(place >> SLOT_BITS) as usize].slot((place % (1 << SLOT_BITS)) as usize)
    }

    #[inline]
    pub(super) fn get_mut(&mut self, place: u32) -> &mut [u8] {
        self.pages[(place >> SLOT_BITS) as usize].slot_mut((place % (1 << SLOT_BITS)) as usize)
    }

    /// What it takes of memory, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.page_bytes + self.pages.capacity() * size_of::<Page>() + self.free_pages.capacity() * 4 + size_of::<Self>()
    }

    /// Every slot that is in use.
    pub(super) fn slots(&self) -> impl Iterator<Item = &[u8]> {
        self.slots_of(0..self.pages.len())
    }

    /// How many pages there are, those that are given back included.
    pub(super) fn pages(&self) -> usize {
        self.pages.len()
    }

    /// Every slot of some pages that is in use.
    pub(super) fn slots_of(&self, pages: Range<usize>) -> impl Iterator<Item = &[u8]> {
        let pages = pages.start.min(self.pages.len())..pages.end.min(self.pages.len());
        self.pages[pages].iter().filter(|page| page.used > 0).flat_map(|page| {
            let mut is_free = [false; 1 << SLOT_BITS];
            let mut free = page.free;
            while free != NO_SLOT {
                is_free[usize::from(free)] = true;
                free = page.next_free(free);
            }
            (0..usize::from(page.fresh)).filter(move |slot| !is_free[*slot]).map(|slot| page.slot(slot))
        })
    }

    fn add_page(&mut self, slot_bytes: usize, slots: usize) -> u32 {
        let bytes = vec![0; slot_bytes * slots].into_boxed_slice();
        self.page_bytes += bytes.len();
        let slot_bytes = u32::try_from(slot_bytes).expect("what is pending has less than 4 GiB");
        let slots = u16::try_from(slots).expect("a page has at most 256 slots");
        let new = Page { bytes, slot_bytes, slots, free: NO_SLOT, fresh: 0, used: 0, previous: NONE, next: NONE };
        let page = self.free_pages.pop().unwrap_or(self.pages.len() as u32);
        assert!(page <= PLACE_MAX >> SLOT_BITS, "a shard has at most 2^23 pages of pending timers");
        match self.pages.get_mut(page as usize) {
            Some(at) => *at = new,
            None => self.pages.push(new),
        }
        self.open(page);
        page
    }

    /// Puts a page that has a free slot into the chain of its size.
    fn open(&mut self, page: u32) {
        let class = self.pages[page as usize].slot_bytes as usize / STEP_BYTES;
        let Some(open) = self.open.get_mut(class) else { return };
        let next = std::mem::replace(open, page);
        let at = &mut self.pages[page as usize];
        (at.previous, at.next) = (NONE, next);
        if next != NONE {
            self.pages[next as usize].previous = page;
        }
    }

    /// Takes a page out of the chain of its size.
    fn close(&mut self, page: u32) {
        let &Page { slot_bytes, previous, next, .. } = &self.pages[page as usize];
        let Some(open) = self.open.get_mut(slot_bytes as usize / STEP_BYTES) else { return };
        match previous {
            NONE => *open = next,
            _ => self.pages[previous as usize].next = next,
        }
        if next != NONE {
            self.pages[next as usize].previous = previous;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn pages_in_use(slab: &Slab) -> usize {
        slab.pages.iter().filter(|page| !page.bytes.is_empty()).count()
    }

    proptest! {
        #[test]
        fn a_slab_equals_a_map(
            steps in prop::collection::vec(
                prop_oneof![
                    5 => prop_oneof![3 => Just(30_usize), 2 => 0_usize..80, 1 => 200_usize..600].prop_map(Ok),
                    3 => (0_usize..200).prop_map(Err),
                ],
                0..600,
            ),
        ) {
            let mut slab = Slab::new();
            let mut model: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
            for (number, step) in steps.into_iter().enumerate() {
                match step {
                    Ok(length) => {
                        let bytes = vec![number as u8; length];
                        let place = slab.insert(length);
                        slab.get_mut(place)[..length].copy_from_slice(&bytes);
                        prop_assert!(model.insert(place, bytes).is_none(), "a place is given out once");
                    }
                    Err(nth) => {
                        if let Some(place) = model.keys().nth(nth).copied() {
                            slab.remove(place);
                            model.remove(&place);
                        }
                    }
                }
                prop_assert_eq!(slab.len(), model.len());
                prop_assert_eq!(slab.page_bytes, slab.pages.iter().map(|page| page.bytes.len()).sum::<usize>());
            }
            for (place, bytes) in &model {
                prop_assert_eq!(&slab.get(*place)[..bytes.len()], &bytes[..]);
            }
            let lengths: Vec<usize> = slab.slots().map(<[u8]>::len).collect();
            let expected: Vec<usize> = model.values().map(|bytes| bytes.len().next_multiple_of(STEP_BYTES).max(8)).collect();
            prop_assert_eq!(lengths.len(), model.len());
            prop_assert_eq!(lengths.iter().sum::<usize>(), expected.iter().sum::<usize>());
            model.keys().for_each(|place| slab.remove(*place));
            let classes = slab.open.iter().filter(|open| **open != NONE).count();
            prop_assert_eq!(pages_in_use(&slab), classes, "of each size one page stays at most");
        }
    }

    #[test]
    fn a_size_that_is_no_longer_used_gives_its_memory_back() {
        let mut slab = Slab::new();
        for length in [24, 28, 32] {
            let places: Vec<u32> = (0..10_000).map(|_| slab.insert(length)).collect();
            assert!(pages_in_use(&slab) < 10_000 * 33 / PAGE_BYTES + 3);
            places.into_iter().for_each(|place| slab.remove(place));
        }
        assert_eq!(pages_in_use(&slab), 3);
    }
}
