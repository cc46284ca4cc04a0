//! Chains: elements in their order, and what they are for.

use super::{Parsed, Parser};
use crate::ast::{Call, Chain, Name};
use crate::diagnostics::Span;
use crate::ir::Side;
use crate::lex::{Kind, Symbol};

impl Parser<'_, '_, '_> {
    /// A chain whose first element has been read.
    pub(super) fn chain(&mut self, first: Call) -> Parsed<Chain> {
        let mut calls = vec![first];
        while self.eat_symbol(Symbol::Chain) {
            calls.push(self.call("the name of an element", "after `->`")?);
        }
        let mut chain = Chain { calls, side: None, scope: Vec::new(), interface: None, audit: None };
        while !matches!(self.peek(), Kind::Line | Kind::End) {
            self.clause(&mut chain)?;
        }
        self.next();
        Ok(chain)
    }

    /// `at server`, `for kv.Kv`, `on eth0`, `audit`.
    fn clause(&mut self, chain: &mut Chain) -> Parsed<()> {
        let word = match self.peek() {
            Kind::Name(word) if ["at", "for", "on", "audit"].contains(&word.as_str()) => word.clone(),
            _ => {
                if self.is_symbol(0, Symbol::Chain) {
                    return Err(self.unexpected_with("the end of the line", "here", |diagnostic| {
                        diagnostic
                            .help("which side and methods a chain is for comes behind its last element");
                    }));
                }
                let expected = "`->`, `at server`, `at client`, `for`, `on`, `audit` or `:`";
                return Err(self.unexpected_with(expected, "here", |diagnostic| {
                    diagnostic.help(
                        "a chain is `a() -> b()`, an element `a():` with its statements indented below",
                    );
                }));
            }
        };
        let place = self.next().span;
        let again = match word.as_str() {
            "at" => {
                let span = self.span();
                let side = match self.peek() {
                    Kind::Name(name) if name == "server" => Side::Server,
                    Kind::Name(name) if name == "client" => Side::Client,
                    _ => return Err(self.unexpected("`server` or `client`", "after `at`")),
                };
                self.next();
                chain.side.replace((side, span)).is_some()
            }
            "for" => {
                let again = !chain.scope.is_empty();
                chain.scope.push(self.path("a service or method", "after `for`")?);
                while self.eat_symbol(Symbol::Bar) {
                    chain.scope.push(self.path("a service or method", "after `|`")?);
                }
                again
            }
            "on" => {
                let interface = self.interface()?;
                chain.interface.replace(interface).is_some()
            }
            _ => chain.audit.replace(place.clone()).is_some(),
        };
        if again {
            self.sink.error(&place, format!("`{word}` stands twice"), "the second one");
        }
        Ok(())
    }

    /// A service, a method, or what several of them start with: `kv.Kv`, `Get`, `kv.Kv/Admin*`, `'kv.Kv/Get'`.
    pub(super) fn path(&mut self, what: &str, purpose: &str) -> Parsed<Name> {
        let start = self.span();
        if let Kind::Text(text) = self.peek() {
            let text = text.clone();
            self.next();
            return Ok(Name { text, span: start });
        }
        if self.is_symbol(0, Symbol::Star) {
            self.next();
            return Ok(Name { text: "*".into(), span: start });
        }
        let mut path = self.name(what, purpose)?;
        loop {
            let star = self.touches(&path.span) && self.eat_symbol(Symbol::Star);
            if star {
                path.text.push('*');
                path.span.end = self.last_span().end;
                return Ok(path);
            }
            let mark = match self.peek() {
                Kind::Symbol(mark @ (Symbol::Dot | Symbol::Slash)) => mark.text(),
                _ => return Ok(path),
            };
            self.next();
            path.text.push_str(mark);
            path.span.end = self.last_span().end;
            if !self.is_symbol(0, Symbol::Star) {
                let part = self.name("a name or `*`", &format!("after `{mark}`"))?;
                path.text.push_str(&part.text);
                path.span.end = part.span.end;
            }
        }
    }

    fn touches(&self, before: &Span) -> bool {
        self.span().start == before.end
    }

    /// The name of an interface, which may have dots and dashes in it: `eth0`, `br-lan`, `eth0.12`.
    fn interface(&mut self) -> Parsed<Name> {
        if let Kind::Text(text) = self.peek() {
            let (text, span) = (text.clone(), self.span());
            self.next();
            return Ok(Name { text, span });
        }
        let mut name = self.name("the name of an interface", "after `on`")?;
        while self.touches(&name.span)
            && matches!(
                self.peek(),
                Kind::Name(_)
                    | Kind::Number(_)
                    | Kind::Float(_)
                    | Kind::Duration(_)
                    | Kind::Symbol(Symbol::Dot | Symbol::Minus)
            )
        {
            let span = self.next().span;
            name.text.push_str(self.text.get(span.clone()).unwrap_or_default());
            name.span.end = span.end;
        }
        Ok(name)
    }
}
