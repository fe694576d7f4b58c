//! From snapshot and journal to an owner: recover, claim, own.
//!
//! A replica folds the journal; any number of workers may do so at a time. To own the shard it
//! appends a claim and folds on until the fold has accepted its nonce.

use std::{collections::BTreeSet, sync::Arc};

use thiserror::Error;

use super::{
    Emission, Options, Shard,
    frame::{self, FrameRef, Header, Kind, MARK_BYTES_MAX, OpRef, SnapshotMark},
    image::{Image, Verdict},
    retain::read_back,
    rules::{Rule, Rules},
    stored::Mending,
};
use crate::{
    address::ShardId,
    effect::{Emitted, Span},
    error::{Corrupt, LinkError},
    ports::{
        log::{Log, ReadError},
        snapshots::Snapshots,
        store::Store,
    },
    program::Program,
};

/// A shard as seen by one who does not own it (yet).
#[derive(Debug, Clone, Default)]
pub struct Replica {
    /// What the journal says so far.
    pub image: Image,
    /// The snapshots whose marks stand and that nobody has found damaged, oldest first.
    pub snapshots: Vec<SnapshotMark>,
    /// Bytes of the journal behind the newest snapshot.
    pub tail_bytes: u64,
}

impl Replica {
    /// Reads the newest good snapshot and the journal behind it.
    ///
    /// Committed frames behind epoch `egress_taken` are handed to `committed`, for egresses that
    /// have not taken them; the snapshot is chosen old enough for that. An owner may trim the
    /// journal meanwhile: then it is read again, and a frame may be handed over twice.
    ///
    /// # Errors
    /// If the journal does not reach back to a readable snapshot, or a record is damaged.
    pub fn recover(
        shard: ShardId,
        log: &mut dyn Log,
        snapshots: &mut dyn Snapshots,
        egress_taken: u64,
        committed: &mut dyn FnMut(&Image, &FrameRef<'_>),
    ) -> Result<Self, Corrupt> {
        let mut behind = |image: &Image, frame: &FrameRef<'_>| {
            if frame.header.epoch > egress_taken {
                committed(image, frame);
            }
        };
        Self::recover_under(Rules::default(), shard, log, snapshots, egress_taken, &mut behind)
    }

    /// As [`Self::recover`], but hands over every committed frame that it folds.
    fn recover_under(
        rules: Rules,
        shard: ShardId,
        log: &mut dyn Log,
        snapshots: &mut dyn Snapshots,
        egress_taken: u64,
        committed: &mut dyn FnMut(&Image, &FrameRef<'_>),
    ) -> Result<Self, Corrupt> {
        loop {
            let start = log.start(shard);
            let recovered = Self::recover_once(rules, shard, log, snapshots, egress_taken, committed);
            if recovered.is_err() && log.start(shard) > start {
                // The owner has trimmed what was being read: newer snapshots hold it.
                continue;
            }
            return recovered;
        }
    }

    fn recover_once(
        rules: Rules,
        shard: ShardId,
        log: &mut dyn Log,
        snapshots: &mut dyn Snapshots,
        egress_taken: u64,
        committed: &mut dyn FnMut(&Image, &FrameRef<'_>),
    ) -> Result<Self, Corrupt> {
        let marks = marks(shard, log)?;
        let (image, snapshots) = newest_snapshot(shard, log, snapshots, &marks, egress_taken)?;
        let mut replica = Self { image: image.under(rules), snapshots, tail_bytes: 0 };
        let mut failure = Ok(());
        let (from, end) = (replica.image.next_offset(), log.end(shard));
        if from > end {
            return Err(Corrupt(format!(
                "the journal of shard {shard} ends at offset {end}, and its snapshot holds what was before offset {from}: the log lost records, restore it"
            )));
        }
        let read = log.read(shard, from, &mut |offset, record| {
            if failure.is_ok() {
                failure = replica.fold(offset, record, committed).map(|_| ());
            }
        });
        read.map_err(corrupt)?;
        failure?;
        replica.image.marks.clear();
        Ok(replica)
    }

    /// Folds one more record in.
    ///
    /// # Errors
    /// As [`Image::fold`].
    pub fn fold(
        &mut self,
        offset: u64,
        record: &[u8],
        committed: &mut dyn FnMut(&Image, &FrameRef<'_>),
    ) -> Result<Verdict, Corrupt> {
        self.tail_bytes += record.len() as u64;
        self.image.fold(offset, record, committed)
    }

    /// A claim of the next term; `nonce` is new for each attempt, also of the same worker.
    #[must_use]
    pub fn claim(&self, program: &Program, nonce: u64) -> Vec<u8> {
        let image = &self.image;
        let mut claim = Vec::new();
        frame::begin(&mut claim);
        frame::put_names(&program.names, &mut claim);
        let header = Header {
            kind: Kind::Claim,
            shard: image.shard,
            term: image.term + 1,
            nonce,
            epoch: image.epoch,
            prev_crc: image.crc,
            now: image.now,
        };
        frame::finish(&mut claim, &header);
        claim
    }

    /// Whether the claim with this nonce was accepted and still holds.
    #[must_use]
    pub fn is_owned_by(&self, nonce: u64) -> bool {
        self.image.nonce == nonce && self.image.term > 0
    }
}

/// Why a shard cannot be taken over.
#[derive(Debug, Error)]
pub enum TakeOverError {
    /// Journal or snapshots are damaged.
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
    /// What is stored does not fit the program; nothing was changed.
    #[error("the stored state of shard {shard} does not fit this program:\n{problems}")]
    Incompatible {
        /// The shard.
        shard: ShardId,
        /// Every problem, with its fix.
        problems: LinkError,
    },
}

/// What a check has found in a shard that is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checked {
    /// The last committed epoch.
    pub epoch: u64,
    /// Keys that have a state.
    pub keys: usize,
    /// Timers and messages that wait for their time.
    pub pending: usize,
    /// Keys that are parked.
    pub parked: usize,
    /// Messages to other shards that are not acknowledged.
    pub unacknowledged: usize,
}

/// What came of a claim.
#[derive(Debug)]
pub enum Accepted {
    /// The shard is owned.
    Owned(Box<Shard>),
    /// Somebody else was faster, or wrote until the claim: start again, if the shard is still wanted.
    Again,
}

/// A shard on its way to a new owner: loaded, then claimed, then owned.
///
/// Where the log is shared, the owner of before may work on until it reads the claim. So the replica keeps
/// what was loaded from it: what was committed meanwhile is folded in behind it, and only loaded anew.
#[derive(Debug)]
pub struct TakeOver {
    program: Arc<Program>,
    options: Arc<Options>,
    replica: Replica,
    shard: Shard,
    /// Whether the replica still holds all that the shard was loaded from.
    is_kept: bool,
    egress_taken: u64,
    nonce: u64,
}

impl TakeOver {
    /// Loads snapshot and journal, and finds what the program cannot handle; writes nothing.
    ///
    /// Committed records for egresses behind epoch `egress_taken` are handed to `emit`.
    ///
    /// # Errors
    /// Damage, and stored state that does not fit the program.
    pub fn prepare(
        program: &Arc<Program>,
        options: &Arc<Options>,
        shard: ShardId,
        (log, snapshots): (&mut dyn Log, &mut dyn Snapshots),
        egress_taken: u64,
        emit: &mut dyn FnMut(Emission),
    ) -> Result<Self, TakeOverError> {
        Self::load(program, options, shard, (log, snapshots), None, egress_taken, emit)
    }

    /// As [`Self::prepare`], and brings `store` up to what was folded.
    ///
    /// # Errors
    /// As [`Self::prepare`], and if the store fails.
    pub fn prepare_with_store(
        program: &Arc<Program>,
        options: &Arc<Options>,
        shard: ShardId,
        (log, snapshots, store): (&mut dyn Log, &mut dyn Snapshots, &mut dyn Store),
        egress_taken: u64,
        emit: &mut dyn FnMut(Emission),
    ) -> Result<Self, TakeOverError> {
        let store = Some(store).filter(|_| options.rules.holds(Rule::TakeOverMendsTheStore));
        Self::load(program, options, shard, (log, snapshots), store, egress_taken, emit)
    }

    fn load(
        program: &Arc<Program>,
        options: &Arc<Options>,
        shard: ShardId,
        (log, snapshots): (&mut dyn Log, &mut dyn Snapshots),
        store: Option<&mut dyn Store>,
        egress_taken: u64,
        emit: &mut dyn FnMut(Emission),
    ) -> Result<Self, TakeOverError> {
        let is_kept = options.is_log_shared;
        let mut unknown = Ok(());
        let mut mending = store.map(Mending::new).transpose()?;
        let mut committed = |image: &Image, frame: &FrameRef<'_>| {
            if let Some(mending) = &mut mending {
                mending.apply(image, frame);
            }
            if frame.header.epoch <= egress_taken {
                return;
            }
            match emission(program, image, frame) {
                Ok(emission) => emit(emission),
                Err(error) => unknown = Err(error),
            }
        };
        let mut replica = Replica::recover_under(options.rules, shard, log, snapshots, egress_taken, &mut committed)?;
        unknown?;
        replica.image.check(options.shards)?;
        mending.map_or(Ok(()), |mending| mending.finish(&replica.image))?;
        let shard = match is_kept {
            true => load_under(program, options, &mut replica.image.clone())?,
            false => load_under(program, options, &mut replica.image)?,
        };
        let (program, options) = (Arc::clone(program), Arc::clone(options));
        Ok(Self { program, options, replica, shard, is_kept, egress_taken, nonce: 0 })
    }

    /// Verifies what is stored of a shard: that snapshot and journal fold, that the program reads
    /// every state, message and timer, and that all but the states is written back as it was read.
    ///
    /// # Errors
    /// As [`Self::prepare`], and if the state does not survive being loaded.
    pub fn check(
        program: &Arc<Program>,
        options: &Arc<Options>,
        shard: ShardId,
        (log, snapshots): (&mut dyn Log, &mut dyn Snapshots),
    ) -> Result<Checked, TakeOverError> {
        let mut image = Replica::recover(shard, log, snapshots, u64::MAX, &mut |_, _| {})?.image;
        image.check(options.shards)?;
        let checked = Checked {
            epoch: image.epoch,
            keys: image.states.len(),
            pending: image.pending.len(),
            parked: image.parked.len(),
            unacknowledged: image.outbox.len(),
        };
        // The shard takes them out of the image.
        let remembered = image.remembered.clone();
        let loaded = load_under(program, options, &mut image)?;
        image.remembered = remembered;
        // A program may read an older state and write a newer one, so the states are not compared.
        if loaded.encode_without_states(image.next_offset) != image.encode() {
            let text =
                format!("shard {shard} is not what it was after being loaded: this is a bug of statefn, keep the data");
            return Err(Corrupt(text).into());
        }
        Ok(checked)
    }

    /// The last committed epoch.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.replica.image.epoch
    }

    /// The claim to append; `nonce` is new for each attempt, also of the same worker.
    pub fn claim(&mut self, program: &Program, nonce: u64) -> Vec<u8> {
        self.nonce = nonce;
        self.replica.claim(program, nonce)
    }

    /// Folds on until the end of the journal, behind the claim.
    ///
    /// Records for egresses that were committed since the shard was loaded are handed to `emit`.
    ///
    /// # Errors
    /// Damage of the journal, and what was committed since and does not fit the program.
    pub fn accept(self, log: &mut dyn Log, emit: &mut dyn FnMut(Emission)) -> Result<Accepted, TakeOverError> {
        self.fold_on(log, None, emit)
    }

    /// As [`Self::accept`], and brings `store` up to what was folded.
    ///
    /// # Errors
    /// As [`Self::accept`], and if the store fails.
    pub fn accept_with_store(
        self,
        log: &mut dyn Log,
        store: &mut dyn Store,
        emit: &mut dyn FnMut(Emission),
    ) -> Result<Accepted, TakeOverError> {
        let store = Some(store).filter(|_| self.options.rules.holds(Rule::TakeOverMendsTheStore));
        self.fold_on(log, store, emit)
    }

    fn fold_on(
        mut self,
        log: &mut dyn Log,
        store: Option<&mut dyn Store>,
        emit: &mut dyn FnMut(Emission),
    ) -> Result<Accepted, TakeOverError> {
        let (shard, from) = (self.replica.image.shard, self.replica.image.next_offset());
        let (mut folded, mut unknown) = (Ok(()), Ok(()));
        let mut is_changed = false;
        let mut mending = store.map(Mending::new).transpose()?;
        let mut committed = |image: &Image, frame: &FrameRef<'_>| {
            if let Some(mending) = &mut mending {
                mending.apply(image, frame);
            }
            if frame.header.epoch > self.egress_taken {
                match emission(&self.program, image, frame) {
                    Ok(emission) => emit(emission),
                    Err(error) => unknown = Err(error),
                }
            }
        };
        let read = log.read(shard, from, &mut |offset, record| {
            if folded.is_ok() {
                let verdict = self.replica.fold(offset, record, &mut committed);
                folded = verdict.map(|verdict| is_changed |= verdict == Verdict::Committed);
            }
        });
        match read {
            // The owner of before wrote on, and has trimmed what was not read here yet.
            Err(ReadError::Trimmed { .. }) => return Ok(Accepted::Again),
            read => read.map_err(corrupt)?,
        }
        folded?;
        unknown?;
        if is_changed && !self.is_kept || !self.replica.is_owned_by(self.nonce) {
            return Ok(Accepted::Again);
        }
        if is_changed {
            self.replica.image.check(self.options.shards)?;
            mending.map_or(Ok(()), |mending| mending.finish(&self.replica.image))?;
            self.shard = load_under(&self.program, &self.options, &mut self.replica.image)?;
        }
        self.replica.snapshots.append(&mut self.replica.image.marks);
        tidy(&mut self.replica.snapshots);
        self.shard.accept(&self.replica);
        Ok(Accepted::Owned(Box::new(self.shard)))
    }
}

/// The records of a committed frame for egresses, under the names of the program.
fn emission(program: &Program, image: &Image, frame: &FrameRef<'_>) -> Result<Emission, Corrupt> {
    let mut bytes = Vec::new();
    let mut records = Vec::new();
    let mut unknown = Ok(());
    frame::ops(frame.body, |op| {
        let OpRef::Emit(egress, record) = op else { return };
        let name = image.name(egress);
        let known = program.names.binary_search_by(|known| known.as_str().cmp(name)).ok();
        let known = known.and_then(|id| u16::try_from(id).ok()).filter(|id| program.egresses.contains_key(id));
        match known {
            Some(egress) => {
                let start = bytes.len();
                bytes.extend_from_slice(record);
                records.push(Emitted { egress, record: Span::between(start, bytes.len()) });
            }
            None => {
                unknown = Err(Corrupt(format!(
                    "the journal holds records for the egress `{name}` that were not written yet, and the program no longer has it: register it until they are"
                )));
            }
        }
    })?;
    unknown?;
    Ok(Emission { shard: frame.header.shard, epoch: frame.header.epoch, frame: Arc::new(bytes), records })
}

/// Loads the state of an image under the names of the program, which the claim brings; the states are taken.
fn load_under(program: &Arc<Program>, options: &Arc<Options>, image: &mut Image) -> Result<Shard, TakeOverError> {
    let shard = image.shard;
    let renamed = image.rename(program.names.clone());
    renamed.map_err(|error| Corrupt(format!("the state of shard {shard}: {error}")))?;
    let loaded = Shard::load(Arc::clone(program), Arc::clone(options), image);
    loaded.map_err(|problems| TakeOverError::Incompatible { shard, problems })
}

fn corrupt(error: ReadError) -> Corrupt {
    Corrupt(error.to_string())
}

/// The marks of a journal. Most of its bytes stand in longer records, which are not looked at.
fn marks(shard: ShardId, log: &mut dyn Log) -> Result<Vec<SnapshotMark>, Corrupt> {
    let mut marks = Vec::new();
    let mut failure = Ok(());
    let start = log.start(shard);
    let read = log.read_short(shard, start, MARK_BYTES_MAX, &mut |offset, record| {
        let mark = frame::parse(record).and_then(|frame| match frame.header.kind {
            Kind::Snapshot => Ok(Some(SnapshotMark::read(frame.body)?)),
            _ => Ok(None),
        });
        match mark {
            Ok(mark) => marks.extend(mark),
            Err(error) if failure.is_ok() => {
                failure = Err(Corrupt(format!("offset {offset} of the journal of shard {shard}: {error}")));
            }
            Err(_) => {}
        }
    });
    read.map_err(corrupt)?;
    tidy(&mut marks);
    failure.map(|()| marks)
}

/// Brings marks into the order of their epochs, each once: one may stand late, behind those of
/// later snapshots, or twice, and would else be taken for one of the two that are kept.
fn tidy(marks: &mut Vec<SnapshotMark>) {
    marks.sort_by(|a, b| (a.epoch, &a.name).cmp(&(b.epoch, &b.name)));
    marks.dedup();
}

/// The newest snapshot that is whole and, if possible, not behind what egresses have taken.
fn newest_snapshot(
    shard: ShardId,
    log: &mut dyn Log,
    snapshots: &mut dyn Snapshots,
    marks: &[SnapshotMark],
    egress_taken: u64,
) -> Result<(Image, Vec<SnapshotMark>), Corrupt> {
    let start = log.start(shard);
    let is_early = |mark: &&SnapshotMark| mark.epoch <= egress_taken;
    let readable = |mark: &&SnapshotMark| mark.next_offset >= start;
    let mut problems = Vec::new();
    let mut damaged = BTreeSet::new();
    for mark in marks.iter().filter(is_early).filter(readable).rev() {
        match load(shard, snapshots, mark) {
            Ok(image) => {
                // One that cannot be read must not count as one of the two that are kept; an older
                // one may, it is the one that is left when this one rots.
                let kept = |other: &&SnapshotMark| other.next_offset >= start && !damaged.contains(&*other.name);
                let kept = marks.iter().filter(kept).cloned().collect();
                return Ok((image, kept));
            }
            Err(error) => {
                problems.push(error.to_string());
                damaged.insert(&*mark.name);
            }
        }
    }
    if start == 0 {
        let kept = marks.iter().filter(|mark| !damaged.contains(&*mark.name)).cloned().collect();
        return Ok((Image::new(shard), kept));
    }
    Err(Corrupt(format!(
        "the journal of shard {shard} begins at offset {start} and no snapshot reaches up to there: restore the snapshots of this shard ({})",
        if problems.is_empty() { "no mark of one was found".to_owned() } else { problems.join("; ") }
    )))
}

fn load(shard: ShardId, snapshots: &mut dyn Snapshots, mark: &SnapshotMark) -> Result<Image, Corrupt> {
    let name = &mark.name;
    let bytes = read_back(snapshots, mark)?;
    let image = Image::decode_whole(bytes).map_err(|error| Corrupt(format!("snapshot {name}: {error}")))?;
    if (image.shard, image.epoch, image.next_offset) != (shard, mark.epoch, mark.next_offset) {
        return Err(Corrupt(format!("snapshot {name} is of another shard or epoch than its mark says")));
    }
    Ok(image)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ports::{
            log::{AppendError, MemoryLog, Offset, Partition, Record},
            snapshots::Snapshots,
        },
        trial::{Add, SHARDS, Worker, key_of, program},
    };

    /// An owner that takes a snapshot with each epoch.
    fn owner() -> Worker {
        let options = Options { snapshot_tail_bytes: 1, ..Options::new(SHARDS, &program()) };
        let mut owner = Worker::with(&program(), options);
        owner.own(0);
        owner
    }

    /// Commits so many epochs, keeps their snapshots, and forgets the journal before.
    fn commit(owner: &mut Worker, epochs: usize) {
        for _ in 0..epochs {
            // Snapshots grow, and so does what is needed for the next one.
            (0..100).for_each(|_| _ = owner.call(&key_of(0), &Add(1)));
            let actions = owner.run();
            owner.keep(actions);
        }
        owner.run();
    }

    fn recover(log: &mut dyn Log, snapshots: &mut dyn Snapshots) -> Replica {
        Replica::recover(0, log, snapshots, u64::MAX, &mut |_, _| {}).expect("is whole")
    }

    /// A log that is trimmed when it is read for the first time.
    struct Racing {
        log: MemoryLog,
        before: Option<Offset>,
    }

    impl Log for Racing {
        fn append(&mut self, group: &[Record<'_>]) -> Result<Vec<Offset>, AppendError> {
            self.log.append(group)
        }
        fn read(
            &mut self,
            partition: Partition,
            from: Offset,
            each: &mut dyn FnMut(Offset, &[u8]),
        ) -> Result<(), ReadError> {
            if let Some(before) = self.before.take() {
                self.log.trim(partition, before).expect("memory");
            }
            self.log.read(partition, from, each)
        }
        fn start(&self, partition: Partition) -> Offset {
            self.log.start(partition)
        }
        fn end(&self, partition: Partition) -> Offset {
            self.log.end(partition)
        }
        fn trim(&mut self, partition: Partition, before: Offset) -> Result<(), String> {
            self.log.trim(partition, before)
        }
    }

    #[test]
    fn a_recovery_whose_journal_is_trimmed_meanwhile_starts_again() {
        let mut owner = owner();
        commit(&mut owner, 2);
        let early = owner.log.clone();
        commit(&mut owner, 8);
        let start = owner.log.start(0);
        assert!(start > early.start(0));
        let expected = recover(&mut owner.log, &mut owner.snapshots).image.encode();
        // The same journal, as it was before the trim.
        let mut log = MemoryLog::new(1);
        let mut copy = |_: Offset, record: &[u8]| {
            log.append(&[Record { partition: 0, bytes: record }]).expect("memory");
        };
        (0..start).for_each(|offset| copy(offset, b"trimmed before anybody reads it"));
        owner.log.read(0, start, &mut copy).expect("readable");
        let mut racing = Racing { log, before: Some(start) };
        assert_eq!(recover(&mut racing, &mut owner.snapshots).image.encode(), expected);
    }

    #[test]
    fn a_claim_whose_journal_is_trimmed_meanwhile_is_tried_again() {
        let mut owner = owner();
        commit(&mut owner, 1);
        let (program, options) = (Arc::clone(&owner.program), Arc::clone(&owner.options));
        let ports: (&mut dyn Log, &mut dyn Snapshots) = (&mut owner.log, &mut owner.snapshots);
        let take_over = TakeOver::prepare(&program, &options, 0, ports, u64::MAX, &mut |_| {});
        let mut take_over = take_over.expect("is whole");
        let claim = take_over.claim(&program, 77);
        let end = owner.log.end(0);
        commit(&mut owner, 8);
        assert!(owner.log.start(0) > end, "the owner of before has trimmed what was not read");
        owner.log.append(&[Record { partition: 0, bytes: &claim }]).expect("memory");
        let accepted = take_over.accept(&mut owner.log, &mut |_| {}).expect("no damage");
        assert!(matches!(accepted, Accepted::Again));
    }

    #[test]
    fn what_the_owner_of_before_commits_until_the_claim_is_folded_in_behind_what_was_loaded() {
        let mut owner = owner();
        commit(&mut owner, 3);
        let program = Arc::clone(&owner.program);
        let options = Arc::new(Options { is_log_shared: true, ..Options::clone(&owner.options) });
        let taken = owner.pipeline.shard(0).expect("it is owned").epoch();
        let ports: (&mut dyn Log, &mut dyn Snapshots) = (&mut owner.log, &mut owner.snapshots);
        let take_over = TakeOver::prepare(&program, &options, 0, ports, taken, &mut |_| {});
        let mut take_over = take_over.expect("is whole");
        let claim = take_over.claim(&program, 77);
        owner.call(&key_of(0), &Add(5));
        let before = owner.run();
        assert!(!before.is_empty());
        owner.log.append(&[Record { partition: 0, bytes: &claim }]).expect("memory");
        // The owner of before does not know it yet; this is void.
        owner.call(&key_of(0), &Add(1_000));
        owner.run();
        let mut emitted = Vec::new();
        let mut emit = |emission: Emission| emitted.push(emission.epoch);
        let accepted = take_over.accept(&mut owner.log, &mut emit).expect("no damage");
        let Accepted::Owned(shard) = accepted else { panic!("nobody else has claimed it") };
        assert_eq!(emitted, [taken + 1], "egresses get what was committed since");
        let expected = recover(&mut owner.log, &mut owner.snapshots).image;
        assert_eq!((shard.epoch(), shard.term()), (taken + 1, expected.term));
        assert_eq!(shard.encode(expected.next_offset()), expected.encode());
    }

    #[test]
    fn snapshots_count_once_and_only_if_they_can_be_read() {
        let mut owner = owner();
        commit(&mut owner, 8);
        let known = marks(0, &mut owner.log).expect("readable");
        let [.., older, newest] = &known[..] else { panic!("two are kept: {known:?}") };
        // The older one's mark stands again, behind that of the newest.
        let mut again = Vec::new();
        let start = owner.log.start(0);
        let each = &mut |_: Offset, record: &[u8]| {
            let frame = frame::parse(record).expect("a frame");
            let is_it = frame.header.kind == Kind::Snapshot && SnapshotMark::read(frame.body).as_ref() == Ok(older);
            again.extend(is_it.then(|| record.to_vec()));
        };
        owner.log.read(0, start, each).expect("readable");
        owner.log.append(&[Record { partition: 0, bytes: &again[0] }]).expect("memory");
        let kept = |owner: &mut Worker, taken| {
            let (log, snapshots) = (&mut owner.log, &mut owner.snapshots);
            Replica::recover(0, log, snapshots, taken, &mut |_, _| {}).expect("is whole").snapshots
        };
        assert_eq!(kept(&mut owner, older.epoch), [older.clone(), newest.clone()]);
        owner.snapshots.remove(&newest.name).expect("memory");
        assert_eq!(kept(&mut owner, u64::MAX), std::slice::from_ref(older));
    }
}
