//! Statements for the engine, which note what it is to do besides: delays, routes, mirrors, logs.

use super::Checker;
use super::kind::Kind;
use crate::ast::{Expression, Name};
use crate::diagnostics::Span;
use crate::ir::{Action, Constant, Effect, Operand};

/// The share of a group that may be out of service where the policy does not say, in parts per million.
const EJECTED_PPM: u64 = 500_000;

impl Checker<'_, '_, '_> {
    pub(super) fn delay(&mut self, time: &Expression) -> Option<Action> {
        let time = self.typed(time, &Kind::Duration, "a delay is")?;
        Some(Action::Effect(Effect::Delay(time.operand)))
    }

    pub(super) fn timeout(&mut self, time: &Expression) -> Option<Action> {
        self.in_request(&time.span, "a timeout starts with the request")?;
        let time = self.typed(time, &Kind::Duration, "a timeout is")?;
        Some(Action::Effect(Effect::Timeout(time.operand)))
    }

    pub(super) fn route(&mut self, group: &Expression, index: Option<&Expression>) -> Option<Action> {
        self.in_request(&group.span, "a call has reached its backend when its response is there")?;
        let selector = self.selector(group, "route('group')");
        let index = match index {
            Some(index) => Some(self.typed(index, &Kind::U64, "the number of a backend is")?.operand),
            None => None,
        };
        Some(Action::Effect(Effect::Route { selector: selector?, index }))
    }

    pub(super) fn mirror(&mut self, group: &Expression) -> Option<Action> {
        self.in_request(&group.span, "what is mirrored is the request")?;
        let selector = self.selector(group, "mirror('group')")?;
        Some(Action::Effect(Effect::Mirror { selector }))
    }

    pub(super) fn eject(
        &mut self,
        time: &Expression,
        named: &[(Name, Expression)],
        span: &Span,
    ) -> Option<Action> {
        let [max] = self.options(named, "eject", ["max"]);
        if !self.frame.response {
            self.sink
                .error(span, "which backend to eject is known when it has answered", "too early")
                .help("write it in the element's `response:` handler");
            return None;
        }
        let duration = self.typed(time, &Kind::Duration, "the time out of service is")?.operand;
        let max_ppm = match max {
            None => EJECTED_PPM,
            Some(max) => self.share(max, "the most that may be out is")?,
        };
        let max_ppm = Operand::Constant(Constant::Number(max_ppm));
        Some(Action::Effect(Effect::Eject { duration, max_ppm }))
    }

    pub(super) fn log(&mut self, values: &[Expression]) -> Option<Action> {
        let values: Vec<_> = values.iter().map(|value| self.value(value)).collect();
        let shown = values.into_iter().map(|value| {
            let value = value?;
            let kind = self.key_type(&value.kind);
            Some((value.operand, kind))
        });
        Some(Action::Effect(Effect::Log(shown.collect::<Option<_>>()?)))
    }

    fn in_request(&mut self, span: &Span, why: &str) -> Option<()> {
        if !self.frame.response {
            return Some(());
        }
        self.sink.error(span, why, "too late").help("write it in the element's `request:` handler");
        None
    }
}
