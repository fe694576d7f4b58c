//! Messages that are decoded already, kept beside their bytes until a handler takes them.
//!
//! A router that forwards a record has it decoded; the handler would decode the same bytes again.
//! The bytes stay the truth: they are what is parked, kept for later or written to dead letters,
//! and what a handler gets where no decoded message is at hand.
//!
//! Invariant: a place that was given out is valid until `clear`; messages behind it stay, so that
//! the next ones are decoded into their memory.
//!
//! Deliberately absent: any way to encode what is here.

use std::{
    any::{Any, TypeId},
    fmt,
    num::NonZeroU32,
};

use crate::function::Incoming;

/// Decoded messages, a list for each type.
#[derive(Default)]
pub struct Decoded {
    /// An app forwards few types of messages, so they are looked for one by one.
    lists: Vec<List>,
}

struct List {
    of: TypeId,
    /// How many messages are given out.
    length: usize,
    /// A `Vec<Incoming<M>>`.
    messages: Box<dyn Any + Send>,
}

impl Decoded {
    /// Adds a message; returns its place, if there is room, and one that is no longer needed.
    pub fn put<M: Send + 'static>(&mut self, msg: M) -> (Option<NonZeroU32>, Option<M>) {
        let Some((length, messages)) = self.list_or_new::<M>() else { return (None, Some(msg)) };
        let Some(place) = u32::try_from(*length + 1).ok().and_then(NonZeroU32::new) else { return (None, Some(msg)) };
        let spare = match messages.get_mut(*length) {
            Some(slot) => slot.replace(msg),
            None => {
                messages.push(Incoming::new(msg));
                None
            }
        };
        *length += 1;
        (Some(place), spare)
    }

    fn list_or_new<M: Send + 'static>(&mut self) -> Option<(&mut usize, &mut Vec<Incoming<M>>)> {
        let of = TypeId::of::<M>();
        let at = self.lists.iter().position(|list| list.of == of);
        let at = at.unwrap_or_else(|| {
            self.lists.push(List { of, length: 0, messages: Box::new(Vec::<Incoming<M>>::new()) });
            self.lists.len() - 1
        });
        let list = &mut self.lists[at];
        Some((&mut list.length, list.messages.downcast_mut()?))
    }

    /// The messages of type `M` that are given out; the place `n` is the `n`th of them.
    pub(crate) fn list<M: Send + 'static>(&mut self) -> &mut [Incoming<M>] {
        let of = TypeId::of::<M>();
        let list = self.lists.iter_mut().find(|list| list.of == of);
        let list = list.and_then(|list| list.messages.downcast_mut::<Vec<_>>()?.get_mut(..list.length));
        list.unwrap_or_default()
    }

    /// Takes all places back, keeps the memory.
    pub fn clear(&mut self) {
        self.lists.iter_mut().for_each(|list| list.length = 0);
    }
}

/// A copy has the bytes only.
impl Clone for Decoded {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl fmt::Debug for Decoded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Decoded({})", self.lists.iter().map(|list| list.length).sum::<usize>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_kept_and_its_memory_used_again() {
        let mut decoded = Decoded::default();
        let (place, spare) = decoded.put("first".to_owned());
        assert_eq!((place.map(NonZeroU32::get), spare), (Some(1), None));
        assert_eq!(decoded.put(7_u64).0.map(NonZeroU32::get), Some(1), "each type has its own places");
        assert_eq!(decoded.list::<String>()[0].get(), "first");
        decoded.clear();
        assert!(decoded.list::<String>().is_empty());
        let (place, spare) = decoded.put("second".to_owned());
        assert_eq!((place.map(NonZeroU32::get), spare.as_deref()), (Some(1), Some("first")));
    }
}
