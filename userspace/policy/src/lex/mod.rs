//! Text to tokens: words, numbers, strings, punctuation, and the indentation that makes blocks.

mod number;

use crate::ast::Rate;
use crate::diagnostics::{Sink, Span};

/// What a token is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Name(String),
    Number(u64),
    /// The bits of a double.
    Float(u64),
    /// In ns.
    Duration(u64),
    /// In parts per million.
    Percent(u64),
    Rate(Rate),
    Text(String),
    Symbol(Symbol),
    /// The end of a line that had tokens, outside of parentheses.
    Line,
    /// The next line is further in.
    Indent,
    /// The next line is less far in: once per block that ends.
    Dedent,
    /// The end of the text.
    End,
}

macro_rules! symbols {
    ($($name:ident $text:literal,)*) => {
        /// Punctuation.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Symbol { $(#[doc = $text] $name,)* }

        impl Symbol {
            /// Longer ones before those they start with.
            const ALL: &'static [Symbol] = &[$(Symbol::$name,)*];

            pub(crate) const fn text(self) -> &'static str { match self { $(Symbol::$name => $text,)* } }
        }
    };
}

symbols! {
    Chain "->",
    Then "=>",
    Same "==",
    Differs "!=",
    AtMost "<=",
    AtLeast ">=",
    Range "..",
    Less "<",
    Greater ">",
    Equals "=",
    Comma ",",
    Colon ":",
    Bar "|",
    Plus "+",
    Minus "-",
    Star "*",
    Slash "/",
    Percent "%",
    Dot ".",
    Open "(",
    Close ")",
}

impl Symbol {
    /// The symbol that a text starts with.
    fn at_start(text: &str) -> Option<Symbol> {
        Symbol::ALL.iter().copied().find(|symbol| text.starts_with(symbol.text()))
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub kind: Kind,
    pub span: Span,
}

/// `# text`, up to the end of its line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Comment {
    pub span: Span,
    /// How many tokens stand before it.
    pub behind: usize,
}

/// A text's tokens; the last is [`Kind::End`].
pub(crate) struct Lexed {
    pub tokens: Vec<Token>,
    pub comments: Vec<Comment>,
}

impl Kind {
    /// What a person would call it, given the text it was read from.
    pub(crate) fn describe(&self, written: &str) -> String {
        match self {
            Kind::Text(text) => format!("'{text}'"),
            Kind::Line => "the end of the line".into(),
            Kind::Indent => "an indented line".into(),
            Kind::Dedent => "the end of the block".into(),
            Kind::End => "the end of the file".into(),
            Kind::Symbol(symbol) => format!("`{}`", symbol.text()),
            Kind::Name(_)
            | Kind::Number(_)
            | Kind::Float(_)
            | Kind::Duration(_)
            | Kind::Percent(_)
            | Kind::Rate(_) => format!("`{written}`"),
        }
    }
}

/// Columns a tab takes at least; a tab always reaches the next multiple.
const TAB: usize = 8;

struct Lexer<'s, 't, 'd> {
    text: &'t str,
    at: usize,
    tokens: Vec<Token>,
    comments: Vec<Comment>,
    /// The columns of the blocks that are open, the file's own first.
    blocks: Vec<usize>,
    /// Open parentheses: inside them lines do not end.
    parentheses: usize,
    sink: &'s mut Sink<'d>,
}

/// Splits a policy into tokens. What is not understood is reported and left out.
pub(crate) fn lex(text: &str, sink: &mut Sink<'_>) -> Lexed {
    let (tokens, comments) = (Vec::new(), Vec::new());
    let mut lexer = Lexer { text, at: 0, tokens, comments, blocks: vec![0], parentheses: 0, sink };
    lexer.indentation();
    while let Some(next) = lexer.peek() {
        lexer.token(next);
    }
    lexer.end_line(text.len());
    for _ in 1..lexer.blocks.len() {
        lexer.push(Kind::Dedent, text.len()..text.len());
    }
    lexer.push(Kind::End, text.len()..text.len());
    Lexed { tokens: lexer.tokens, comments: lexer.comments }
}

impl Lexer<'_, '_, '_> {
    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn push(&mut self, kind: Kind, span: Span) {
        self.tokens.push(Token { kind, span });
    }

    /// Ends the line, if it had tokens.
    fn end_line(&mut self, at: usize) {
        let had_tokens = self
            .tokens
            .last()
            .is_some_and(|token| !matches!(token.kind, Kind::Line | Kind::Indent | Kind::Dedent));
        if had_tokens {
            self.push(Kind::Line, at..at);
        }
    }

    /// At the start of a line: skips lines without tokens, then opens or closes blocks.
    fn indentation(&mut self) {
        let (mut column, mut start) = (0, self.at);
        loop {
            match self.peek() {
                Some(' ') => column += 1,
                Some('\t') => column = (column / TAB + 1) * TAB,
                Some('\r') => {}
                Some('\n') => {
                    (column, start) = (0, self.at + 1);
                }
                Some('#') => {
                    self.skip_comment();
                    continue;
                }
                Some(_) => break,
                None => return,
            }
            self.at += 1;
        }
        let span = start..self.at;
        let current = self.blocks.last().copied().unwrap_or(0);
        if column > current {
            self.blocks.push(column);
            self.push(Kind::Indent, span);
            return;
        }
        while self.blocks.len() > 1 && self.blocks.last().is_some_and(|block| *block > column) {
            self.blocks.pop();
            self.push(Kind::Dedent, self.at..self.at);
        }
        if self.blocks.last().is_some_and(|block| *block != column) {
            self.sink
                .error(&span, "this line's indentation belongs to no block", "neither here nor there")
                .help("lines of one block start in the same column; do not mix tabs and spaces");
        }
    }

    fn skip_comment(&mut self) {
        let (start, rest) = (self.at, &self.text[self.at..]);
        self.at += rest.find('\n').unwrap_or(rest.len());
        self.comments.push(Comment { span: start..self.at, behind: self.tokens.len() });
    }

    fn token(&mut self, next: char) {
        let start = self.at;
        let rest = &self.text[start..];
        let found = match next {
            ' ' | '\t' | '\r' => {
                self.at += 1;
                return;
            }
            '#' => return self.skip_comment(),
            '\n' => {
                self.at += 1;
                // An open parenthesis that nobody closes must not swallow the rest of the file: an element or
                // a block starts in the first column.
                let continues = self.parentheses > 0
                    && self.text[self.at..].starts_with([' ', '\t', '\n', '\r', ')', '#']);
                if !continues {
                    self.parentheses = 0;
                    self.end_line(start);
                    self.indentation();
                }
                return;
            }
            '\'' | '"' => return self.quoted(next),
            '0'..='9' => return self.number(),
            'a'..='z' | 'A'..='Z' | '_' => {
                let length =
                    rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
                Some((Kind::Name(rest[..length].to_owned()), length))
            }
            _ => Symbol::at_start(rest).map(|symbol| (Kind::Symbol(symbol), symbol.text().len())),
        };
        match found {
            Some((kind, length)) => {
                match kind {
                    Kind::Symbol(Symbol::Open) => self.parentheses += 1,
                    Kind::Symbol(Symbol::Close) => self.parentheses = self.parentheses.saturating_sub(1),
                    _ => {}
                }
                self.at += length;
                self.push(kind, start..self.at);
            }
            None => {
                self.at += next.len_utf8();
                let found = if next.is_control() || next == '\u{feff}' {
                    format!("{:?}", next)
                } else {
                    format!("`{next}`")
                };
                let message = format!("{found} has no meaning in a policy");
                let help = match next {
                    '“' | '”' | '‘' | '’' | '`' => Some("strings are quoted with ' or \"".to_owned()),
                    '→' => Some("write `->`".to_owned()),
                    '⇒' => Some("write `=>`".to_owned()),
                    '{' | '}' | ';' => {
                        Some("blocks are made by indentation, statements end with the line".to_owned())
                    }
                    '!' => Some("write `not`".to_owned()),
                    '&' => Some("write `and`".to_owned()),
                    '[' | ']' => Some("arguments and types are in parentheses".to_owned()),
                    _ => None,
                };
                self.sink.error(&(start..self.at), message, "unexpected").maybe_help(help);
            }
        }
    }

    fn quoted(&mut self, quote: char) {
        let start = self.at;
        let mut text = String::new();
        let mut chars = self.text[start + 1..].char_indices();
        while let Some((offset, c)) = chars.next() {
            let here = start + 1 + offset;
            match c {
                '\n' => break,
                '\\' => match chars.next() {
                    Some((_, escaped @ ('\\' | '\'' | '"' | '*'))) => text.push(escaped),
                    Some((_, 'n')) => text.push('\n'),
                    Some((_, 't')) => text.push('\t'),
                    Some((_, '\n')) | None => break,
                    Some((_, other)) => {
                        let span = here..here + 1 + other.len_utf8();
                        self.sink
                            .error(&span, format!("`\\{other}` is no escape"), "unknown escape")
                            .help("the escapes are \\\\ \\' \\\" \\* \\n \\t");
                    }
                },
                c if c == quote => {
                    self.at = here + 1;
                    self.push(Kind::Text(text), start..self.at);
                    return;
                }
                c => text.push(c),
            }
        }
        let rest = &self.text[start..];
        self.at = start + rest.find('\n').unwrap_or(rest.len());
        self.sink
            .error(&(start..self.at), "this string does not end on its line", "starts here")
            .help(format!("close it with {quote}"));
        self.push(Kind::Text(text), start..self.at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(text: &str) -> (Vec<Kind>, usize) {
        let mut sink = Sink::new("t", text);
        let lexed = lex(text, &mut sink);
        (lexed.tokens.into_iter().map(|token| token.kind).collect(), sink.count())
    }

    #[test]
    fn blocks_open_and_close() {
        let (tokens, errors) = kinds("a:\n    b # note\n\n    c:\n        'd'\n# note\ne");
        let name = |name: &str| Kind::Name(name.into());
        use Kind::{Dedent, End, Indent, Line, Text};
        let d = Text("d".into());
        let expected = [
            name("a"),
            Kind::Symbol(Symbol::Colon),
            Line,
            Indent,
            name("b"),
            Line,
            name("c"),
            Kind::Symbol(Symbol::Colon),
            Line,
            Indent,
            d,
            Line,
            Dedent,
            Dedent,
            name("e"),
            Line,
            End,
        ];
        assert_eq!((tokens.as_slice(), errors), (expected.as_slice(), 0));
    }

    #[test]
    fn every_line_break_inside_parentheses_is_space() {
        let (tokens, errors) = kinds("f(1,\n   0x10)\ng");
        assert_eq!(errors, 0);
        assert_eq!(tokens.iter().filter(|kind| **kind == Kind::Line).count(), 2);
    }

    #[test]
    fn what_is_not_understood_is_reported_once_each() {
        assert_eq!(kinds("a ; é 12x 'open\nb \"\\q\"").1, 5);
        assert_eq!(kinds("a:\n        b\n    c").1, 1);
    }
}
