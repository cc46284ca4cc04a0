//! The parts of a file, in any order.

use super::{Parsed, Parser};
use crate::ast::File;
use crate::lex::{Kind, Symbol};

impl Parser<'_, '_, '_> {
    pub(super) fn file(mut self) -> File {
        let mut file = File::default();
        while *self.peek() != Kind::End {
            if self.eat(&Kind::Line) || self.eat(&Kind::Dedent) {
                continue;
            }
            if self.item(&mut file).is_err() {
                self.recover();
            }
        }
        file
    }

    fn item(&mut self, file: &mut File) -> Parsed<()> {
        if self.is_word(0, "state") && self.is_symbol(1, Symbol::Colon) {
            let state = self.state()?;
            match &mut file.state {
                None => file.state = Some(state),
                Some(first) => first.tables.extend(state.tables),
            }
            return Ok(());
        }
        if self.is_word(0, "match") {
            let transport = self.transport()?;
            match &mut file.transport {
                None => file.transport = Some(transport),
                Some(first) => {
                    self.sink
                        .error(&transport.span, "a policy has one transport block", "the second one")
                        .related(&first.span, "the first one");
                }
            }
            return Ok(());
        }
        if let Kind::Indent = self.peek() {
            return Err(self.unexpected_with("a chain or an element", "here", |diagnostic| {
                diagnostic.help("chains, elements and `state:` start in the first column");
            }));
        }
        self.chain_or_element(file)
    }

    fn chain_or_element(&mut self, file: &mut File) -> Parsed<()> {
        if !matches!(self.peek(), Kind::Name(_)) {
            return Err(self.unexpected_with("a chain or an element", "here", |diagnostic| {
                diagnostic
                    .help("a chain is `a() -> b()`, an element `a():` with its statements indented below");
            }));
        }
        if *self.peek_at(1) != Kind::Symbol(Symbol::Open) {
            self.refuse_foreign_words()?;
        }
        let first = self.call("the name of an element", "here")?;
        if self.is_symbol(0, Symbol::Colon) {
            let element = self.element(first)?;
            file.elements.push(element);
        } else {
            let chain = self.chain(first)?;
            file.chains.push(chain);
        }
        Ok(())
    }
}
