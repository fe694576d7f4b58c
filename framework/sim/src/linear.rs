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
//! calls are put in order one by one, each time one of those that began before the first of the rest
//! ended, and a set of calls that led to the same state before is not looked at again. What explains most
//! answers by the fewest calls that were never answered is gone on with first: there may be many of
//! these, and few of them are needed. Histories are split by object before, since each object for itself is
//! enough.
//!
//! Invariant: a history is never passed unless an order was found; one that takes too long is an error.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap},
    fmt::{self, Write},
};

/// How many orders a search looks at.
pub const STEPS_MAX: usize = 500_000;

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

/// A beginning of an order of calls.
struct Node<S> {
    /// The calls that it has, by bits.
    done: Vec<u64>,
    /// What they leave.
    state: S,
    /// How many of them were answered, and how many were not.
    answered: usize,
    lost: usize,
    /// The last of them, and the node without it.
    last: Option<(usize, usize)>,
    /// All answered calls before this place, in the order of their begins, are among them.
    from: usize,
}

impl<S> Node<S> {
    fn has(&self, of: usize) -> bool {
        self.done[of / 64] >> (of % 64) & 1 == 1
    }

    /// What is gone on with first: a call that was never answered has to explain more than one that was.
    fn promise(&self) -> i64 {
        self.answered as i64 - 2 * self.lost as i64
    }
}

/// What is next done with a node, in the order of how much it promises; the newest first.
type Task = (i64, Reverse<bool>, usize);

struct Search<'a, M: Model> {
    model: &'a M,
    history: &'a [Operation<M::Call, M::Answer>],
    /// The answered operations, in the order of their begins: number, begin and end.
    answered: Vec<(usize, u64, u64)>,
    /// The others.
    lost: Vec<usize>,
    nodes: Vec<Node<M::State>>,
    tasks: BinaryHeap<Task>,
    tried: BTreeSet<(Vec<u64>, M::State)>,
}

impl<'a, M: Model> Search<'a, M> {
    fn new(model: &'a M, history: &'a [Operation<M::Call, M::Answer>]) -> Self {
        let all = history.iter().enumerate();
        let answered = all.filter_map(|(of, operation)| Some((of, operation.begun, operation.ended.as_ref()?.0)));
        let mut answered: Vec<_> = answered.collect();
        answered.sort_unstable_by_key(|(_, begun, _)| *begun);
        let lost = (0..history.len()).filter(|of| history[*of].ended.is_none()).collect();
        let done = vec![0; history.len().div_ceil(64)];
        let first = Node { done, state: model.begin(), answered: 0, lost: 0, last: None, from: 0 };
        let tasks = BinaryHeap::from([(0, Reverse(false), 0)]);
        Self { model, history, answered, lost, nodes: vec![first], tasks, tried: BTreeSet::new() }
    }

    fn run(mut self) -> Result<(), String> {
        let Some(all) = Some(self.answered.len()).filter(|all| *all > 0) else { return Ok(()) };
        while let Some((promise, Reverse(with_lost), at)) = self.tasks.pop() {
            if self.nodes.len() > STEPS_MAX {
                return Err(format!(
                    "{STEPS_MAX} steps did not show whether {} operations are linearizable; {}",
                    self.history.len(),
                    self.longest()
                ));
            }
            let end = self.first_end(at);
            match with_lost {
                true => self.go_on_with_lost(at, end),
                // A call that changes nothing and may be now may as well be now: no other way is needed.
                false if self.go_on(at, end, true) => {}
                false => {
                    self.go_on(at, end, false);
                    self.tasks.push((promise - 1, Reverse(true), at));
                }
            }
            if self.nodes.last().is_some_and(|node| node.answered == all) {
                return Ok(());
            }
        }
        Err(format!("not linearizable: {}", self.longest()))
    }

    /// When the first of the answered calls ends that a node does not have.
    fn first_end(&mut self, at: usize) -> u64 {
        let node = &mut self.nodes[at];
        while self.answered.get(node.from).is_some_and(|(of, ..)| node.has(*of)) {
            node.from += 1;
        }
        let mut first = u64::MAX;
        for (of, begun, end) in &self.answered[node.from..] {
            if *begun > first {
                break;
            }
            if !node.has(*of) {
                first = first.min(*end);
            }
        }
        first
    }

    /// Puts behind a node each answered call that may come next, or one alone that leaves the state as it is;
    /// returns whether there is any.
    fn go_on(&mut self, at: usize, end: u64, is_one_without_change: bool) -> bool {
        let node = &self.nodes[at];
        let next = self.answered[node.from..].iter().take_while(|(_, begun, _)| *begun < end).map(|(of, ..)| *of);
        let mut next: Vec<usize> = next.filter(|of| !node.has(*of)).collect();
        if is_one_without_change {
            next.retain(|of| self.step(node, *of).is_some_and(|state| state == node.state));
            next.truncate(1);
        }
        // The first to begin is gone on with first.
        next.iter().rev().for_each(|of| self.put(at, *of));
        !next.is_empty()
    }

    /// What a call behind a node leaves.
    fn step(&self, node: &Node<M::State>, of: usize) -> Option<M::State> {
        let Operation { call, ended, .. } = &self.history[of];
        self.model.step(&node.state, call, ended.as_ref().map(|(_, answer)| answer))
    }

    /// Puts behind a node each call that was never answered and that may come next.
    fn go_on_with_lost(&mut self, at: usize, end: u64) {
        for place in 0..self.lost.len() {
            let of = self.lost[place];
            if !self.nodes[at].has(of) && self.history[of].begun < end {
                self.put(at, of);
            }
        }
    }

    /// Puts a call behind a node, if the model explains its answer so and that was not tried before.
    fn put(&mut self, at: usize, of: usize) {
        let (node, ended) = (&self.nodes[at], &self.history[of].ended);
        // One that changes nothing, and that nobody heard of, may as well not have been.
        let state = self.step(node, of).filter(|state| ended.is_some() || *state != node.state);
        let Some(state) = state else { return };
        let mut done = node.done.clone();
        done[of / 64] |= 1 << (of % 64);
        if !self.tried.insert((done.clone(), state.clone())) {
            return;
        }
        let is_answered = usize::from(ended.is_some());
        let (answered, lost) = (node.answered + is_answered, node.lost + 1 - is_answered);
        let node = Node { done, state, answered, lost, last: Some((of, at)), from: node.from };
        self.tasks.push((node.promise(), Reverse(false), self.nodes.len()));
        self.nodes.push(node);
    }

    /// The order that explains most, its last calls, and the first call that it does not explain.
    fn longest(&mut self) -> String {
        const SHOWN: usize = 8;
        let best = (0..self.nodes.len()).max_by_key(|at| (self.nodes[*at].answered, Reverse(self.nodes[*at].lost)));
        let best = best.expect("the empty order is one");
        let end = self.first_end(best);
        let stuck = self.answered.iter().find(|(.., known)| *known == end).map(|(of, ..)| &self.history[*of]);
        let Node { answered, lost, state, .. } = &self.nodes[best];
        let mut text = format!(
            "of {} operations an order of {} explains the answers, which leaves {state:?}, and nothing explains\n  {stuck:?}\nbehind the last calls of it, the last first",
            self.history.len(),
            answered + lost,
        );
        let mut last = self.nodes[best].last;
        for _ in 0..SHOWN {
            let Some((of, before)) = last else { break };
            // Writing to a string does not fail.
            _ = write!(text, "\n  {:?}", self.history[of]);
            last = self.nodes[before].last;
        }
        text
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

    /// Writes one after the other, each beside the one before, and some writes that were never answered.
    fn long_history(unanswered: u64) -> Vec<Call> {
        let answered = (0..300).map(|call| answered(Some(call + 1), 20 + call * 4, 26 + call * 4, call));
        (0..unanswered).map(|call| lost(Some(1_000 + call), call)).chain(answered).collect()
    }

    /// Without its memory and its order the search would take longer than the world does.
    #[test]
    fn a_long_history_with_much_beside_each_other_is_decided() {
        assert!(is_linearizable(&long_history(12)));
        let mut wrong = long_history(5);
        wrong.last_mut().expect("many").ended = Some((10_000, 7_777));
        assert!(!is_linearizable(&wrong));
    }

    #[test]
    fn what_takes_too_long_is_not_passed() {
        let mut wrong = long_history(30);
        wrong.last_mut().expect("many").ended = Some((10_000, 7_777));
        let error = check(&Register, &wrong).unwrap_err();
        assert!(error.contains("steps did not show whether 330 operations are linearizable"), "{error}");
    }
}
