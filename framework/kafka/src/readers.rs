//! Clients that read a partition once, kept for the next who does.
//!
//! To open the egresses of a shard group takes three such reads, and a tenth of a second goes by until a
//! consumer is made and closed: this was most of what it took to open them.
//!
//! Invariants: a client is used by one at a time; one that was in trouble is not kept; one that is kept
//! reads nothing. Whoever finds all in use waits, but not for long: one of them may be waiting for a
//! transaction that nobody ends.
//!
//! Deliberately absent: closing those that are idle; there are few.

use std::{
    sync::{Condvar, Mutex, PoisonError},
    time::Duration,
};

use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::{
    connection::{Connection, Isolation},
    error::Error,
    report::{Reporter, lock},
};

/// How many of a kind there are before others wait.
const CLIENTS_MAX: usize = 2;
/// How long it is waited for one that is in use.
const WAIT: Duration = Duration::from_millis(500);

/// What a client is for: the name of its consumer group, and what it sees.
type Kind = (String, Isolation);

/// The clients of a connection.
#[derive(Default)]
pub(crate) struct Readers {
    state: Mutex<State>,
    is_free: Condvar,
}

#[derive(Default)]
struct State {
    idle: Vec<(Kind, BaseConsumer<Reporter>)>,
    busy: Vec<Kind>,
}

impl Readers {
    /// Works with a client that is told of the ends of partitions at once.
    pub(crate) fn read<T, E: From<Error>>(
        &self,
        connection: &Connection,
        group: &str,
        isolation: Isolation,
        work: impl FnOnce(&BaseConsumer<Reporter>) -> Result<T, E>,
    ) -> Result<T, E> {
        let kind = (group.to_owned(), isolation);
        let kept = self.take(&kind);
        let made = kept.map_or_else(|| make(connection, &kind), Ok);
        let (done, client) = match made {
            Ok(client) => (work(&client), Some(client)),
            Err(error) => (Err(error.into()), None),
        };
        let is_good = |client: &BaseConsumer<Reporter>| done.is_ok() && client.unassign().is_ok();
        // One that is in trouble is closed behind this, when others need not wait for it.
        let (good, _bad) = match client {
            Some(client) if is_good(&client) => (Some(client), None),
            client => (None, client),
        };
        self.give_back(kind, good);
        done
    }

    /// A client that is idle; none if one more is to be made.
    fn take(&self, kind: &Kind) -> Option<BaseConsumer<Reporter>> {
        let is_in_use = |state: &mut State| {
            let busy = state.busy.iter().filter(|busy| *busy == kind).count();
            busy >= CLIENTS_MAX && state.idle.iter().all(|(idle, _)| idle != kind)
        };
        let waited = self.is_free.wait_timeout_while(lock(&self.state), WAIT, is_in_use);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.busy.push(kind.clone());
        let place = state.idle.iter().position(|(idle, _)| idle == kind)?;
        Some(state.idle.swap_remove(place).1)
    }

    fn give_back(&self, kind: Kind, client: Option<BaseConsumer<Reporter>>) {
        let mut state = lock(&self.state);
        if let Some(place) = state.busy.iter().position(|busy| *busy == kind) {
            state.busy.swap_remove(place);
        }
        state.idle.extend(client.map(|client| (kind, client)));
        drop(state);
        self.is_free.notify_all();
    }
}

fn make(connection: &Connection, (group, isolation): &Kind) -> Result<BaseConsumer<Reporter>, Error> {
    let mut config = connection.consumer_config(group, *isolation);
    // The end is told by an empty answer, which a broker withholds for as long as it may.
    config.set("enable.partition.eof", "true").set("fetch.wait.max.ms", "1");
    connection.client("read back what egresses wrote", &config, connection.reporter("egress positions"))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, mpsc};

    use super::*;

    /// Works with a client; nothing is asked of a broker, so there need be none.
    fn read<T>(connection: &Connection, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        connection.readers().read(connection, "group", Isolation::Committed, |_| work())
    }

    fn idle(connection: &Connection) -> usize {
        lock(&connection.readers().state).idle.len()
    }

    #[test]
    fn a_client_is_kept_unless_it_was_in_trouble() {
        let connection = Connection::parse("log", "kafka://127.0.0.1:1").expect("an address");
        for _ in 0..3 {
            read(&connection, || Ok(())).expect("it is made");
            assert_eq!(idle(&connection), 1);
        }
        let trouble = || Err::<(), _>(Connection::parse("log", "nowhere").expect_err("it is none"));
        assert!(read(&connection, trouble).is_err());
        assert_eq!(idle(&connection), 0);
        assert!(lock(&connection.readers().state).busy.is_empty());
    }

    #[test]
    fn who_finds_all_in_use_has_the_first_that_is_free() {
        let connection = Arc::new(Connection::parse("log", "kafka://127.0.0.1:1").expect("an address"));
        let (begun, all_begun) = mpsc::channel();
        let busy: Vec<_> = (0..CLIENTS_MAX)
            .map(|_| {
                let (end, ended) = mpsc::channel::<()>();
                let (connection, begun) = (Arc::clone(&connection), begun.clone());
                let work = move || {
                    begun.send(()).expect("it is waited for");
                    // It ends when the other end is dropped.
                    let _ = ended.recv();
                    Ok(())
                };
                (end, std::thread::spawn(move || read(&connection, work).expect("it is made")))
            })
            .collect();
        all_begun.iter().take(CLIENTS_MAX).for_each(drop);
        let more = Arc::clone(&connection);
        let more = std::thread::spawn(move || read(&more, || Ok(())).expect("one is free"));
        for (end, thread) in busy {
            drop(end);
            thread.join().expect("no panic");
        }
        more.join().expect("no panic");
        // One that waited too long, on a machine with much else to do, has made one more.
        assert!((CLIENTS_MAX..=CLIENTS_MAX + 1).contains(&idle(&connection)));
        assert!(lock(&connection.readers().state).busy.is_empty());
    }
}
