//! The rules that tests can switch off, to prove that the simulator notices.
//!
//! Without the feature `mutants`, which only tests use, every rule always holds.

/// A rule of the protocol that a mutant lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// A message that was accepted before is dropped.
    SeenDropsDuplicates,
    /// Messages are published only once their frame is confirmed.
    PublishAfterConfirm,
    /// Answers are given only once their frame is confirmed.
    AnswerAfterConfirm,
    /// A watermark counts only once the messages before it were received.
    WatermarkAfterMessages,
}

/// The rules in force.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rules {
    #[cfg(feature = "mutants")]
    off: Option<Rule>,
}

impl Rules {
    /// All rules but one.
    #[cfg(feature = "mutants")]
    #[must_use]
    pub fn without(rule: Rule) -> Self {
        Self { off: Some(rule) }
    }

    /// Whether a rule holds.
    #[inline]
    #[must_use]
    pub fn holds(self, rule: Rule) -> bool {
        #[cfg(feature = "mutants")]
        return self.off != Some(rule);
        #[cfg(not(feature = "mutants"))]
        {
            let _ = rule;
            true
        }
    }
}
