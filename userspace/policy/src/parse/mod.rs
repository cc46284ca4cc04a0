//! Tokens to a tree. A line that cannot be read is reported and skipped with the block under it, so that one mistake
//! does not hide the next.

mod file;
mod statement;

use crate::ast::{Call, Expression, ExpressionKind, File, Literal, Name};
use crate::diagnostics::{Diagnostic, Sink, Span};
use crate::lex::{Kind, Token, lex};

/// Blocks and calls in one another; deeper ones help nobody, and the parser's own stack is finite.
const DEPTH_MAX: usize = 32;

/// Reads a policy. What could not be read is reported and left out.
pub(crate) fn parse(text: &str, sink: &mut Sink<'_>) -> File {
    let tokens = lex(text, sink);
    let end = Token { kind: Kind::End, span: text.len()..text.len() };
    Parser { tokens, end, at: 0, depth: 0, sink }.file()
}

/// A line could not be read; the mistake has been reported.
struct Failed;

type Parsed<T> = Result<T, Failed>;

struct Parser<'s, 'd> {
    tokens: Vec<Token>,
    /// What is read behind the last token.
    end: Token,
    at: usize,
    depth: usize,
    sink: &'s mut Sink<'d>,
}

impl Parser<'_, '_> {
    fn peek(&self) -> &Kind {
        self.peek_at(0)
    }

    fn peek_at(&self, ahead: usize) -> &Kind {
        self.tokens.get(self.at + ahead).map_or(&Kind::End, |token| &token.kind)
    }

    fn span(&self) -> Span {
        self.tokens.get(self.at).unwrap_or(&self.end).span.clone()
    }

    /// The place of the token read last.
    fn last_span(&self) -> Span {
        self.at.checked_sub(1).and_then(|at| self.tokens.get(at)).map_or(0..0, |token| token.span.clone())
    }

    fn next(&mut self) -> Token {
        let token = self.tokens.get(self.at).unwrap_or(&self.end).clone();
        self.at = (self.at + 1).min(self.tokens.len());
        token
    }

    fn eat(&mut self, kind: &Kind) -> bool {
        let found = self.peek() == kind;
        if found {
            self.next();
        }
        found
    }

    fn is_word(&self, ahead: usize, word: &str) -> bool {
        matches!(self.peek_at(ahead), Kind::Name(name) if name == word)
    }

    fn expect(&mut self, kind: &Kind, purpose: &str) -> Parsed<Span> {
        let span = self.span();
        if self.eat(kind) {
            return Ok(span);
        }
        Err(self.unexpected(&kind.describe(), purpose))
    }

    /// Reports that something else was expected here.
    fn unexpected(&mut self, expected: &str, purpose: &str) -> Failed {
        self.unexpected_with(expected, purpose, |_| {})
    }

    fn unexpected_with(
        &mut self,
        expected: &str,
        purpose: &str,
        edit: impl FnOnce(&mut Diagnostic),
    ) -> Failed {
        let found = self.peek().describe();
        let span = self.span();
        let message = format!("expected {expected} {purpose}, found {found}");
        edit(self.sink.error(&span, message, format!("expected {expected}")));
        Failed
    }

    fn name(&mut self, what: &str, purpose: &str) -> Parsed<Name> {
        let span = self.span();
        if let Kind::Name(text) = self.peek() {
            let text = text.clone();
            self.next();
            return Ok(Name { text, span });
        }
        Err(self.unexpected(what, purpose))
    }

    /// Skips what is left of the line, and the block under it.
    fn recover(&mut self) {
        while !matches!(self.peek(), Kind::Line | Kind::End | Kind::Indent | Kind::Dedent) {
            self.next();
        }
        self.eat(&Kind::Line);
        if !self.eat(&Kind::Indent) {
            return;
        }
        let mut open = 1;
        while open > 0 && *self.peek() != Kind::End {
            match self.next().kind {
                Kind::Indent => open += 1,
                Kind::Dedent => open -= 1,
                _ => {}
            }
        }
    }

    fn end_of_line(&mut self) -> Parsed<()> {
        if matches!(self.peek(), Kind::End | Kind::Dedent) || self.eat(&Kind::Line) {
            return Ok(());
        }
        Err(self.unexpected("the end of the line", "here"))
    }

    /// `:`, then one item per line of the block; a line that fails is skipped.
    fn block<T>(&mut self, of: &str, item: impl FnMut(&mut Self) -> Parsed<T>) -> Parsed<Vec<T>> {
        self.expect(&Kind::Colon, &format!("before {of}"))?;
        self.expect(&Kind::Line, &format!("before {of}, each on a line of its own"))?;
        self.indented(of, item)
    }

    /// One item per line of the block that starts here; a line that fails is skipped.
    fn indented<T>(&mut self, of: &str, mut item: impl FnMut(&mut Self) -> Parsed<T>) -> Parsed<Vec<T>> {
        if *self.peek() != Kind::Indent {
            return Err(self.unexpected_with("an indented line", &format!("with {of}"), |diagnostic| {
                diagnostic.help("indent what belongs to the line above, by four spaces for instance");
            }));
        }
        self.next();
        let mut items = Vec::new();
        self.deeper(|parser| {
            loop {
                match parser.peek() {
                    Kind::End => break,
                    Kind::Dedent => {
                        parser.next();
                        break;
                    }
                    Kind::Indent => {
                        parser.unexpected_with("a line of this block", "here", |diagnostic| {
                            diagnostic
                                .help("this line is further in than the one above, which opens no block");
                        });
                        parser.recover();
                    }
                    _ => match item(parser) {
                        Ok(item) => items.push(item),
                        Err(Failed) => parser.recover(),
                    },
                }
            }
            Ok(())
        })?;
        Ok(items)
    }

    fn deeper<T>(&mut self, run: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        if self.depth >= DEPTH_MAX {
            let span = self.span();
            self.sink
                .error(&span, format!("more than {DEPTH_MAX} levels in one another"), "too deep")
                .help("assign parts to variables, or split the element");
            return Err(Failed);
        }
        self.depth += 1;
        let result = run(self);
        self.depth -= 1;
        result
    }

    fn expression(&mut self) -> Parsed<Expression> {
        let span = self.span();
        match self.peek().clone() {
            Kind::Name(name) if *self.peek_at(1) == Kind::Open => {
                let name = Name { text: name, span: span.clone() };
                self.next();
                let call = self.deeper(|parser| parser.call_of(name))?;
                Ok(Expression { span: call.span.clone(), kind: ExpressionKind::Call(call) })
            }
            Kind::Name(_) | Kind::Number(_) | Kind::Text(_) | Kind::Minus => {
                if let Some(literal) = self.literal()? {
                    let span = span.start..self.last_span().end;
                    return Ok(Expression { span, kind: ExpressionKind::Literal(literal) });
                }
                let name = self.name("a name", "here")?;
                Ok(Expression { span, kind: ExpressionKind::Name(name.text) })
            }
            _ => Err(self.unexpected_with("a value", "here", |diagnostic| {
                diagnostic.help(
                    "values are names, numbers, 'text', true, false, get(rpc, 'field'), get(table, key)",
                );
            })),
        }
    }

    /// A literal, if the next token starts one.
    fn literal(&mut self) -> Parsed<Option<Literal>> {
        let literal = match self.peek().clone() {
            Kind::Name(name) if name == "true" => Literal::Bool(true),
            Kind::Name(name) if name == "false" => Literal::Bool(false),
            Kind::Number(magnitude) => Literal::Number { negative: false, magnitude },
            Kind::Text(text) => Literal::Text(text),
            Kind::Minus => {
                self.next();
                let Kind::Number(magnitude) = *self.peek() else {
                    return Err(self.unexpected("a number", "after `-`"));
                };
                Literal::Number { negative: true, magnitude }
            }
            _ => return Ok(None),
        };
        self.next();
        Ok(Some(literal))
    }

    fn call(&mut self, what: &str, purpose: &str) -> Parsed<Call> {
        let name = self.name(what, purpose)?;
        self.call_of(name)
    }

    /// The arguments of the call whose name has been read.
    fn call_of(&mut self, name: Name) -> Parsed<Call> {
        self.expect(&Kind::Open, &format!("after `{}`", name.text))?;
        let mut arguments = Vec::new();
        while *self.peek() != Kind::Close {
            arguments.push(self.expression()?);
            if !self.eat(&Kind::Comma) {
                break;
            }
        }
        let close = self.expect(&Kind::Close, &format!("to end the arguments of `{}`", name.text))?;
        let span = name.span.start..close.end;
        Ok(Call { name, arguments, named: Vec::new(), span })
    }
}
