//! The statements of an element.

use super::{Failed, Parsed, Parser};
use crate::ast::{Arm, ExpressionKind, Statement, StatementKind};
use crate::lex::{Kind, Symbol};

impl Parser<'_, '_, '_> {
    pub(super) fn statement(&mut self) -> Parsed<Statement> {
        let start = self.span().start;
        if self.is_word(0, "match") && !self.is_symbol(1, Symbol::Equals) {
            return self.match_statement(start);
        }
        self.refuse_foreign_words()?;
        if self.eat_word("pass") {
            self.end_of_line()?;
            return Ok(Statement { span: start..start + "pass".len(), kind: StatementKind::Pass });
        }
        let kind = if self.is_symbol(1, Symbol::Equals) {
            let name = self.name("a variable", "before `=`")?;
            self.next();
            StatementKind::Assign { name, value: self.expression()? }
        } else {
            if !matches!(self.peek(), Kind::Name(_)) {
                return Err(self.unexpected_with("a statement", "here", |diagnostic| {
                    diagnostic.help(
                        "statements are `x = value`, `match value:`, set(table, key, value), delete(table, key), \
                         add(table, key, 1), send(rpc), drop() and reject(CODE)",
                    );
                }));
            }
            let expression = self.expression()?;
            match expression.kind {
                ExpressionKind::Call(call) => StatementKind::Call(call),
                _ => {
                    self.sink
                        .error(&expression.span, "a value alone does nothing", "not a statement")
                        .help("calls need parentheses, even without arguments: drop()");
                    return Err(Failed);
                }
            }
        };
        let span = start..self.last_span().end;
        self.end_of_line()?;
        Ok(Statement { span, kind })
    }

    fn match_statement(&mut self, start: usize) -> Parsed<Statement> {
        self.next();
        let subject = self.expression()?;
        let span = start..subject.span.end;
        let arms = self.block("the arms", Parser::arm)?;
        Ok(Statement { span, kind: StatementKind::Match { subject, arms } })
    }

    fn arm(&mut self) -> Parsed<Arm> {
        let mut patterns = vec![self.pattern()?];
        while self.eat_symbol(Symbol::Bar) {
            patterns.push(self.pattern()?);
        }
        let guard = if self.eat_word("if") { Some(self.expression()?) } else { None };
        self.expect(Symbol::Then, "between pattern and statement")?;
        if *self.peek() != Kind::Line {
            let statement = self.deeper(Parser::statement)?;
            return Ok(Arm { patterns, guard, body: vec![statement] });
        }
        self.next();
        let body = self.indented("the arm's statements", Parser::statement)?;
        Ok(Arm { patterns, guard, body })
    }
}
