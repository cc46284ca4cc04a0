//! Tokens to a tree. A line that cannot be read is reported and skipped with the block under it, so that one mistake
//! does not hide the next.

mod chain;
mod element;
mod expression;
mod file;
mod pattern;
mod state;
mod statement;
mod transport;
mod words;

pub(crate) use words::instead_of;

use crate::ast::{File, Name};
use crate::diagnostics::{Diagnostic, Sink, Span};
use crate::lex::{Kind, Symbol, Token, lex};

/// Blocks and calls in one another; deeper ones help nobody, and the parser's own stack is finite.
const DEPTH_MAX: usize = 32;

/// Reads a policy. What could not be read is reported and left out.
pub(crate) fn parse(text: &str, sink: &mut Sink<'_>) -> File {
    let lexed = lex(text, sink);
    parse_lexed(text, &lexed.tokens, sink)
}

/// The same with the text's tokens.
pub(crate) fn parse_lexed(text: &str, tokens: &[Token], sink: &mut Sink<'_>) -> File {
    let end = Token { kind: Kind::End, span: text.len()..text.len() };
    Parser { text, tokens, end, at: 0, depth: 0, operators: 0, sink }.file()
}

/// A line could not be read; the mistake has been reported.
struct Failed;

type Parsed<T> = Result<T, Failed>;

struct Parser<'t, 's, 'd> {
    text: &'t str,
    tokens: &'t [Token],
    /// What is read behind the last token.
    end: Token,
    at: usize,
    depth: usize,
    /// Operators in the expression at hand.
    operators: usize,
    sink: &'s mut Sink<'d>,
}

impl Parser<'_, '_, '_> {
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

    fn eat_symbol(&mut self, symbol: Symbol) -> bool {
        self.eat(&Kind::Symbol(symbol))
    }

    fn is_symbol(&self, ahead: usize, symbol: Symbol) -> bool {
        *self.peek_at(ahead) == Kind::Symbol(symbol)
    }

    fn eat_word(&mut self, word: &str) -> bool {
        let found = self.is_word(0, word);
        if found {
            self.next();
        }
        found
    }

    fn is_word(&self, ahead: usize, word: &str) -> bool {
        matches!(self.peek_at(ahead), Kind::Name(name) if name == word)
    }

    fn expect(&mut self, symbol: Symbol, purpose: &str) -> Parsed<Span> {
        let span = self.span();
        if self.eat_symbol(symbol) {
            return Ok(span);
        }
        Err(self.unexpected(&format!("`{}`", symbol.text()), purpose))
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
        let span = self.span();
        let found = self.peek().describe(self.text.get(span.clone()).unwrap_or_default());
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
        self.expect(Symbol::Colon, &format!("before {of}"))?;
        if !self.eat(&Kind::Line) {
            let purpose = format!("before {of}, each on a line of its own");
            return Err(self.unexpected("the end of the line", &purpose));
        }
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
}
