//! What stands in for the outside of a simulated app: one value for each world, which its activities
//! call.
//!
//! Invariant: what the outside has done is done; the death of a worker does not undo it.

use std::{any::Any, collections::BTreeMap};

use statefn_core::{
    activity::{self, Activity, ActivityContext, CallOutcome, NotDone, TryAgain},
    shard::ActivityCall,
};

type StandIn = Box<dyn Fn(&mut dyn Any, &[u8], ActivityContext) -> Result<CallOutcome, TryAgain>>;

/// How the outside is made, and what activities do with it.
pub(super) struct Outside {
    make: Box<dyn Fn() -> Box<dyn Any>>,
    stand_ins: BTreeMap<&'static str, StandIn>,
}

impl Outside {
    /// An app that calls nobody.
    pub(super) fn nobody() -> Self {
        Self { make: Box::new(|| Box::new(())), stand_ins: BTreeMap::new() }
    }

    pub(super) fn made_by<O: 'static>(&mut self, make: impl Fn() -> O + 'static) {
        self.make = Box::new(move || Box::new(make()));
    }

    pub(super) fn stand_in<A: Activity, O: 'static>(
        &mut self,
        stand_in: impl Fn(
            &mut O,
            A::Call,
            &ActivityContext,
        ) -> Result<activity::AnswerOf<A>, NotDone<activity::RejectionOf<A>>>
        + 'static,
    ) {
        let attempt = move |outside: &mut dyn Any, call: &[u8], ctx: ActivityContext| {
            let outside = outside.downcast_mut().unwrap_or_else(|| panic!("{}", wrong::<O>()));
            CallOutcome::of_attempt(stand_in(outside, super::decode(call), &ctx))
        };
        self.stand_ins.insert(A::NAME, Box::new(attempt));
    }

    /// The outside of a new world.
    pub(super) fn make(&self) -> Box<dyn Any> {
        (self.make)()
    }

    pub(super) fn has(&self, activity: &str) -> bool {
        self.stand_ins.contains_key(activity)
    }

    pub(super) fn attempt(
        &self,
        outside: &mut dyn Any,
        call: &ActivityCall,
        attempt: u32,
    ) -> Result<CallOutcome, TryAgain> {
        let stand_in = &self.stand_ins[call.activity.as_str()];
        let ctx = ActivityContext::new(format!("{}/{}", call.shard, call.id), attempt, None);
        stand_in(outside, &call.call, ctx)
    }
}

/// What is said to one who asks for another outside than there is.
pub(super) fn wrong<O>() -> String {
    format!("the outside of this world is no `{0}`: add `.outside(|| {0} ..)`", std::any::type_name::<O>())
}
