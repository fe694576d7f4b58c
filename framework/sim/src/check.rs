//! What the journals mean, what egresses have, and whether all accounts of a shard agree.
//!
//! The audit folds every record at the moment it stands in the log. It is the judge of what is
//! committed: a world compares with it what owners, egresses, stores and snapshots say.
//!
//! Invariants checked here: epochs reach an egress one by one, each once, and only committed ones
//! (I3); snapshot + journal, the whole journal, the owner and the store agree byte for byte (I4).
//!
//! Deliberately absent: what messages mean; that is the workload's.

use std::collections::BTreeMap;

use statefn_core::{
    address::ShardId,
    codec::{Reader, Truncated},
    ports::{
        egress::{Egresses, EmittedRecord, MemoryEgresses},
        log::{Log, Offset},
        snapshots::Snapshots,
        store::{MemoryStore, Store},
    },
    program::NameId,
    shard::{
        Replica, Shard,
        frame::{self, Kind, OpRef},
        image::{Image, Verdict},
        rules::Rules,
    },
};

use crate::{
    log::{Bytes, SharedLog},
    report::Report,
};

/// A message as the journal has it: its name and payload.
pub type Posted = (NameId, Vec<u8>);

/// What was committed to the journal of one shard.
#[derive(Debug, Default)]
pub struct Committed {
    /// The fold of the whole journal.
    pub image: Image,
    /// Every record for an egress; the place of an egress is its number among the names.
    pub emitted: Vec<EmittedRecord>,
    /// By target, every message that was sent to it.
    pub sent: BTreeMap<ShardId, Vec<Posted>>,
    /// By source, how many of its messages were accepted.
    pub seen: BTreeMap<ShardId, u64>,
    /// The messages that the next epoch begins with.
    pub carried: Vec<Posted>,
    /// The snapshots whose marks stand.
    pub marks: Vec<Marked>,
}

/// What a mark says of its snapshot.
#[derive(Debug, Clone)]
pub struct Marked {
    /// The snapshot's name.
    pub name: String,
    /// The epoch whose state it holds.
    pub epoch: u64,
    /// The offset of the first record that it does not hold.
    pub next_offset: Offset,
}

impl Marked {
    /// Reads the body of a mark's frame: name, length, checksum, epoch, offset.
    fn read(body: &[u8]) -> Result<Self, Truncated> {
        let mut reader = Reader::new(body);
        let name = reader.text()?.to_owned();
        let _length_and_checksum = (reader.varint()?, reader.varint()?);
        Ok(Self { name, epoch: reader.varint()?, next_offset: reader.varint()? })
    }
}

/// The folds of all journals.
#[derive(Debug)]
pub struct Audit {
    rules: Rules,
    /// By shard.
    pub shards: Vec<Committed>,
}

impl Audit {
    /// The audit of `shards` empty journals, which judges by `rules`.
    #[must_use]
    pub fn new(shards: u32, rules: Rules) -> Self {
        let committed = |shard| Committed { image: Image::new(shard).under(rules), ..Committed::default() };
        Self { rules, shards: (0..shards).map(committed).collect() }
    }

    /// Folds a whole journal anew, because some of it was lost.
    ///
    /// # Errors
    /// If the journal is broken.
    pub fn fold_again(&mut self, shard: ShardId, journal: &[Bytes]) -> Result<(), String> {
        let image = Image::new(shard).under(self.rules);
        self.shards[shard as usize] = Committed { image, ..Committed::default() };
        for (offset, record) in (0..).zip(journal) {
            self.fold(shard, offset, record, &mut Report::default())?;
        }
        Ok(())
    }

    /// Folds a record that now stands.
    ///
    /// # Errors
    /// If the journal is broken.
    pub fn fold(
        &mut self,
        shard: ShardId,
        offset: Offset,
        record: &[u8],
        report: &mut Report,
    ) -> Result<Verdict, String> {
        let Committed { image, emitted, sent, seen, carried, marks } = &mut self.shards[shard as usize];
        let mut unreadable = Ok(());
        let verdict = image.fold(offset, record, &mut |_, frame| {
            carried.clear();
            unreadable = frame::ops(frame.body, |op| match op {
                OpRef::Emit(egress, bytes) => {
                    let (epoch, egress, bytes) = (frame.header.epoch, usize::from(egress), bytes.to_vec());
                    emitted.push(EmittedRecord { shard, epoch, egress, bytes });
                }
                OpRef::Send(target, message, _) => {
                    sent.entry(target).or_default().push((message.message, message.payload.to_vec()));
                }
                OpRef::Seen(source, upto) => _ = seen.insert(source, upto),
                OpRef::Carry(message) => carried.push((message.message, message.payload.to_vec())),
                _ => {}
            });
            report.frames += 1;
            report.epochs_carried += u64::from(!carried.is_empty());
        });
        unreadable.map_err(|error| error.to_string())?;
        let verdict = verdict.map_err(|error| error.to_string())?;
        let frame = frame::parse(record).map_err(|error| error.to_string())?;
        report.parts += u64::from(frame.header.kind == Kind::Part);
        if frame.header.kind == Kind::Snapshot {
            report.marks += 1;
            marks.push(Marked::read(frame.body).map_err(|error| error.to_string())?);
        }
        report.frames_void += u64::from(verdict == Verdict::Void);
        Ok(verdict)
    }

    /// How many messages `source` has committed for `target`.
    #[must_use]
    pub fn sent(&self, source: ShardId, target: ShardId) -> u64 {
        self.shards[source as usize].sent.get(&target).map_or(0, |sent| sent.len() as u64)
    }

    /// Every committed message that no committed frame of its receiver has handled.
    pub fn on_the_way(&self) -> impl Iterator<Item = &Posted> {
        let shards = (0_u32..).zip(&self.shards);
        let remote = shards.flat_map(move |(source, committed)| {
            committed.sent.iter().flat_map(move |(target, sent)| {
                let seen = self.shards[*target as usize].seen.get(&source).copied().unwrap_or_default();
                &sent[seen as usize..]
            })
        });
        remote.chain(self.shards.iter().flat_map(|committed| &committed.carried))
    }

    /// Every committed state: function, key, encoded state.
    pub fn states(&self) -> impl Iterator<Item = (&str, &[u8], &[u8])> {
        self.shards.iter().flat_map(|committed| committed.image.states())
    }
}

/// Compares a snapshot with the fold of the journal up to where it was taken.
///
/// # Errors
/// If they differ.
pub fn snapshot_equals_fold(log: &SharedLog, shard: ShardId, upto: Offset, snapshot: &[u8]) -> Result<(), String> {
    let mut image = Image::new(shard);
    for (offset, record) in (0..upto).zip(log.whole(shard)) {
        image.fold(offset, record, &mut |_, _| {}).map_err(|error| error.to_string())?;
    }
    if image.encode() == snapshot {
        return Ok(());
    }
    let taken = Image::decode(snapshot).map_err(|error| error.to_string())?;
    Err(format!("a snapshot of shard {shard} is not the fold of its journal (I4):\n{taken:#?}\n{image:#?}"))
}

/// All that says something about the state of one shard at the end.
pub struct Accounts<'a> {
    /// Its number.
    pub shard: ShardId,
    /// Its owner's state.
    pub owner: &'a Shard,
    /// What its journal says.
    pub committed: &'a Committed,
    /// Its store.
    pub store: &'a mut MemoryStore,
    /// The egresses of all shards.
    pub egresses: &'a MemoryEgresses,
}

impl Accounts<'_> {
    /// Compares them.
    ///
    /// # Errors
    /// The first difference.
    pub fn agree(self, log: &mut SharedLog, snapshots: &mut dyn Snapshots, report: &mut Report) -> Result<(), String> {
        let Self { shard, owner, committed, store, egresses } = self;
        let taken = egresses.taken(shard);
        let image = &committed.image;
        let expected = image.encode();
        // An owner knows of acknowledgements that wait for its next frame, which a service may never make.
        let mut owned = image.clone();
        image.outbox().for_each(|(target, ..)| owned.forget_sent(target, owner.acknowledged(target)));
        if owner.encode(image.next_offset()) != owned.encode() {
            let owner = Image::decode(&owner.encode(image.next_offset())).map_err(|error| error.to_string())?;
            return Err(format!("the owner of shard {shard} and its journal differ (I4):\n{owner:#?}\n{owned:#?}"));
        }
        let recovered = Replica::recover(shard, log, snapshots, taken, &mut |_, _| {});
        let recovered = recovered.map_err(|error| error.to_string())?;
        if recovered.image.encode() != expected {
            return Err(format!("snapshot + journal of shard {shard} is not the fold of the whole journal (I4)"));
        }
        report.recovered_from_snapshot += u64::from(log.start(shard) > 0);
        let stored = store.scan(None, usize::MAX)?;
        let stored = stored.iter().map(|(key, state)| (&*key.function, &*key.key, &**state));
        if !stored.eq(image.states()) {
            return Err(format!("the store of shard {shard} does not hold what its journal says (I4)"));
        }
        if !egresses.records().iter().filter(|record| record.shard == shard).eq(&committed.emitted) {
            return Err(format!("the egress of shard {shard} does not have what was committed (I3)"));
        }
        if taken != image.epoch() {
            return Err(format!("the egress of shard {shard} has epoch {taken}, not {}", image.epoch()));
        }
        Ok(())
    }
}
