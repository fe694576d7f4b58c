//! Mailboxes and progress: records on their way to the log, and who reads them.
//!
//! What a worker posts to one partition comes in order, but for what is late or doubled. Garbage is
//! what a reader may find as well: damaged, cut off, of somebody else, or in the wrong place.

use std::sync::Arc;

use statefn_core::{
    address::ShardId,
    pipeline::Taken,
    ports::log::{Log, Offset, Partition},
    shard::{
        outbox::Mail,
        progress::Progress,
        wire::{decode_mail, encode_mail, encode_progress, mailbox_partition, progress_partition},
    },
};

use super::{Event, WorkerId, World};
use crate::{log::Bytes, plan::Fault};

impl World<'_> {
    pub(super) fn publish(&mut self, worker: WorkerId, mail: &Mail) -> Result<(), String> {
        let sent = self.published.entry((mail.source, mail.target)).or_default();
        self.report.mail_sent_again += u64::from(mail.last() <= *sent);
        *sent = (*sent).max(mail.last());
        if self.plan.looks_inside && mail.last() > self.audit.sent(mail.source, mail.target) {
            return Err(format!("shard {} publishes what it has not committed (I3): {mail:?}", mail.source));
        }
        let records = encode_mail(&self.program, mail, self.plan.record_bytes_max);
        self.report.mail_split += u64::from(records.len() > 1);
        self.post(worker, mailbox_partition(self.plan.shards, mail.target), records);
        Ok(())
    }

    pub(super) fn tell_progress(&mut self, worker: WorkerId, news: &[Arc<Progress>]) -> Result<(), String> {
        let is_ahead =
            |progress: &&Arc<Progress>| progress.epoch > self.audit.shards[progress.shard as usize].image.epoch();
        if let Some(ahead) = news.iter().find(is_ahead).filter(|_| self.plan.looks_inside) {
            let Progress { shard, epoch, .. } = **ahead;
            return Err(format!("shard {shard} tells progress of epoch {epoch}, which is not committed"));
        }
        let records = encode_progress(&self.program, news, self.plan.record_bytes_max);
        self.post(worker, progress_partition(self.plan.shards), records);
        Ok(())
    }

    /// Lets records come to a partition, as the faults want it; nobody waits for the outcome.
    fn post(&mut self, worker: WorkerId, partition: Partition, records: Vec<Vec<u8>>) {
        /// How late a record may come.
        const LATE_MS_MAX: i64 = 2_000;
        if self.plan.is_embedded {
            return;
        }
        for record in records.into_iter().map(Arc::new) {
            if self.strikes(Fault::Garbage) {
                self.post_garbage(partition, &record);
            }
            if self.strikes(Fault::LostMail) {
                self.report.mail_lost += 1;
                self.tell(format_args!("mail or progress is lost"));
                continue;
            }
            if self.strikes(Fault::DoubledMail) {
                self.report.mail_doubled += 1;
                self.tell(format_args!("mail or progress is doubled"));
                let ms = self.random.between(0, LATE_MS_MAX);
                self.after(ms, Event::Posted(partition, Arc::clone(&record)));
            }
            if self.strikes(Fault::LateMail) {
                self.report.mail_late += 1;
                self.tell(format_args!("mail or progress comes late"));
                let ms = self.random.between(0, LATE_MS_MAX);
                self.after(ms, Event::Posted(partition, record));
                continue;
            }
            let at = self.now + self.random.between(0, self.plan.delay_ms_max);
            let posted_at = self.posted_at.entry((worker, partition)).or_default();
            *posted_at = at.max(*posted_at);
            let at = *posted_at;
            self.at(at, Event::Posted(partition, record));
        }
    }

    fn post_garbage(&mut self, partition: Partition, record: &Bytes) {
        self.report.garbage += 1;
        self.tell(format_args!("garbage stands in a mailbox or among progress"));
        let mut bytes = record.to_vec();
        let place = self.random.place(bytes.len());
        let mut to = partition;
        match self.random.below(4) {
            0 => bytes[place] ^= 1 << self.random.below(8),
            1 => bytes.truncate(place),
            2 => bytes.iter_mut().for_each(|byte| *byte = self.random.number() as u8),
            _ => {
                let shards = self.plan.shards;
                to = shards + (partition - shards + 1) % (shards + 1);
            }
        }
        self.send(Event::Posted(to, Arc::new(bytes)));
    }

    /// A record stands in a mailbox or in the partition of progress.
    pub(super) fn posted(&mut self, partition: Partition, record: &Bytes) {
        self.log.put(partition, record);
        self.note(u64::from(partition) << 32 | record.len() as u64);
        for worker in 0..self.workers.len() {
            let shard = partition - self.plan.shards;
            if shard == self.plan.shards || self.owned(worker, shard).is_some() {
                self.wake(worker, 1);
            }
        }
    }

    /// Reads what the mailboxes of a worker's shards, and the partition of progress, have for it.
    pub(super) fn read_posts(&mut self, worker: WorkerId) -> Result<bool, String> {
        if self.plan.is_embedded {
            return Ok(false);
        }
        let mut is_any = self.read_progress(worker)?;
        for shard in 0..self.plan.shards {
            is_any |= self.read_mailbox(worker, shard)?;
        }
        Ok(is_any)
    }

    fn read_progress(&mut self, worker: WorkerId) -> Result<bool, String> {
        let partition = progress_partition(self.plan.shards);
        let from = self.workers[worker].progress_from.max(self.log.start(partition));
        let end = self.log.end(partition);
        self.workers[worker].progress_from = end;
        let pipeline = self.workers[worker].pipeline.as_mut().expect("a worker with a turn lives");
        let read = self.log.read(partition, from, &mut |_, record| {
            let taken = pipeline.progress_record(record);
            self.report.garbage_read += u64::from(taken == Taken::Unreadable);
        });
        read.map_err(|error| error.to_string())?;
        self.check_garbage()?;
        Ok(end > from)
    }

    fn read_mailbox(&mut self, worker: WorkerId, shard: ShardId) -> Result<bool, String> {
        let partition = mailbox_partition(self.plan.shards, shard);
        let pipeline = self.workers[worker].pipeline.as_ref().expect("a worker with a turn lives");
        let Some(from) = pipeline.mailbox_from(shard) else { return Ok(false) };
        let from = from.max(self.log.start(partition));
        if from >= self.log.end(partition) {
            return Ok(false);
        }
        let now = self.clock(worker);
        let pipeline = self.workers[worker].pipeline.as_mut().expect("a worker with a turn lives");
        let mut taken = Vec::new();
        let read = self.log.read(partition, from, &mut |offset, record| {
            if taken.last().is_none_or(|(_, last)| *last != Taken::NotYet) {
                taken.push((offset, pipeline.mailbox_record(shard, offset, record, now)));
            }
        });
        read.map_err(|error| error.to_string())?;
        taken.iter().for_each(|(offset, taken)| self.count_taken(shard, *offset, *taken));
        self.check_garbage()?;
        Ok(true)
    }

    /// Checks that what workers have posted can be read.
    fn check_garbage(&self) -> Result<(), String> {
        if self.report.garbage == 0 && self.report.garbage_read > 0 {
            return Err("a record that no fault has touched cannot be read".into());
        }
        Ok(())
    }

    fn count_taken(&mut self, shard: ShardId, offset: Offset, taken: Taken) {
        match taken {
            Taken::Applied => {}
            Taken::Unreadable => self.report.garbage_read += 1,
            Taken::NotYet => self.report.mailboxes_held += 1,
            Taken::Void => {
                let record = &self.log.whole(mailbox_partition(self.plan.shards, shard))[offset as usize];
                let mail = decode_mail(&self.program, self.plan.shards, record).expect("it was read before");
                let seen = self.audit.shards[shard as usize].seen.get(&mail.source).copied().unwrap_or_default();
                match mail.last() <= seen {
                    true => self.report.mail_dropped += 1,
                    false => self.report.mail_behind_gap += u64::from(mail.first > seen + 1),
                }
                self.void_mail.insert((shard, offset));
            }
        }
    }

    /// Checks that what an owner lets the log forget is committed, or meant nothing to it.
    pub(super) fn check_trim(&self, shard: ShardId, before: Offset) -> Result<(), String> {
        let partition = mailbox_partition(self.plan.shards, shard);
        let seen = &self.audit.shards[shard as usize].seen;
        for (offset, record) in (0..before).zip(self.log.whole(partition)).skip(self.log.start(partition) as usize) {
            let Ok(mail) = decode_mail(&self.program, self.plan.shards, record) else { continue };
            let is_seen = mail.last() <= seen.get(&mail.source).copied().unwrap_or_default();
            if !is_seen && mail.target == shard && !self.void_mail.contains(&(shard, offset)) {
                return Err(format!(
                    "the mailbox of shard {shard} is trimmed to {before}, but {mail:?} at {offset} is not committed"
                ));
            }
        }
        Ok(())
    }
}
