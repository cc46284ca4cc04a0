//! `match`: the arms' tests in their order, then the arms' bodies.

use super::Refused;
use super::asm::{Cond, Label, R1, R2};
use super::program::{Emitter, Ways};
use super::text::Text;
use crate::diagnostics::Span;
use crate::ir::{Arm, Constant, Guard, Number, Op, Operand, Pattern};
use tollfree_wire::Reason;

/// What is matched.
#[derive(Clone, Copy)]
pub(super) enum Matched<'a> {
    Operand(&'a Operand),
    /// What this gives, a number: only for arms without guards, since it is found once. And where the match is.
    Op(&'a Op, &'a Span),
}

/// What the arms are tested against.
enum Subject {
    /// In R1.
    Number,
    Text(Text),
    Constant(u64),
    Absent,
}

impl Emitter<'_> {
    /// Emits a match; what follows is reached from arms that do not end the element.
    pub(super) fn match_value(
        &mut self,
        subject: Matched<'_>,
        arms: &[Arm],
        ways: Ways,
    ) -> Result<(), Refused> {
        let (absent, after) = (self.asm.label(), self.asm.label());
        let bodies: Vec<Label> = arms.iter().map(|_| self.asm.label()).collect();
        let before = self.slots.here();
        self.tests(Some(subject), arms, &bodies, absent, ways)?;
        self.asm.bind(absent);
        if self.asm.is_open() {
            self.slots.at(&before);
            self.tests(None, arms, &bodies, absent, ways)?;
        }
        for (arm, body) in arms.iter().zip(bodies) {
            self.asm.bind(body);
            if self.asm.is_open() {
                self.slots.at(&before);
                self.block(&arm.body, ways)?;
                self.asm.jump(after);
            }
        }
        self.asm.bind(after);
        self.slots.at(&before);
        Ok(())
    }

    /// Goes to the first arm with a pattern that matches and a guard that holds. `None`: the subject is absent.
    fn tests(
        &mut self,
        matched: Option<Matched<'_>>,
        arms: &[Arm],
        bodies: &[Label],
        absent: Label,
        ways: Ways,
    ) -> Result<(), Refused> {
        let mut subject = self.subject(matched, absent)?;
        for (arm, body) in arms.iter().zip(bodies) {
            let Some(Guard { statements, condition }) = &arm.guard else {
                for pattern in &arm.patterns {
                    self.test(&subject, pattern, *body)?;
                }
                continue;
            };
            let (guard, next) = (self.asm.label(), self.asm.label());
            for pattern in &arm.patterns {
                self.test(&subject, pattern, guard)?;
            }
            self.asm.jump(next);
            self.asm.bind(guard);
            if self.asm.is_open() {
                // It has lost the subject by the time it does not hold.
                let fails = self.asm.label();
                self.block(statements, ways)?;
                self.number(condition, fails)?;
                self.asm.jump_if(Cond::Ne, R1, 0, *body);
                self.asm.bind(fails);
            }
            self.asm.bind(next);
            if self.asm.is_open() {
                subject = self.subject(matched, absent)?;
            }
        }
        // No arm is meant for it: a table that was tampered with can hold a value that is no case, and lets nothing
        // through.
        self.drop(Reason::PolicyDrop, ways);
        Ok(())
    }

    fn subject(&mut self, matched: Option<Matched<'_>>, absent: Label) -> Result<Subject, Refused> {
        let operand = match matched {
            None => return Ok(Subject::Absent),
            Some(Matched::Op(op, span)) => {
                self.op(op, absent)?;
                self.asm.line(span);
                return Ok(Subject::Number);
            }
            Some(Matched::Operand(operand)) => operand,
        };
        Ok(match operand {
            Operand::Constant(Constant::Number(number)) => Subject::Constant(*number),
            operand if !self.has_value(operand) => {
                self.asm.jump(absent);
                Subject::Absent
            }
            operand => match self.form_of(operand) {
                Some(_) => Subject::Text(self.text(operand, absent)?),
                None => {
                    self.number(operand, absent)?;
                    Subject::Number
                }
            },
        })
    }

    /// Jumps to `yes` if the pattern matches; R1 and R5 are kept.
    fn test(&mut self, subject: &Subject, pattern: &Pattern, yes: Label) -> Result<(), Refused> {
        match (pattern, subject) {
            (Pattern::Any, _) => self.asm.jump(yes),
            (Pattern::Absent, Subject::Absent) => self.asm.jump(yes),
            (Pattern::Absent, _) | (_, Subject::Absent) => {}
            (Pattern::Present, _) => self.asm.jump(yes),
            (Pattern::Equal(Constant::Bytes(bytes)), Subject::Text(text)) => {
                self.equal_bytes(text, bytes, yes)
            }
            (Pattern::Prefix(prefix), Subject::Text(text)) => self.prefix_bytes(text, prefix, yes),
            (Pattern::Cidr { address, bits }, Subject::Text(text)) => self.in_cidr(text, address, *bits, yes),
            (_, Subject::Constant(known)) => {
                if holds(pattern, *known)? {
                    self.asm.jump(yes);
                }
            }
            (Pattern::Equal(Constant::Number(wanted)), Subject::Number) => {
                self.asm.jump_if_constant(Cond::Eq, R1, *wanted, R2, yes);
            }
            (Pattern::OneOf(wanted), Subject::Number) => {
                for wanted in wanted {
                    self.asm.jump_if_constant(Cond::Eq, R1, *wanted, R2, yes);
                }
            }
            (Pattern::Range { number, from, to }, Subject::Number) => {
                let outside = self.asm.label();
                let (below, within) = match number {
                    Number::Unsigned => (Cond::Lt, Cond::Lt),
                    Number::Signed => (Cond::Slt, Cond::Slt),
                    Number::Float => return Err(super::operand::not_a_number()),
                };
                self.asm.jump_if_constant(below, R1, *from, R2, outside);
                self.asm.jump_if_constant(within, R1, *to, R2, yes);
                self.asm.bind(outside);
            }
            _ => return Err(Refused::new("matches a value against a pattern of another kind")),
        }
        Ok(())
    }
}

/// Whether a number that is known already matches.
fn holds(pattern: &Pattern, known: u64) -> Result<bool, Refused> {
    Ok(match pattern {
        Pattern::Equal(Constant::Number(wanted)) => *wanted == known,
        Pattern::OneOf(wanted) => wanted.contains(&known),
        Pattern::Range { number: Number::Unsigned, from, to } => (*from..*to).contains(&known),
        Pattern::Range { number: Number::Signed, from, to } => {
            (*from as i64..*to as i64).contains(&(known as i64))
        }
        _ => return Err(Refused::new("matches a value against a pattern of another kind")),
    })
}
