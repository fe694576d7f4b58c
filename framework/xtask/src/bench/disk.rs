//! The disk of a loop by hand: a journal, an output and a mark, made durable in the order of the app.

use std::{
    fs::File,
    io::Write,
    path::Path,
    time::{Duration, Instant},
};

use super::Failure;

/// A journal, an output if there is one, and a mark.
pub(crate) struct Disk {
    journal: File,
    output: Option<File>,
    mark: File,
    /// How long each sync took.
    pub(crate) syncs: Vec<Duration>,
    /// Bytes of the journal, and of the output.
    pub(crate) bytes: (u64, u64),
    /// When the output of the last commit was durable.
    pub(crate) output_at: Instant,
}

impl Disk {
    /// In an empty directory; the output is called as the app calls it.
    pub(crate) fn create(data: &Path, output: Option<&str>) -> Result<Self, Failure> {
        Ok(Self {
            journal: File::create(data.join("journal"))?,
            output: output.map(|name| File::create(data.join(name))).transpose()?,
            mark: File::create(data.join("mark"))?,
            syncs: Vec::new(),
            bytes: (0, 0),
            output_at: Instant::now(),
        })
    }

    /// Makes a commit durable: `journal` in the journal, then `output` in the output, then the mark.
    pub(crate) fn commit(&mut self, journal: &[u8], output: &[u8], mark: u64) -> Result<(), Failure> {
        self.journal.write_all(journal)?;
        self.syncs.push(timed(|| self.journal.sync_data())?);
        self.bytes.0 += journal.len() as u64;
        if let Some(file) = &mut self.output {
            file.write_all(output)?;
            self.syncs.push(timed(|| file.sync_data())?);
            self.bytes.1 += output.len() as u64;
            self.output_at = Instant::now();
        }
        self.mark.write_all(&mark.to_le_bytes())?;
        self.syncs.push(timed(|| self.mark.sync_data())?);
        Ok(())
    }
}

fn timed(sync: impl FnOnce() -> std::io::Result<()>) -> Result<Duration, Failure> {
    let started_at = Instant::now();
    sync()?;
    Ok(started_at.elapsed())
}

/// The duration in milliseconds that `percent` of 100 do not exceed; 0 of none.
pub(crate) fn quantile_ms(durations: &[Duration], percent: usize) -> f64 {
    let mut sorted = durations.to_vec();
    sorted.sort_unstable();
    let place = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(place).map_or(0.0, |duration| duration.as_secs_f64() * 1e3)
}
