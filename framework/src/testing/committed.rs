//! What a simulated world has committed at a moment, with types.
//!
//! Invariant: everything here is read from the journals' folds, so nothing that is only in the
//! memory of a worker is ever seen. The folds of all shards are of one moment; a message that has
//! left one state and not reached the next is on its way, never in both and never in none.

use std::{any::Any, fmt};

use statefn_core::{
    Address, Egress, Key, Message,
    dead_letter::DeadLetter,
    egress::DEAD_LETTERS,
    envelope::opened,
    function::{Function, MessageTo, Target, TimerOf},
    program::Program,
    shard::{
        frame::{
            MessageRef, PENDING_DELAYED, PENDING_EVENT_TIMER, PENDING_MESSAGE, PENDING_PROCESSING_TIMER,
            PENDING_REARMED,
        },
        image::{Image, Parked},
    },
};
use statefn_sim::check::Audit;

use super::{AnswerTo, decode, outside::wrong, read_reply, trial::Made};

/// A request that was made: the key, the message, and the answer, if it has one (yet).
pub type Requested<T, M> = (<T as Target>::Key, M, Option<AnswerTo<M, T>>);

/// What a world has committed; the checks of a [`Simulation`](super::Simulation) are given it.
///
/// # Examples
///
/// ```
/// # use serde::{Deserialize, Serialize};
/// # use statefn::{prelude::*, testing::{Committed, simulate}};
/// # #[derive(Default, Clone, Serialize, Deserialize, State)] struct Counter { count: u64 }
/// # #[derive(Clone, Serialize, Deserialize, Message)] #[message(name = "word")] struct Word { text: String }
/// # #[derive(Clone, Serialize, Deserialize, Message)] #[message(name = "over")] struct Over {}
/// # static COUNTED: Egress<Word> = Egress::new("counted");
/// # #[function(name = "words/counter", emits(COUNTED))]
/// # impl Counter {
/// #     #[on]
/// #     fn word(&mut self, word: &Word, ctx: &mut Context<Self>) {
/// #         self.count += 1;
/// #         ctx.emit(&COUNTED, word);
/// #         ctx.set_timer_as("over", ctx.event_time() + std::time::Duration::from_secs(1), Over {});
/// #     }
/// #     #[on_timer] fn over(&mut self, _: &Over) {}
/// # }
/// # fn app() -> App {
/// #     let words = Ingress::<Word>::new("words").to::<Counter>();
/// #     App::new("words").function::<Counter>().egress(&COUNTED)
/// #         .ingress(words, |word, out| out.send(Counter::at(&word.text), word))
/// # }
/// fn each_word_counts_once(world: &Committed<'_>) {
///     let counted: u64 = world.states::<Counter>().iter().map(|(_, counter)| counter.count).sum();
///     assert_eq!(world.emitted(&COUNTED).len() as u64, counted);
///     assert!(counted + world.on_their_way::<Counter, Word>().len() as u64 <= 2);
/// }
///
/// fn all_words_count(world: &Committed<'_>) {
///     assert_eq!(world.state(&Counter::at("hello")).map(|counter| counter.count), Some(2));
///     assert!(world.timers::<Counter, Over>().is_empty() && world.parked().is_empty());
///     assert_eq!(world.dead_letters().len(), 1);
///     assert!(world.epochs() > 0);
/// }
///
/// let words = || (0..2).map(|_| Word { text: "hello".into() });
/// simulate(app)
///     .seeds(5)
///     .input("words", words())
///     .input_bytes("words", vec![b"no word".to_vec()])
///     .check(each_word_counts_once)
///     .at_end(all_words_count)
///     .run();
/// ```
pub struct Committed<'a> {
    program: &'a Program,
    audit: &'a Audit,
    requests: &'a [Made],
    outside: &'a dyn Any,
}

impl<'a> Committed<'a> {
    pub(super) fn new(program: &'a Program, audit: &'a Audit, requests: &'a [Made], outside: &'a dyn Any) -> Self {
        Self { program, audit, requests, outside }
    }

    /// The outside of the world, as it is now: it may be ahead of what is committed.
    ///
    /// # Panics
    /// If it is of another type, or was not given.
    #[must_use]
    pub fn outside<O: 'static>(&self) -> &'a O {
        self.outside.downcast_ref().unwrap_or_else(|| panic!("{}", wrong::<O>()))
    }

    /// How many epochs all shards together have committed.
    #[must_use]
    pub fn epochs(&self) -> u64 {
        self.images().map(Image::epoch).sum()
    }

    /// Every key of a function that has a state, with it.
    ///
    /// # Panics
    /// If a state or key cannot be read, which is an error in its encoding.
    #[must_use]
    pub fn states<F: Function>(&self) -> Vec<(F::Key, F)> {
        let all = self.images().flat_map(Image::states).filter(|(function, ..)| *function == F::NAME);
        all.map(|(_, key, state)| (read_key(key), read_state(state))).collect()
    }

    /// The state of one key, `None` if it has none.
    ///
    /// # Panics
    /// If the state cannot be read, which is an error in its encoding.
    #[must_use]
    pub fn state<F: Function>(&self, of: &Address<F>) -> Option<F> {
        let mut all = self.images().flat_map(Image::states);
        let found = all.find(|(function, key, _)| *function == F::NAME && *key == of.key());
        found.map(|(_, _, state)| read_state(state))
    }

    /// Every message `M` that was committed for a key of `T` and that no committed epoch has handled:
    /// between two shards, carried over, before its time, or behind a parked key.
    ///
    /// # Panics
    /// If a message cannot be read, which is an error in its encoding.
    #[must_use]
    pub fn on_their_way<T: Target, M: MessageTo<T>>(&self) -> Vec<(T::Key, M)> {
        let mut found = Vec::new();
        for (place, image) in self.images().enumerate() {
            let mut take = |message: MessageRef<'_>| take::<T, M>(image, &message, &mut found);
            for (target, sequence, message) in image.outbox() {
                if sequence > self.audit.shards[target as usize].image.seen(place as u32) {
                    take(message);
                }
            }
            image.carried().for_each(&mut take);
            let waiting = image.pending().filter(|pending| matches!(pending.kind, PENDING_MESSAGE | PENDING_DELAYED));
            waiting.for_each(|pending| take(pending.message));
            let parked = image.parked().flat_map(|(.., parked)| parked.calls());
            parked.filter(|(is_timer, _)| !is_timer).for_each(|(_, message)| take(message));
        }
        found
    }

    /// Every timer of `F` with payload `M` that is set and has not fired, behind parked keys too.
    ///
    /// # Panics
    /// If a payload cannot be read, which is an error in its encoding.
    #[must_use]
    pub fn timers<F: Function, M: TimerOf<F>>(&self) -> Vec<(F::Key, M)> {
        let mut found = Vec::new();
        for image in self.images() {
            let mut take = |message: MessageRef<'_>| take::<F, M>(image, &message, &mut found);
            let is_timer = |kind| matches!(kind & !PENDING_REARMED, PENDING_EVENT_TIMER | PENDING_PROCESSING_TIMER);
            let set = image.pending().filter(|pending| is_timer(pending.kind));
            set.for_each(|pending| take(pending.message));
            let parked = image.parked().flat_map(|(.., parked)| parked.calls());
            parked.filter(|(is_timer, _)| *is_timer).for_each(|(_, message)| take(message));
        }
        found
    }

    /// What was emitted to an egress; the records of each key are in order.
    ///
    /// # Panics
    /// If a record cannot be read, which is an error in its encoding.
    #[must_use]
    pub fn emitted<T: Message>(&self, egress: &'static Egress<T>) -> Vec<T> {
        self.records(egress.name()).map(decode).collect()
    }

    /// Every request `M` to a key of `T` that was made so far, and its answer, `None` if it has none (yet):
    /// what it asked for is then committed as a whole, or not at all.
    ///
    /// # Panics
    /// If a message or an answer cannot be read, which is an error in its encoding.
    #[must_use]
    pub fn requests<T: Target, M: MessageTo<T>>(&self) -> Vec<Requested<T, M>> {
        let all = self.requests.iter();
        let all = all.filter(|made| made.asked.function == T::NAME && made.asked.message == M::NAME);
        let read = |made: &Made| {
            let answer = made.reply.clone().map(read_reply::<M, T>);
            (read_key(&made.asked.key), decode(&made.asked.payload), answer)
        };
        all.map(read).collect()
    }

    /// The dead letters so far.
    ///
    /// # Panics
    /// Never; dead letters are written by the framework.
    #[must_use]
    pub fn dead_letters(&self) -> Vec<DeadLetter> {
        let letters = self.records(DEAD_LETTERS);
        letters.map(|letter| serde_json::from_slice(letter).expect("a dead letter is JSON")).collect()
    }

    /// The keys that are parked: function, key, and what waits.
    #[must_use]
    pub fn parked(&self) -> Vec<(String, Vec<u8>, Parked)> {
        let all = self.images().flat_map(Image::parked);
        all.map(|(function, key, parked)| (function.to_owned(), key.to_vec(), parked.clone())).collect()
    }

    fn images(&self) -> impl Iterator<Item = &'a Image> {
        self.audit.shards.iter().map(|shard| &shard.image)
    }

    fn records(&self, egress: &str) -> impl Iterator<Item = &'a [u8]> {
        let all = self.audit.shards.iter().flat_map(|shard| &shard.emitted);
        all.filter(move |record| self.program.names[record.egress] == egress).map(|record| &record.bytes[..])
    }
}

impl fmt::Debug for Committed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Committed({} epochs of {} shards)", self.epochs(), self.audit.shards.len())
    }
}

fn take<T: Target, M: Message>(image: &Image, message: &MessageRef<'_>, found: &mut Vec<(T::Key, M)>) {
    let (name, payload) = opened(image.name(message.message), message.payload);
    if image.name(message.function) == T::NAME && name == M::NAME {
        found.push((read_key(message.key), decode(payload)));
    }
}

fn read_key<K: Key>(key: &[u8]) -> K {
    K::read(key).unwrap_or_else(|error| panic!("a key does not survive its own encoding: {error}"))
}

fn read_state<F: Function>(state: &[u8]) -> F {
    F::decode_state(state).unwrap_or_else(|error| panic!("a state of `{}` cannot be read: {error}", F::NAME))
}
