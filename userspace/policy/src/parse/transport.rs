//! The transport block.

use super::{Parsed, Parser};
use crate::ast::{Transport, TransportArm};
use crate::lex::Symbol;

impl Parser<'_, '_, '_> {
    pub(super) fn transport(&mut self) -> Parsed<Transport> {
        let start = self.next().span;
        let subject = self.is_word(0, "rpc") && self.is_symbol(1, Symbol::Minus) && self.is_word(2, "schema");
        if !subject {
            return Err(self.unexpected_with("`rpc-schema`", "after a `match` outside of elements", |diagnostic| {
                diagnostic.help("`match rpc-schema:` chooses a transport per method; other matches belong in an element");
            }));
        }
        for _ in 0..3 {
            self.next();
        }
        let span = start.start..self.last_span().end;
        let arms = self.block("the methods", Parser::transport_arm)?;
        Ok(Transport { span, arms })
    }

    fn transport_arm(&mut self) -> Parsed<TransportArm> {
        let mut methods = Vec::new();
        loop {
            methods.push(self.path("the name of a method", "here")?);
            if !self.eat_symbol(Symbol::Bar) {
                break;
            }
        }
        self.expect(Symbol::Then, "between method and transport")?;
        let mut modules = vec![self.call("a transport", "here")?];
        while self.eat_symbol(Symbol::Chain) {
            modules.push(self.call("a transport", "after `->`")?);
        }
        self.end_of_line()?;
        Ok(TransportArm { methods, modules })
    }
}
