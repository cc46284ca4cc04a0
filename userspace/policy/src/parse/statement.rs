//! The statements of an element.

use super::{Failed, Parsed, Parser};
use crate::ast::{Arm, ExpressionKind, Name, Pattern, PatternKind, Statement, StatementKind};
use crate::lex::Kind;

impl Parser<'_, '_> {
    pub(super) fn statement(&mut self) -> Parsed<Statement> {
        let start = self.span().start;
        if self.is_word(0, "match") && *self.peek_at(1) != Kind::Equals {
            return self.match_statement(start);
        }
        for (word, help) in [
            ("if", "write `match value:` with an arm per case"),
            ("for", "policies have no loops: every packet costs the same small number of steps"),
            ("while", "policies have no loops: every packet costs the same small number of steps"),
            ("return", "elements end with send(rpc), drop() or reject(CODE)"),
        ] {
            if self.is_word(0, word) && !matches!(self.peek_at(1), Kind::Equals) {
                let span = self.span();
                let message = format!("`{word}` is not part of the policy language");
                self.sink.error(&span, message, "not a statement").help(help);
                return Err(Failed);
            }
        }
        let kind = if *self.peek_at(1) == Kind::Equals {
            let name = self.name("a variable", "before `=`")?;
            self.next();
            StatementKind::Assign { name, value: self.expression()? }
        } else {
            if !matches!(self.peek(), Kind::Name(_)) {
                return Err(self.unexpected_with("a statement", "here", |diagnostic| {
                    diagnostic.help(
                        "statements are `x = value`, `match value:`, set(table, key, value), delete(table, key), \
                         send(rpc), drop() and reject(CODE)",
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
        while self.eat(&Kind::Bar) {
            patterns.push(self.pattern()?);
        }
        if self.is_word(0, "if") {
            let span = self.span();
            self.sink
                .error(&span, "guards on arms are not supported yet", "a guard")
                .help("match the guard's value inside the arm");
            return Err(Failed);
        }
        self.expect(&Kind::Then, "between pattern and statement")?;
        if *self.peek() != Kind::Line {
            let statement = self.deeper(Parser::statement)?;
            return Ok(Arm { patterns, guard: None, body: vec![statement] });
        }
        self.next();
        let body = self.indented("the arm's statements", Parser::statement)?;
        Ok(Arm { patterns, guard: None, body })
    }

    fn pattern(&mut self) -> Parsed<Pattern> {
        let span = self.span();
        if let Some(literal) = self.literal()? {
            let span = span.start..self.last_span().end;
            return Ok(Pattern { span, kind: PatternKind::Literal(literal) });
        }
        let name = match self.peek() {
            Kind::Name(name) => name.clone(),
            _ => {
                return Err(self.unexpected_with("a pattern", "here", |diagnostic| {
                    diagnostic
                        .help("patterns are constants, names of an enum, NONE, Some(x) and _, joined by |");
                }));
            }
        };
        self.next();
        let kind = match name.as_str() {
            "_" => PatternKind::Any,
            "NONE" => PatternKind::Absent,
            "Some" => {
                self.expect(&Kind::Open, "after `Some`")?;
                let bound: Name = self.name("a variable or `_`", "inside Some()")?;
                self.expect(&Kind::Close, "to end `Some(`")?;
                PatternKind::Present((bound.text != "_").then_some(bound))
            }
            _ => PatternKind::Name(name),
        };
        Ok(Pattern { span: span.start..self.last_span().end, kind })
    }
}
