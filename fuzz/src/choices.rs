//! The fuzzer's bytes as choices: so a small change of the bytes is a small change of the input.

/// Takes choices from bytes; zeros when they are used up.
pub struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    /// From the fuzzer's input.
    pub fn new(data: &'a [u8]) -> Self {
        Self(data)
    }

    /// A number below `end`, from as many bytes as that takes.
    pub fn below(&mut self, end: usize) -> usize {
        let mut value = 0usize;
        let mut room = end.saturating_sub(1);
        while room > 0 {
            let Some((byte, rest)) = self.0.split_first() else { break };
            self.0 = rest;
            value = value << 8 | usize::from(*byte);
            room >>= 8;
        }
        value % end.max(1)
    }

    /// Whether there are bytes left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is left, as it is.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }
}
