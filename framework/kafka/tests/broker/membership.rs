//! The membership: joins, a leave, and a broker that is away for longer than a session.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use services::kafka::Broker;
use statefn_core::{
    address::ShardId,
    ports::membership::{Membership, News, conformance},
};
use statefn_kafka::{KafkaMembership, MembershipOptions};

use crate::world::{LIMIT, World, until};

const SHARDS: u32 = 36;

fn options() -> MembershipOptions {
    MembershipOptions { session_timeout: Duration::from_secs(3), heartbeat_interval: Duration::from_millis(200) }
}

fn join(world: &World) -> KafkaMembership {
    KafkaMembership::join(&world.connection, &world.topics, &options(), Box::new(|| {}))
        .expect("a consumer can be made")
}

/// A worker that joins some time.
#[derive(Default)]
struct Member(Option<KafkaMembership>);

impl Member {
    fn count(&self) -> usize {
        (0..SHARDS).filter(|shard| self.is_named(*shard)).count()
    }
}

impl Membership for Member {
    fn next_news(&mut self) -> Option<News> {
        self.0.as_mut()?.next_news()
    }

    fn is_named(&self, shard: ShardId) -> bool {
        self.0.as_ref().is_some_and(|member| member.is_named(shard))
    }
}

/// Whether each shard is named for one of the members, and each of some has about its share.
fn is_at_rest(members: &[Member], sharing: &[usize]) -> bool {
    let is_one = |shard| members.iter().filter(|member| member.is_named(shard)).count() == 1;
    // 32 groups, of which the first 4 have a shard more.
    let (least, most) = (32 / sharing.len(), 32_usize.div_ceil(sharing.len()) + 4);
    (0..SHARDS).all(is_one) && sharing.iter().all(|member| (least..=most).contains(&members[*member].count()))
}

#[test]
fn the_membership_conforms_over_joins_and_a_leave() {
    let Some(world) = World::shared("membership-conforms", SHARDS) else { return };
    let mut members = [Member::default(), Member::default(), Member::default()];
    let phases: [&[usize]; 4] = [&[0], &[0, 1], &[0, 1, 2], &[1, 2]];
    let (mut phase, mut since) = (0, Instant::now());
    members[0].0 = Some(join(&world));
    conformance(&mut members, SHARDS, |members| {
        assert!(since.elapsed() < LIMIT, "phase {phase} comes to rest");
        if !is_at_rest(members, phases[phase]) {
            std::thread::yield_now();
            return true;
        }
        (phase, since) = (phase + 1, Instant::now());
        match phase {
            1 | 2 => members[phase].0 = Some(join(&world)),
            3 => members[0].0.as_mut().unwrap().leave(),
            _ => return false,
        }
        true
    });
    assert_eq!(phase, 4);
    assert_eq!(members[0].count(), 0, "who has left is named for nothing");
}

#[test]
fn the_shards_of_a_group_move_together_and_the_engine_is_woken() {
    let Some(world) = World::shared("membership-wakes", SHARDS) else { return };
    let wakes = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&wakes);
    let moved = Box::new(move || _ = counted.fetch_add(1, Ordering::SeqCst));
    let mut member = KafkaMembership::join(&world.connection, &world.topics, &options(), moved).unwrap();
    assert!((0..SHARDS).all(|shard| !member.is_named(shard)), "it is named for nothing at first");
    until("it is woken", || (wakes.load(Ordering::SeqCst) > 0).then_some(()));
    let mut named = Vec::new();
    until("it is named for all shards", || {
        while let Some(news) = member.next_news() {
            named.push(news);
        }
        (named.len() == SHARDS as usize).then_some(())
    });
    let first = named.iter().position(|news| *news == News::Named(0)).unwrap();
    assert_eq!(named[first + 1], News::Named(32), "both of its group");
    drop(member);
}

#[test]
fn a_worker_that_is_cut_off_is_released_and_named_again() {
    let Ok(mut broker) = Broker::start() else { return };
    let world = World::on(&broker, "membership-cut-off", 4);
    let mut member = join(&world);
    let mut wait_for = |is_named: bool| {
        until("the news comes", || {
            while member.next_news().is_some() {}
            (0..4).all(|shard| member.is_named(shard) == is_named).then_some(())
        });
    };
    wait_for(true);
    broker.pause().unwrap();
    wait_for(false);
    broker.resume().unwrap();
    wait_for(true);
}
