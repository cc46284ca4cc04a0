//! The elements, one after the other, for one group of methods.

use super::asm::R2;
use super::program::{Emitter, Rest, WEIGHT_MAX, Ways, What};
use super::prologue::Prepared;
use super::{Refused, TooMuch};
use crate::diagnostics::Span;
use crate::effects;
use crate::ir::{Body, Group};
use std::collections::BTreeSet;

/// Instructions of one element, for one group of methods: jumps reach 32,767 of them, and the verifier looks at no more
/// than 8,192 branches that are open at a time.
const ELEMENT_MAX: usize = 8_000;
/// From so many fields on, what is known of the packet is forgotten before each element.
const FIELDS_FORGOTTEN: usize = 8;

impl<'a> Emitter<'a> {
    pub(super) fn chain(&mut self, group: &'a Group, rest: Rest, count: usize) -> Result<(), TooMuch> {
        let policy = self.policy;
        self.mark(What::Group(rest.group));
        self.group = group;
        self.single = (group.methods.len() == 1).then_some(rest.ordinal);
        self.prepared = Prepared::default();
        let Rest { mut run, .. } = rest;
        let ends: BTreeSet<u16> = group.fields.iter().flatten().map(|field| field.end).collect();
        for (at, element) in policy.elements.iter().enumerate().take(count).skip(rest.element) {
            if !group.covered.get(at).copied().unwrap_or(false) {
                continue;
            }
            if self.is_full() {
                return self.go_on(Rest { element: at, run, ..rest });
            }
            if ends.len() > FIELDS_FORGOTTEN {
                self.context(R2);
                self.find_header(R2);
            }
            let before = self.asm.len();
            let ways = Ways { send: self.asm.label(), audit: element.audit.then(|| self.asm.label()) };
            let refused = |refused: Refused| TooMuch::Element(at, refused.why);
            match self.runs.of(at) {
                // The byte stands for the whole run.
                Some(known) if run == Some(known) => continue,
                Some(known) => {
                    run = Some(known);
                    self.mark(What::Element(at));
                    self.asm.line(&element.span);
                    self.decided(known, ways.send);
                }
                None => {
                    self.mark(What::Element(at));
                    self.element(element.request.as_ref(), &element.span, ways).map_err(refused)?;
                }
            }
            if let Some(audit) = ways.audit {
                self.asm.bind(audit);
                self.audited();
            }
            self.asm.bind(ways.send);
            let length = self.asm.len() - before;
            if length > ELEMENT_MAX {
                let why =
                    format!("takes {length} instructions for one method, and XDP can take {ELEMENT_MAX}");
                return Err(TooMuch::Element(at, why));
            }
            let own = length * (1 + ends.len());
            if own > WEIGHT_MAX {
                let why =
                    format!("has more ways through its {length} instructions than the verifier follows");
                return Err(TooMuch::Element(at, why));
            }
            self.weight += own;
        }
        // A response handler is the engine's too, wherever its element's request handler runs.
        let rest = policy
            .elements
            .iter()
            .zip(&group.covered)
            .enumerate()
            .any(|(at, (element, covered))| *covered && (at >= count || element.response.is_some()));
        self.asm.jump(if rest { self.exits.deliver_rest } else { self.exits.deliver });
        Ok(())
    }

    fn element(&mut self, body: Option<&Body>, span: &Span, ways: Ways) -> Result<(), Refused> {
        self.slots.clear();
        match body {
            None => {}
            Some(Body::SessionTracker(at)) => {
                self.asm.line(at);
                self.session_tracker(ways);
            }
            Some(Body::Block(block)) => {
                self.asm.line(span);
                self.reads = effects::slot_reads(block);
                self.prepare(block);
                self.block(block, ways)?;
            }
        }
        // A handler without an exit sends.
        self.asm.jump(ways.send);
        Ok(())
    }
}
