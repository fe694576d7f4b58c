//! Answers in a log that others write to as well: each needs a proof that its owner still was one
//! after the call.
//!
//! The proof is an append of the owner that was sealed after the call and is confirmed, or else
//! the end of the journal, asked for after the call and found where the owner expects it. A frame
//! that was on its way before the call proves nothing: another owner may have come behind it.
//!
//! Deliberately absent: leases, which would need clocks that agree.

use crate::shard::Answer;

#[derive(Debug, Default)]
pub(super) struct Reads {
    /// Answers for which no question is out.
    waiting: Vec<Answer>,
    /// The number of the question that is out, and the answers it is for.
    asked: Option<(u64, Vec<Answer>)>,
    /// Answers that the frame on its way will prove.
    behind_frame: Vec<Answer>,
}

impl Reads {
    pub(super) fn push(&mut self, answers: Vec<Answer>) {
        self.waiting.extend(answers);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.asked.is_none() && self.behind_frame.is_empty()
    }

    /// Whether a question has to be asked.
    pub(super) fn wants_to_ask(&self) -> bool {
        !self.waiting.is_empty() && self.asked.is_none()
    }

    /// Notes that this question is out, for all that waits.
    pub(super) fn ask(&mut self, question: u64) {
        assert!(self.asked.is_none(), "one question is out at a time");
        self.asked = Some((question, std::mem::take(&mut self.waiting)));
    }

    /// The answers of a question that is still out.
    pub(super) fn replied(&mut self, question: u64) -> Option<Vec<Answer>> {
        self.asked.take_if(|(asked, _)| *asked == question).map(|(_, answers)| answers)
    }

    /// Notes that a frame was sealed, whose append will prove more than a question that is out.
    pub(super) fn seal(&mut self) {
        let asked = self.asked.take().into_iter().flat_map(|(_, answers)| answers);
        self.behind_frame.extend(asked.chain(self.waiting.drain(..)));
    }

    /// The answers that the frame on its way has proved.
    pub(super) fn confirm(&mut self) -> Vec<Answer> {
        std::mem::take(&mut self.behind_frame)
    }
}
