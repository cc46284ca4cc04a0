//! Patterns: what the arms of a `match` stand for.

use super::{Parsed, Parser};
use crate::ast::{Literal, Name, Pattern, PatternKind};
use crate::diagnostics::Span;
use crate::lex::{Kind, Symbol};

impl Parser<'_, '_, '_> {
    pub(super) fn pattern(&mut self) -> Parsed<Pattern> {
        let span = self.span();
        if let Some(literal) = self.literal()? {
            let kind = self.pattern_of(literal)?;
            return Ok(Pattern { span: span.start..self.last_span().end, kind });
        }
        let name = match self.peek() {
            Kind::Name(name) => name.clone(),
            _ => {
                return Err(self.unexpected_with("a pattern", "here", |diagnostic| {
                    diagnostic.help(
                        "patterns are constants, names of an enum, 'prefix*', 1..10, NONE, Some(x) and _, joined by |",
                    );
                }));
            }
        };
        self.next();
        let kind = match name.as_str() {
            "_" => PatternKind::Any,
            "NONE" => PatternKind::Absent,
            "Some" => {
                self.expect(Symbol::Open, "after `Some`")?;
                let bound: Name = self.name("a variable or `_`", "inside Some()")?;
                self.expect(Symbol::Close, "to end `Some(`")?;
                PatternKind::Present((bound.text != "_").then_some(bound))
            }
            _ => PatternKind::Name(name),
        };
        Ok(Pattern { span: span.start..self.last_span().end, kind })
    }

    /// The pattern that starts with a literal which has been read.
    fn pattern_of(&mut self, literal: Literal) -> Parsed<PatternKind> {
        if self.eat_symbol(Symbol::Range) {
            return match self.literal()? {
                Some(end) => Ok(PatternKind::Range(literal, end)),
                None => Err(self.unexpected("where the range ends", "after `..`")),
            };
        }
        Ok(match literal {
            Literal::Text(mut text) if self.ends_with_star(&self.last_span()) => {
                text.pop();
                PatternKind::Prefix(text)
            }
            literal => PatternKind::Literal(literal),
        })
    }

    /// Whether a quoted text ends with a star that stands for any text, rather than for itself.
    fn ends_with_star(&self, span: &Span) -> bool {
        let written = self.text.get(span.clone()).unwrap_or_default();
        let inside = written.strip_suffix(['\'', '"']).unwrap_or_default();
        inside.strip_suffix('*').is_some_and(|before| {
            let escapes = before.len() - before.trim_end_matches('\\').len();
            escapes.is_multiple_of(2)
        })
    }
}
