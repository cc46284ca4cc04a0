//! Statements that end an element: refusals, answers, retries.

use super::Checker;
use super::fields::Message;
use super::kind::Kind;
use crate::ast::{Expression, ExpressionKind, Name};
use crate::diagnostics::Span;
use crate::ir::{Exit, Side};
use crate::suggest::did_you_mean;
use tollfree_wire::Code;
use tollfree_wire::maps::WHY_MAX;

/// How often a call is made again where the policy does not say.
const RETRIES: u32 = 1;
/// More would be an attack.
const RETRIES_MAX: u64 = 10;
/// The share of calls that may be made again where the policy does not say, in parts per million.
const BUDGET_PPM: u32 = 100_000;
const MILLION: u64 = 1_000_000;

impl Checker<'_, '_, '_> {
    pub(super) fn reject(&mut self, code: &Expression, why: Option<&Expression>) -> Exit {
        let code = self.code(code);
        let text = why.and_then(|why| self.text(why, "the reason", "reject(CODE, 'why')"));
        if let (Some(why), Some(text)) = (why, &text)
            && text.len() > WHY_MAX
        {
            let length = format!("{} bytes", text.len());
            self.sink
                .error(&why.span, format!("a reason has at most {WHY_MAX} bytes"), length)
                .help("it travels in the one packet that the driver answers with");
        }
        Exit::Reject(code, text)
    }

    fn code(&mut self, expression: &Expression) -> Code {
        let Some((resolved, _)) = self.resolved(expression) else { return Code::Unknown };
        let name = match &resolved.kind {
            ExpressionKind::Name(name) => name.as_str(),
            _ => "",
        };
        match Code::from_name(name) {
            Some(Code::Ok) => {
                self.sink
                    .error(&expression.span, "a rejected call cannot end OK", "not a refusal")
                    .help("let it through with send(rpc), or choose another code");
                Code::Unknown
            }
            Some(code) => code,
            None => {
                let known = Code::ALL.iter().skip(1).map(|code| code.name());
                let help = did_you_mean(name, "codes are", known);
                self.sink.error(&expression.span, "this is not a status code", "unknown").maybe_help(help);
                Code::Unknown
            }
        }
    }

    /// `answer('field', value, ...)`
    pub(super) fn answer(&mut self, arguments: &[Expression], span: &Span) -> Exit {
        let usage = "answer('field', value, ...)";
        if self.frame.response {
            self.sink
                .error(span, "a response is an answer already", "too late")
                .help("change it with set(rpc, 'field', value)");
            return Exit::Drop;
        }
        let body = self.methods.within(self.frame.methods.as_deref()).find_map(|method| {
            let field = method.response.body.first()?;
            Some((method.path.clone(), field.name.clone()))
        });
        if let Some((path, field)) = body {
            let message =
                format!("the response of {path} has a body ('{field}'), which a policy cannot write");
            self.sink
                .error(span, message, "cannot be answered here")
                .help("let the chain cover only methods whose responses are all flat: `... for kv.Kv/Get`");
        }
        let mut fields: Vec<(usize, crate::ir::Operand)> = Vec::new();
        let mut pairs = arguments.chunks_exact(2);
        for pair in &mut pairs {
            let [field, value] = pair else { continue };
            let Some(name) = self.text(field, "a field", usage) else { continue };
            let Some((at, kind)) = self.field(Message::Response, &name, &field.span) else { continue };
            if fields.iter().any(|(known, _)| *known == at) {
                self.sink.error(&field.span, format!("'{name}' is given twice"), "the second one");
            }
            let value = match kind {
                Kind::Text(_) | Kind::Bytes(_) if self.as_constant(value).is_none() => {
                    self.any_length(value, &kind, "the field is")
                }
                _ => self.stored(value, &kind, "the field is"),
            };
            if let Some(value) = value {
                fields.push((at, value.operand));
            }
        }
        if let [rest] = pairs.remainder() {
            self.sink
                .error(&rest.span, "this field has no value", "and then?")
                .help(format!("write {usage}"));
        }
        Exit::Answer(fields)
    }

    /// `retry(max = 2, budget = 10%)`
    pub(super) fn retry(&mut self, named: &[(Name, Expression)], span: &Span) -> Exit {
        let [max, budget] = self.options(named, "retry", ["max", "budget"]);
        if !self.frame.response {
            self.sink
                .error(span, "a call is made again when its response is there", "too early")
                .help("write it in the element's `response:` handler, where `status` says how the call went");
        } else if self.frame.side == Some(Side::Server) {
            self.sink
                .error(span, "only the caller's side can make a call again", "not at the server")
                .help("write `at client` behind the chain");
        }
        let max_number = match max {
            None => Some(u64::from(RETRIES)),
            Some(max) => self.constant_number(max, &Kind::U64, "a number of retries is"),
        };
        if let (Some(max), Some(0) | Some(RETRIES_BEYOND..)) = (max, max_number) {
            self.sink.error(
                &max.span,
                format!("a call is made again 1 to {RETRIES_MAX} times"),
                "out of range",
            );
        }
        let budget_ppm = match budget {
            None => Some(u64::from(BUDGET_PPM)),
            Some(budget) => self.share(budget, "a budget is"),
        };
        let small =
            |number: Option<u64>, default| number.and_then(|n| u32::try_from(n).ok()).unwrap_or(default);
        Exit::Retry { max: small(max_number, RETRIES), budget_ppm: small(budget_ppm, BUDGET_PPM) }
    }

    /// A constant percentage up to 100 %, in parts per million.
    pub(super) fn share(&mut self, share: &Expression, what: &str) -> Option<u64> {
        let ppm = self.constant_number(share, &Kind::Percent, what)?;
        if ppm > MILLION {
            self.sink.error(&share.span, "this is more than all", "more than 100%");
            return None;
        }
        Some(ppm)
    }
}

const RETRIES_BEYOND: u64 = RETRIES_MAX + 1;
