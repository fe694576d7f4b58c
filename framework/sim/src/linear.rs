//! Linearizability: whether there is an order of calls, one after the other, that explains what the
//! callers of one object were answered.
//!
//! A history is what clients saw: when each call began, and when it was answered and by what; of some
//! calls nobody ever learnt what became of them. It is linearizable if each answered call, and any of
//! the others, can be given a moment between its begin and its end so that a sequential [`Model`],
//! taken through the calls in the order of these moments, gives just these answers (Herlihy and Wing,
//! "Linearizability: A Correctness Condition for Concurrent Objects", 1990).
//!
//! The search is the one of Wing and Gong with the memory of Lowe ("Testing for linearizability", 2017):
//! the first call that has not ended before another began is tried, then the next one; a set of calls
//! that led to the same state before is not looked at again. Calls that were never answered are tried
//! when no other can go on, as most histories need few of them. Histories are split by object before,
//! since each object for itself is enough.
//!
//! Invariant: a history is never passed unless an order was found; one that takes too long is an error.

use std::{collections::BTreeSet, fmt};

/// How many steps a search takes at most.
pub const STEPS_MAX: u64 = 2_000_000;

/// A call of a client and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation<C, A> {
    /// What was called.
    pub call: C,
    /// When it began; no two begins and ends of a history are at the same time.
    pub begun: u64,
    /// When it was answered, and by what; `None` if nobody knows what became of it.
    pub ended: Option<(u64, A)>,
}

/// What an object does if calls come one after the other.
pub trait Model {
    /// What it holds.
    type State: Clone + Ord + fmt::Debug;
    /// What it is asked.
    type Call: fmt::Debug;
    /// What it says.
    type Answer: fmt::Debug;

    /// What it holds at first.
    fn begin(&self) -> Self::State;

    /// What it holds after a call that it answered so; `None` if it would not. Without an answer
    /// anything may have been said.
    fn step(&self, state: &Self::State, call: &Self::Call, answer: Option<&Self::Answer>) -> Option<Self::State>;
}

/// Finds an order of calls that explains the answers of a history of one object.
///
/// # Errors
/// What cannot be explained, or that it took more than [`STEPS_MAX`] steps.
pub fn check<M: Model>(model: &M, history: &[Operation<M::Call, M::Answer>]) -> Result<(), String> {
    Search::new(model, history).run()
}

/// The place of the head of a list.
const HEAD: usize = 0;

/// The begin or the end of an answered call, in a list of those that are left.
#[derive(Debug, Clone, Copy)]
struct Entry {
    /// The operation.
    of: usize,
    is_end: bool,
    before: usize,
    next: usize,
}

struct Search<'a, M: Model> {
    model: &'a M,
    history: &'a [Operation<M::Call, M::Answer>],
    /// Begins and ends in their order, behind the head; `next` of the last one is the head again.
    entries: Vec<Entry>,
    /// By answered operation, where its begin and its end stand.
    places: Vec<(usize, usize)>,
    /// The operations that were not answered.
    lost: Vec<usize>,
    state: M::State,
    /// The calls that have their moment, in order, each with the state before it.
    order: Vec<(usize, M::State)>,
    /// The same as a set, by bits.
    done: Vec<u64>,
    /// Answered calls that have no moment yet.
    left: usize,
    tried: BTreeSet<(Vec<u64>, M::State)>,
    steps: u64,
    /// The longest order that was found, and the call that it could not explain.
    longest: (Vec<usize>, usize),
}

impl<'a, M: Model> Search<'a, M> {
    fn new(model: &'a M, history: &'a [Operation<M::Call, M::Answer>]) -> Self {
        let answered = history.iter().enumerate();
        let answered = answered.filter_map(|(of, operation)| Some((of, operation.begun, operation.ended.as_ref()?.0)));
        let mut times: Vec<_> = answered.flat_map(|(of, begun, end)| [(begun, of, false), (end, of, true)]).collect();
        times.sort_unstable();
        let mut entries = vec![Entry { of: usize::MAX, is_end: false, before: times.len(), next: 1 }];
        let mut places = vec![(HEAD, HEAD); history.len()];
        for (place, (_, of, is_end)) in (1..).zip(&times) {
            entries.push(Entry { of: *of, is_end: *is_end, before: place - 1, next: place + 1 });
            match is_end {
                true => places[*of].1 = place,
                false => places[*of].0 = place,
            }
        }
        let last = entries.len() - 1;
        entries[last].next = HEAD;
        Self {
            model,
            history,
            entries,
            places,
            lost: (0..history.len()).filter(|of| history[*of].ended.is_none()).collect(),
            state: model.begin(),
            order: Vec::new(),
            done: vec![0; history.len().div_ceil(64)],
            left: times.len() / 2,
            tried: BTreeSet::new(),
            steps: 0,
            longest: (Vec::new(), 0),
        }
    }

    fn run(mut self) -> Result<(), String> {
        let mut at = self.entries[HEAD].next;
        while self.left > 0 {
            if self.steps > STEPS_MAX {
                let count = self.history.len();
                return Err(format!("{STEPS_MAX} steps did not show whether {count} operations are linearizable"));
            }
            let Entry { of, is_end, next, .. } = self.entries[at];
            assert_ne!(at, HEAD, "an end that is left stops the search before the end of the list");
            at = match is_end {
                false if self.tries(of) => self.entries[HEAD].next,
                false => next,
                // Its call must have its moment before anything that begins behind its end.
                true if self.tries_lost(of, 0) => self.entries[HEAD].next,
                true => self.goes_back(of).ok_or_else(|| self.violation())?,
            };
        }
        Ok(())
    }

    /// Gives a call its moment now, if the model explains its answer so and that was not tried before.
    fn tries(&mut self, of: usize) -> bool {
        self.steps += 1;
        let Operation { call, ended, .. } = &self.history[of];
        let next = self.model.step(&self.state, call, ended.as_ref().map(|(_, answer)| answer));
        // One that changes nothing, and that nobody heard of, may as well not have been.
        let Some(next) = next.filter(|next| ended.is_some() || *next != self.state) else { return false };
        self.done[of / 64] |= 1 << (of % 64);
        if !self.tried.insert((self.done.clone(), next.clone())) {
            self.done[of / 64] &= !(1 << (of % 64));
            return false;
        }
        self.order.push((of, std::mem::replace(&mut self.state, next)));
        if ended.is_some() {
            let (begin, end) = self.places[of];
            self.unlink(begin);
            self.unlink(end);
            self.left -= 1;
        }
        true
    }

    /// Gives its moment to a call that was never answered, the first from a place on, before this one ends.
    fn tries_lost(&mut self, ending: usize, from: usize) -> bool {
        let end = self.history[ending].ended.as_ref().map_or(u64::MAX, |(end, _)| *end);
        (from..self.lost.len()).any(|place| {
            let of = self.lost[place];
            let is_done = self.done[of / 64] >> (of % 64) & 1 == 1;
            !is_done && self.history[of].begun < end && self.tries(of)
        })
    }

    /// Takes moments back until another call can have one; returns where the search goes on.
    fn goes_back(&mut self, mut stuck: usize) -> Option<usize> {
        loop {
            self.note_stuck(stuck);
            let (last, state) = self.order.pop()?;
            self.state = state;
            self.done[last / 64] &= !(1 << (last % 64));
            if self.history[last].ended.is_some() {
                let (begin, end) = self.places[last];
                // In the opposite order, so that the neighbours are those that they had.
                self.link(end);
                self.link(begin);
                self.left += 1;
                return Some(self.entries[begin].next);
            }
            stuck = self.first_end();
            let tried = self.lost.iter().position(|of| *of == last).expect("it was not answered");
            if self.tries_lost(stuck, tried + 1) {
                return Some(self.entries[HEAD].next);
            }
        }
    }

    /// The call that ends first of those that have no moment.
    fn first_end(&self) -> usize {
        let mut at = self.entries[HEAD].next;
        while !self.entries[at].is_end {
            at = self.entries[at].next;
        }
        self.entries[at].of
    }

    fn unlink(&mut self, place: usize) {
        let Entry { before, next, .. } = self.entries[place];
        self.entries[before].next = next;
        self.entries[next].before = before;
    }

    fn link(&mut self, place: usize) {
        let Entry { before, next, .. } = self.entries[place];
        self.entries[before].next = place;
        self.entries[next].before = place;
    }

    fn note_stuck(&mut self, of: usize) {
        if self.order.len() >= self.longest.0.len() {
            self.longest = (self.order.iter().map(|(of, _)| *of).collect(), of);
        }
    }

    /// The longest order that explains something, its last calls, and what it does not explain.
    fn violation(&self) -> String {
        const SHOWN: usize = 8;
        let (order, stuck) = &self.longest;
        let mut state = self.model.begin();
        for of in order {
            let Operation { call, ended, .. } = &self.history[*of];
            state = self.model.step(&state, call, ended.as_ref().map(|(_, answer)| answer)).unwrap_or(state);
        }
        let skipped = order.len().saturating_sub(SHOWN);
        let shown: Vec<String> = order[skipped..].iter().map(|of| format!("  {:?}", self.history[*of])).collect();
        format!(
            "not linearizable: of {} operations an order of {} explains the answers, which leaves {state:?}, and nothing explains\n  {:?}\nbehind ({skipped} more before)\n{}",
            self.history.len(),
            order.len(),
            self.history[*stuck],
            shown.join("\n"),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    /// A register; `Some` writes, `None` reads. Writes answer what was there before.
    struct Register;

    impl Model for Register {
        type State = u64;
        type Call = Option<u64>;
        type Answer = u64;

        fn begin(&self) -> u64 {
            0
        }

        fn step(&self, state: &u64, call: &Option<u64>, answer: Option<&u64>) -> Option<u64> {
            answer.is_none_or(|answer| answer == state).then(|| call.unwrap_or(*state))
        }
    }

    type Call = Operation<Option<u64>, u64>;

    /// A call from `begun` to `end`, which answered `answer`.
    fn answered(call: Option<u64>, begun: u64, end: u64, answer: u64) -> Call {
        Operation { call, begun, ended: Some((end, answer)) }
    }

    fn lost(call: Option<u64>, begun: u64) -> Call {
        Operation { call, begun, ended: None }
    }

    fn is_linearizable(history: &[Call]) -> bool {
        match check(&Register, history) {
            Ok(()) => true,
            Err(error) => {
                assert!(error.starts_with("not linearizable"), "{error}");
                false
            }
        }
    }

    #[test]
    fn known_histories() {
        let write = |value| Some(value);
        let read = None;
        let cases: &[(&str, bool, Vec<Call>)] = &[
            ("nothing", true, vec![]),
            ("one after the other", true, vec![answered(write(1), 1, 2, 0), answered(read, 3, 4, 1)]),
            ("a stale read", false, vec![answered(write(1), 1, 2, 0), answered(read, 3, 4, 0)]),
            ("a read beside a write sees the old", true, vec![answered(write(1), 1, 4, 0), answered(read, 2, 3, 0)]),
            ("a read beside a write sees the new", true, vec![answered(write(1), 1, 4, 0), answered(read, 2, 3, 1)]),
            (
                "two reads beside a write see it come and go",
                false,
                vec![answered(write(1), 1, 6, 0), answered(read, 2, 3, 1), answered(read, 4, 5, 0)],
            ),
            ("a value that nobody wrote", false, vec![answered(read, 1, 2, 7)]),
            (
                "a write twice, told once",
                false,
                vec![answered(write(1), 1, 2, 0), answered(write(2), 3, 4, 1), answered(read, 5, 6, 1)],
            ),
            ("two writes see the same before", false, vec![answered(write(1), 1, 4, 0), answered(write(2), 2, 3, 0)]),
            (
                "writes that overlap, the later begin first",
                true,
                vec![answered(write(1), 1, 4, 2), answered(write(2), 2, 3, 0), answered(read, 5, 6, 1)],
            ),
            ("a lost write that was done", true, vec![lost(write(1), 1), answered(read, 2, 3, 1)]),
            ("a lost write that was not done", true, vec![lost(write(1), 1), answered(read, 2, 3, 0)]),
            (
                "a lost write that was done late",
                true,
                vec![lost(write(1), 1), answered(read, 2, 3, 0), answered(read, 4, 5, 1)],
            ),
            (
                "a lost write that was undone",
                false,
                vec![lost(write(1), 1), answered(read, 2, 3, 1), answered(read, 4, 5, 0)],
            ),
            ("a lost write that was done before it began", false, vec![answered(read, 1, 2, 1), lost(write(1), 3)]),
            (
                "a lost write that was done twice",
                false,
                vec![lost(write(1), 1), answered(write(2), 2, 3, 1), answered(write(3), 4, 5, 1)],
            ),
            ("nothing but what is lost", true, vec![lost(write(1), 1), lost(read, 2)]),
        ];
        for (name, expected, history) in cases {
            assert_eq!(is_linearizable(history), *expected, "{name}");
        }
    }

    #[test]
    fn a_violation_is_told_with_what_leads_to_it() {
        let history = [answered(Some(1), 1, 2, 0), answered(None, 3, 4, 9)];
        let error = check(&Register, &history).unwrap_err();
        assert!(error.contains("an order of 1 explains the answers, which leaves 1"), "{error}");
        assert!(error.contains("Operation { call: None, begun: 3, ended: Some((4, 9)) }"), "{error}");
    }

    /// By all orders of all answered calls and any of the others.
    fn is_linearizable_by_brute_force(history: &[Call]) -> bool {
        fn goes_on(history: &[Call], left: &[usize], state: u64) -> bool {
            if left.iter().all(|of| history[*of].ended.is_none()) {
                return true;
            }
            left.iter().any(|of| {
                let Operation { call, begun, ended } = history[*of];
                let ends = left.iter().filter_map(|other| history[*other].ended);
                let is_first = ends.into_iter().all(|(end, _)| end >= begun);
                let next = Register.step(&state, &call, ended.map(|(_, answer)| answer).as_ref());
                let rest: Vec<usize> = left.iter().copied().filter(|other| other != of).collect();
                is_first && next.is_some_and(|next| goes_on(history, &rest, next))
            })
        }
        goes_on(history, &(0..history.len()).collect::<Vec<_>>(), 0)
    }

    /// What a register says when calls overlap, some answers are lost, and now and then one is wrong.
    fn random_history(random: &mut Random) -> Vec<Call> {
        let (mut state, mut time, mut history) = (0, 0, Vec::new());
        let mut open: Vec<Call> = Vec::new();
        for _ in 0..random.between(1, 7) {
            time += 1;
            let call = random.chance(600).then(|| random.below(3));
            open.push(Operation { call, begun: time, ended: None });
            while !open.is_empty() && random.chance(500) {
                let mut done = open.swap_remove(random.place(open.len()));
                time += 1;
                let answer = if random.chance(150) { random.below(3) } else { state };
                state = if random.chance(900) { done.call.unwrap_or(state) } else { state };
                done.ended = random.chance(800).then_some((time, answer));
                history.push(done);
            }
        }
        history.extend(open);
        history
    }

    #[test]
    fn the_search_agrees_with_brute_force() {
        let mut random = Random::new(7);
        let mut counts = [0, 0];
        for _ in 0..20_000 {
            let history = random_history(&mut random);
            let expected = is_linearizable_by_brute_force(&history);
            assert_eq!(is_linearizable(&history), expected, "{history:?}");
            counts[usize::from(expected)] += 1;
        }
        assert!(counts.iter().all(|count| *count > 3_000), "both happen often: {counts:?}");
    }

    /// Without its memory the search would take longer than the world does.
    #[test]
    fn a_long_history_with_much_beside_each_other_is_decided() {
        let mut history: Vec<Call> = (0..6).map(|call| lost(Some(1_000 + call), call)).collect();
        for call in 0..300 {
            let begun = 20 + call * 4;
            history.push(answered(Some(call + 1), begun, begun + 6, call));
        }
        assert!(is_linearizable(&history));
        let Some(Operation { ended: Some((_, answer)), .. }) = history.last_mut() else { panic!("answered") };
        *answer = 7_777;
        assert!(!is_linearizable(&history));
    }
}
