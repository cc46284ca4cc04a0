//! Text to tokens: words, numbers, strings, punctuation, and the indentation that makes blocks.

use crate::diagnostics::{Sink, Span};

/// What a token is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Name(String),
    Number(u64),
    Text(String),
    /// `->`
    Chain,
    /// `=>`
    Then,
    Equals,
    Comma,
    Colon,
    Bar,
    Minus,
    Open,
    Close,
    /// The end of a line that had tokens, outside of parentheses.
    Line,
    /// The next line is further in.
    Indent,
    /// The next line is less far in: once per block that ends.
    Dedent,
    /// The end of the text.
    End,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub kind: Kind,
    pub span: Span,
}

impl Kind {
    /// What a person would call it.
    pub(crate) fn describe(&self) -> String {
        match self {
            Kind::Name(name) => format!("`{name}`"),
            Kind::Number(number) => format!("`{number}`"),
            Kind::Text(text) => format!("'{text}'"),
            Kind::Chain => "`->`".into(),
            Kind::Then => "`=>`".into(),
            Kind::Equals => "`=`".into(),
            Kind::Comma => "`,`".into(),
            Kind::Colon => "`:`".into(),
            Kind::Bar => "`|`".into(),
            Kind::Minus => "`-`".into(),
            Kind::Open => "`(`".into(),
            Kind::Close => "`)`".into(),
            Kind::Line => "the end of the line".into(),
            Kind::Indent => "an indented line".into(),
            Kind::Dedent => "the end of the block".into(),
            Kind::End => "the end of the file".into(),
        }
    }
}

/// Columns a tab takes at least; a tab always reaches the next multiple.
const TAB: usize = 8;

struct Lexer<'s, 't, 'd> {
    text: &'t str,
    at: usize,
    tokens: Vec<Token>,
    /// The columns of the blocks that are open, the file's own first.
    blocks: Vec<usize>,
    /// Open parentheses: inside them lines do not end.
    parentheses: usize,
    sink: &'s mut Sink<'d>,
}

/// Splits a policy into tokens. What is not understood is reported and left out; the last token is [`Kind::End`].
pub(crate) fn lex(text: &str, sink: &mut Sink<'_>) -> Vec<Token> {
    let mut lexer = Lexer { text, at: 0, tokens: Vec::new(), blocks: vec![0], parentheses: 0, sink };
    lexer.indentation();
    while let Some(next) = lexer.peek() {
        lexer.token(next);
    }
    lexer.end_line(text.len());
    for _ in 1..lexer.blocks.len() {
        lexer.push(Kind::Dedent, text.len()..text.len());
    }
    lexer.push(Kind::End, text.len()..text.len());
    lexer.tokens
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
        let rest = &self.text[self.at..];
        self.at += rest.find('\n').unwrap_or(rest.len());
    }

    fn token(&mut self, next: char) {
        let start = self.at;
        let rest = &self.text[start..];
        let symbol = |kind: Kind, length: usize| Some((kind, length));
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
            '-' if rest.starts_with("->") => symbol(Kind::Chain, 2),
            '=' if rest.starts_with("=>") => symbol(Kind::Then, 2),
            '-' => symbol(Kind::Minus, 1),
            '=' => symbol(Kind::Equals, 1),
            ',' => symbol(Kind::Comma, 1),
            ':' => symbol(Kind::Colon, 1),
            '|' => symbol(Kind::Bar, 1),
            '(' => {
                self.parentheses += 1;
                symbol(Kind::Open, 1)
            }
            ')' => {
                self.parentheses = self.parentheses.saturating_sub(1);
                symbol(Kind::Close, 1)
            }
            '\'' | '"' => return self.quoted(next),
            '0'..='9' => return self.number(),
            'a'..='z' | 'A'..='Z' | '_' => {
                let length =
                    rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
                symbol(Kind::Name(rest[..length].to_owned()), length)
            }
            _ => None,
        };
        match found {
            Some((kind, length)) => {
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
                    '/' => Some("comments start with #".to_owned()),
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
                    Some((_, escaped @ ('\\' | '\'' | '"'))) => text.push(escaped),
                    Some((_, 'n')) => text.push('\n'),
                    Some((_, 't')) => text.push('\t'),
                    Some((_, '\n')) | None => break,
                    Some((_, other)) => {
                        let span = here..here + 1 + other.len_utf8();
                        self.sink
                            .error(&span, format!("`\\{other}` is no escape"), "unknown escape")
                            .help("the escapes are \\\\ \\' \\\" \\n \\t");
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

    fn number(&mut self) {
        let start = self.at;
        let rest = &self.text[start..];
        let length = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        self.at += length;
        if is_time(&rest[..length]) {
            return self.push(Kind::Name(rest[..length].to_owned()), start..self.at);
        }
        let digits = rest[..length].replace('_', "");
        let value = match digits.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16),
            None => digits.parse(),
        };
        let value = value.unwrap_or_else(|_| {
            self.sink
                .error(&(start..self.at), format!("`{}` is not a number", &rest[..length]), "not a number")
                .help("numbers are whole, up to 64 bits, in decimal or hexadecimal: 1000, 1_000, 0x3e8");
            0
        });
        self.push(Kind::Number(value), start..self.at);
    }
}

/// Whether a word is a number with a unit of time, such as `10ms`: a name to the parser, a time to whoever asks for one.
fn is_time(word: &str) -> bool {
    let (number, unit) = word.split_at(word.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(word.len()));
    !number.is_empty() && ["ns", "us", "ms", "s", "m", "h"].contains(&unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(text: &str) -> (Vec<Kind>, usize) {
        let mut sink = Sink::new("t", text);
        let tokens = lex(text, &mut sink);
        (tokens.into_iter().map(|token| token.kind).collect(), sink.count())
    }

    #[test]
    fn blocks_open_and_close() {
        let (tokens, errors) = kinds("a:\n    b # note\n\n    c:\n        'd'\n# note\ne");
        let name = |name: &str| Kind::Name(name.into());
        use Kind::{Colon, Dedent, End, Indent, Line, Text};
        let d = Text("d".into());
        let expected = [
            name("a"),
            Colon,
            Line,
            Indent,
            name("b"),
            Line,
            name("c"),
            Colon,
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
