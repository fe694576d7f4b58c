//! Appends on their way to the log, and what their writers learn of them.

use statefn_core::{
    address::ShardId,
    ports::log::{Log, Offset},
    shard::{Shard, rules::Rule},
};

use super::{Event, Flight, Life, Outcome, WorkerId, World};
use crate::log::{Bytes, Fate};

impl World<'_> {
    pub(super) fn append(&mut self, worker: WorkerId, shard: ShardId, nonce: u64, records: Vec<Bytes>) {
        let mut fate = Fate::draw(&mut self.random, self.faults.refused, self.faults.unknown);
        if fate != Fate::Stands && self.is_spared() {
            fate = Fate::Stands;
        }
        // The only process of an embedded world has nobody who could append after it gave up.
        let comes_again = matches!(fate, Fate::Late | Fate::Doubled);
        let fate = if self.plan.is_embedded && comes_again { Fate::PartlyUnknown } else { fate };
        if fate != Fate::Stands {
            self.tell(format_args!("the append of worker {worker} to shard {shard} {}", fate.text()));
        }
        let flight = Flight { life: self.life(worker), shard, nonce, records, fate };
        if fate == Fate::Late {
            self.report.appends_unknown += 1;
            self.send(Event::Told(flight.life, shard, nonce, Outcome::Unknown));
            // The first of many records may stand before its writer claims again.
            let is_soon = flight.records.len() > 1 && self.random.chance(500);
            let ms = self.random.between(0, if is_soon { self.plan.delay_ms_max } else { 2_000 });
            self.after(ms, Event::Arrive(flight));
        } else {
            let ms = self.random.between(0, self.plan.delay_ms_max);
            let stalled_ms = self.stalled_until[shard as usize] - self.now;
            self.report.appends_stalled += u64::from(stalled_ms > ms);
            self.after(ms.max(stalled_ms), Event::Arrive(flight));
        }
    }

    pub(super) fn arrive(&mut self, flight: Flight) -> Result<(), String> {
        self.flights -= 1;
        let Flight { life, shard, nonce, records, fate } = flight;
        let mut outcome = Outcome::Unknown;
        match fate {
            Fate::Stands => outcome = Outcome::Stands(self.put_all(shard, &records)?),
            Fate::Doubled => {
                self.report.appends_doubled += 1;
                outcome = Outcome::Stands(self.put_all(shard, &records)?);
                let void = self.report.frames_void;
                self.put_all(shard, &records)?;
                self.report.appends_doubled_void += u64::from(self.report.frames_void > void);
            }
            Fate::Refused => {
                self.report.appends_refused += 1;
                outcome = Outcome::Refused;
            }
            Fate::FailsUnknown => self.report.appends_unknown += 1,
            Fate::StandsUnknown => {
                self.report.appends_unknown += 1;
                self.put_all(shard, &records)?;
            }
            Fate::PartlyUnknown => {
                self.report.appends_unknown += 1;
                self.put_partly(shard, &records)?;
            }
            Fate::Late => {
                return self.come_late(life, shard, nonce, records);
            }
        }
        self.send(Event::Told(life, shard, nonce, outcome));
        Ok(())
    }

    /// Puts what its writer has given up: all of it, or the first records now and the others later,
    /// with those of other writers between them.
    fn come_late(&mut self, life: Life, shard: ShardId, nonce: u64, records: Vec<Bytes>) -> Result<(), String> {
        self.report.appends_late += 1;
        let now = if self.random.chance(500) { records.len() } else { self.random.place(records.len()) + 1 };
        let (void, frames) = (self.report.frames_void, self.report.frames);
        self.put_all(shard, &records[..now])?;
        self.report.appends_late_void += u64::from(self.report.frames_void > void);
        if now < records.len() {
            self.report.appends_scattered += 1;
            self.report.appends_scattered_open += u64::from(self.report.frames == frames);
            let ms = self.random.between(1, 500);
            let records = records[now..].to_vec();
            self.after(ms, Event::Arrive(Flight { life, shard, nonce, records, fate: Fate::Late }));
        }
        Ok(())
    }

    pub(super) fn put_all(&mut self, shard: ShardId, records: &[Bytes]) -> Result<Offset, String> {
        let first = self.log.end(shard);
        records.iter().try_for_each(|record| self.put(shard, record))?;
        Ok(first)
    }

    pub(super) fn put_partly(&mut self, shard: ShardId, records: &[Bytes]) -> Result<(), String> {
        let (mut stand, frames) = (0, self.report.frames);
        for record in records {
            if self.random.chance(500) {
                stand += 1;
                self.put(shard, record)?;
            }
        }
        let is_torn = stand > 0 && stand < records.len();
        self.report.appends_torn += u64::from(is_torn);
        self.report.appends_torn_void += u64::from(is_torn && self.report.frames == frames);
        Ok(())
    }

    pub(super) fn put(&mut self, shard: ShardId, record: &Bytes) -> Result<(), String> {
        let offset = self.log.put(shard, record);
        self.note(u64::from(shard) << 32 | record.len() as u64);
        let frames = self.report.frames;
        self.audit.fold(shard, offset, record, &mut self.report)?;
        if frames != self.report.frames {
            let epoch = self.audit.shards[shard as usize].image.epoch();
            self.tell(format_args!("shard {shard} commits epoch {epoch}"));
        }
        if frames != self.report.frames && self.report.frames.is_multiple_of(self.workload.frames_between_checks()) {
            self.workload.check_running(&self.program, &self.audit)?;
        }
        Ok(())
    }

    pub(super) fn told(
        &mut self,
        worker: WorkerId,
        shard: ShardId,
        nonce: u64,
        outcome: Outcome,
    ) -> Result<(), String> {
        if self.workers[worker].claims.get(&shard).is_some_and(|(claimed, _)| *claimed == nonce) {
            return self.claim_told(worker, shard, outcome);
        }
        // Of an ownership that was given up since nobody wants to know.
        if self.owned(worker, shard).is_none_or(|owned| owned.nonce() != nonce) {
            return Ok(());
        }
        match outcome {
            Outcome::Stands(offset) => {
                self.pipeline(worker).appended(shard, offset);
                self.report.deposed += u64::from(self.owned(worker, shard).is_none());
            }
            Outcome::Unknown if !self.plan.rules.holds(Rule::UnknownIsNoSuccess) => {
                let offset = self.owned(worker, shard).map_or(0, Shard::next_offset);
                self.pipeline(worker).appended(shard, offset);
            }
            Outcome::Unknown | Outcome::Refused => {
                match outcome {
                    Outcome::Refused => self.report.given_up_refused += 1,
                    _ => self.report.given_up_unknown += 1,
                }
                self.pipeline(worker).lost(shard);
                if outcome == Outcome::Unknown && !self.plan.rules.holds(Rule::UnknownIsNoFailure) {
                    self.refuse_requests(worker, shard);
                }
            }
        }
        Ok(())
    }
}
