//! The response that a policy answers a call with.

use tollfree_wire::header::FLAT_MAX;

/// What a policy answers a call with, instead of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answered<'a> {
    /// The layout of the response.
    pub layout: u32,
    /// Its flat block.
    pub flat: &'a [u8],
}

/// The last answer.
#[derive(Clone, Debug)]
pub struct AnswerBlock {
    /// Whether the last call was answered.
    given: bool,
    layout: u32,
    length: usize,
    flat: [u8; FLAT_MAX],
}

impl Default for AnswerBlock {
    fn default() -> AnswerBlock {
        AnswerBlock { given: false, layout: 0, length: 0, flat: [0; FLAT_MAX] }
    }
}

impl AnswerBlock {
    /// Begins an answer of so many zero bytes.
    pub fn reset(&mut self, length: usize, layout: u32) {
        (self.given, self.length, self.layout) = (true, length.min(FLAT_MAX), layout);
        self.flat_mut().fill(0);
    }

    /// Another call is judged.
    pub fn forget(&mut self) {
        self.given = false;
    }

    pub fn flat_mut(&mut self) -> &mut [u8] {
        self.flat.get_mut(..self.length).unwrap_or_default()
    }

    pub fn get(&self) -> Option<Answered<'_>> {
        let flat = self.flat.get(..self.length)?;
        self.given.then_some(Answered { layout: self.layout, flat })
    }
}
