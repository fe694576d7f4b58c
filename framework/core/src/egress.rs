//! Egresses: where records leave the app; a program knows their names, settings say where they are.

use std::marker::PhantomData;

use crate::message::{Encoding, Message};

/// The egress that every app has: records, messages and rejections that nobody takes.
pub const DEAD_LETTERS: &str = "dead-letters";

/// A named way out for records of type `T`; always a `static`.
///
/// ```
/// use statefn_core::Egress;
/// # use statefn_core::{DecodeError, Encoding, Message, Wire};
/// # struct Entry;
/// # impl Wire for Entry {
/// #     fn encode(&self, _: &mut Vec<u8>) {}
/// #     fn decode(_: &[u8]) -> Result<Self, DecodeError> { Ok(Entry) }
/// # }
/// # impl Message for Entry { const NAME: &'static str = "entry"; const ENCODING: Encoding = Encoding::Json; }
/// static STATEMENTS: Egress<Entry> = Egress::new("statements");
/// assert_eq!(STATEMENTS.name(), "statements");
/// ```
#[derive(Debug)]
pub struct Egress<T> {
    name: &'static str,
    record: PhantomData<fn(&T)>,
}

impl<T: Message> Egress<T> {
    /// An egress with a stable name.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Self { name, record: PhantomData }
    }

    /// The stable name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// What `emits(..)` and `App::egress` say about this egress.
    #[must_use]
    pub fn declaration(&'static self) -> EgressDeclaration {
        EgressDeclaration { name: self.name, record: T::NAME, encoding: T::ENCODING, identity: self.identity() }
    }

    /// Which static this is; a static holds no number of its own, two apps may share it.
    pub(crate) fn identity(&'static self) -> usize {
        std::ptr::from_ref(self).addr()
    }
}

/// An egress without its type.
#[derive(Debug, Clone, Copy)]
pub struct EgressDeclaration {
    /// The stable name.
    pub name: &'static str,
    /// The name of the record type.
    pub record: &'static str,
    /// How its records are to be read.
    pub encoding: Encoding,
    pub(crate) identity: usize,
}
