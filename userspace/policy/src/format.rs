//! The canonical layout of a policy: four spaces a block, one between words, comments where they were.
//!
//! It goes by tokens, not by the tree, so that nothing is lost and every number stays as it was written: what is laid
//! out anew reads the same, token by token.

use crate::diagnostics::Span;
use crate::lex::{Comment, Kind, Lexed, Symbol, Token};

const INDENT: usize = 4;
/// How far the rest of a long line is further in.
const CONTINUED: usize = 8;
/// Characters of a line, if it can be broken: behind commas inside parentheses.
const WIDTH: usize = 100;

/// Lays out a text that has been read without mistakes.
pub(crate) fn format(text: &str, lexed: &Lexed) -> String {
    let comments = lexed.comments.iter().peekable();
    let mut writer =
        Writer { text, comments, out: String::new(), columns: vec![0], transport: false, end: 0 };
    let mut line: Vec<&Token> = Vec::new();
    let mut first = 0;
    for (at, token) in lexed.tokens.iter().enumerate() {
        match token.kind {
            Kind::Indent | Kind::Dedent | Kind::Line | Kind::End => {
                writer.line(&line, first);
                line.clear();
                match token.kind {
                    Kind::Indent => writer.columns.push(column(text, token.span.end)),
                    Kind::Dedent => writer.close(token.span.start),
                    _ => {}
                }
            }
            _ => {
                if line.is_empty() {
                    first = at;
                }
                line.push(token);
            }
        }
    }
    writer.comments_before(usize::MAX, text.len());
    writer.out
}

/// How far a place is from the start of its line.
fn column(text: &str, at: usize) -> usize {
    let before = text.get(..at).unwrap_or_default();
    before.len() - before.rfind('\n').map_or(0, |newline| newline + 1)
}

/// How the words at hand are spaced.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Words {
    Plain,
    /// Dots, slashes and stars belong to names of methods: `kv.Kv/Get*`.
    Paths,
    /// The name of an interface, as it was written: `br-lan`.
    Interface,
}

struct Writer<'t, 'l> {
    text: &'t str,
    comments: std::iter::Peekable<std::slice::Iter<'l, Comment>>,
    out: String,
    /// Where the lines of the open blocks started, the file's own first.
    columns: Vec<usize>,
    /// Inside the transport block, where slashes belong to names.
    transport: bool,
    /// Up to where the text has been written.
    end: usize,
}

impl Writer<'_, '_> {
    fn depth(&self) -> usize {
        self.columns.len() - 1
    }

    /// A block ends before a place. Comments that are as far in as its lines are part of it.
    fn close(&mut self, before: usize) {
        let Some(block) = self.columns.last().copied().filter(|_| self.columns.len() > 1) else { return };
        let text = self.text;
        while let Some(comment) = self
            .comments
            .next_if(|comment| comment.span.start < before && column(text, comment.span.start) >= block)
        {
            self.own_line(&comment.span);
        }
        self.columns.pop();
    }

    /// A line of tokens, the first of which has a number.
    fn line(&mut self, tokens: &[&Token], first: usize) {
        let [start, ..] = tokens else { return };
        self.comments_before(first, start.span.start);
        self.blank_line(start.span.start);
        if self.depth() == 0 {
            self.transport = is_word(start, "match");
        }
        let mut column = self.depth() * INDENT;
        self.out.extend(std::iter::repeat_n(' ', column));
        let is_chain =
            self.depth() == 0 && tokens.last().is_some_and(|last| last.kind != Kind::Symbol(Symbol::Colon));
        let mut words = if self.transport && self.depth() > 0 { Words::Paths } else { Words::Plain };
        let mut open = 0usize;
        let mut previous: Option<&Token> = None;
        for (at, token) in tokens.iter().copied().enumerate() {
            let broken = at > 0 && self.comments_inside(first + at, &mut column);
            let mut piece = self.piece(token);
            let spaced = previous.is_some_and(|previous| space_between(previous, token, tokens, at, words));
            if spaced && !broken {
                piece.insert(0, ' ');
            }
            // A line is broken where the next argument would not fit as a whole.
            let comma = previous.is_some_and(|previous| previous.kind == Kind::Symbol(Symbol::Comma));
            if comma && open > 0 && !broken && column + self.argument(&tokens[at..], words) > WIDTH {
                self.continue_line(&mut column);
                piece.remove(0);
            }
            column += piece.chars().count();
            self.out.push_str(&piece);
            match token.kind {
                Kind::Symbol(Symbol::Open) => open += 1,
                Kind::Symbol(Symbol::Close) => open = open.saturating_sub(1),
                _ => {}
            }
            let apart = previous.is_some_and(|previous| previous.span.end < token.span.start);
            if is_chain && open == 0 && apart {
                words = match &token.kind {
                    Kind::Name(word) if word == "for" => Words::Paths,
                    Kind::Name(word) if word == "on" => Words::Interface,
                    Kind::Name(word) if word == "at" || word == "audit" => Words::Plain,
                    _ => words,
                };
            }
            previous = Some(token);
        }
        self.end = tokens.last().map_or(self.end, |last| last.span.end);
        self.trailing_comment();
        self.out.push('\n');
    }

    /// Characters up to the next comma or parenthesis of the same level.
    fn argument(&self, tokens: &[&Token], words: Words) -> usize {
        let (mut width, mut open) = (0, 0usize);
        for (at, token) in tokens.iter().enumerate() {
            match token.kind {
                _ if width > WIDTH => break,
                Kind::Symbol(Symbol::Comma | Symbol::Close) if open == 0 => break,
                Kind::Symbol(Symbol::Open) => open += 1,
                Kind::Symbol(Symbol::Close) => open -= 1,
                _ => {}
            }
            let spaced = at == 0 || space_between(tokens[at - 1], token, tokens, at, words);
            width += self.piece(token).chars().count() + usize::from(spaced);
        }
        // With the comma or parenthesis itself.
        width + 1
    }

    fn continue_line(&mut self, column: &mut usize) {
        *column = self.depth() * INDENT + CONTINUED;
        self.out.push('\n');
        self.out.extend(std::iter::repeat_n(' ', *column));
    }

    /// Comments on lines of their own before the token of a number.
    fn comments_before(&mut self, token: usize, until: usize) {
        while let Some(comment) =
            self.comments.next_if(|comment| comment.behind <= token && comment.span.start < until)
        {
            self.own_line(&comment.span);
        }
    }

    /// A comment on a line of its own.
    fn own_line(&mut self, span: &Span) {
        self.blank_line(span.start);
        let indent = self.depth() * INDENT;
        self.out.extend(std::iter::repeat_n(' ', indent));
        self.comment(span);
        self.out.push('\n');
    }

    /// Comments between two tokens of a line that goes on: whether there were any.
    fn comments_inside(&mut self, token: usize, column: &mut usize) -> bool {
        let mut any = false;
        while let Some(comment) = self.comments.next_if(|comment| comment.behind <= token) {
            if !any {
                self.out.push_str("  ");
            }
            any = true;
            self.comment(&comment.span);
            self.continue_line(column);
        }
        any
    }

    /// A comment behind the line's last token.
    fn trailing_comment(&mut self) {
        let (text, end) = (self.text, self.end);
        let same_line = |comment: &&Comment| {
            text.get(end..comment.span.start).is_some_and(|between| !between.contains('\n'))
        };
        if let Some(comment) = self.comments.next_if(same_line) {
            self.out.push_str("  ");
            self.comment(&comment.span);
        }
    }

    fn comment(&mut self, span: &Span) {
        self.out.push_str(self.text.get(span.clone()).unwrap_or_default().trim_end());
        self.end = span.end;
    }

    /// Keeps a blank line, or several as one.
    fn blank_line(&mut self, start: usize) {
        let between = self.text.get(self.end..start).unwrap_or_default();
        if between.matches('\n').count() > 1 && !self.out.is_empty() {
            self.out.push('\n');
        }
        self.end = start;
    }

    fn piece(&self, token: &Token) -> String {
        let written = self.text.get(token.span.clone()).unwrap_or_default();
        // Either quote will do, unless the other one is in the text.
        match written.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
            Some(inside) if !inside.contains(['\'', '\\']) => format!("'{inside}'"),
            _ => written.to_owned(),
        }
    }
}

fn is_word(token: &Token, word: &str) -> bool {
    matches!(&token.kind, Kind::Name(name) if name == word)
}

/// Words before which a parenthesis or a minus is the start of a value.
fn is_operator(token: &Token) -> bool {
    ["and", "or", "not", "if", "match"].iter().any(|word| is_word(token, word))
}

/// Whether there is a space between a token and the one before it.
fn space_between(previous: &Token, token: &Token, line: &[&Token], at: usize, words: Words) -> bool {
    use Symbol::{Close, Colon, Comma, Dot, Minus, Open, Range, Slash, Star};
    let apart = previous.span.end < token.span.start;
    match (&previous.kind, &token.kind) {
        (Kind::Symbol(Open | Dot | Range), _) | (_, Kind::Symbol(Close | Comma | Colon | Dot | Range)) => {
            false
        }
        (_, Kind::Symbol(Open)) => match previous.kind {
            Kind::Name(_) => is_operator(previous),
            _ => true,
        },
        (Kind::Symbol(Slash), _) | (_, Kind::Symbol(Slash)) if words == Words::Paths => false,
        (_, Kind::Symbol(Star)) if words == Words::Paths => apart,
        _ if words == Words::Interface => apart,
        (_, Kind::Symbol(Minus)) | (Kind::Symbol(Minus), _) if is_schema(line) => false,
        (Kind::Symbol(Minus), _) => !is_sign(line, at - 1),
        _ => true,
    }
}

/// Whether a minus is a sign rather than a subtraction.
fn is_sign(line: &[&Token], at: usize) -> bool {
    let Some(before) = at.checked_sub(1).and_then(|at| line.get(at)) else { return true };
    match &before.kind {
        Kind::Symbol(symbol) => *symbol != Symbol::Close,
        Kind::Name(_) => is_operator(before),
        _ => false,
    }
}

fn is_schema(line: &[&Token]) -> bool {
    matches!(line, [first, second, ..] if is_word(first, "match") && is_word(second, "rpc"))
        && line.get(3).is_some_and(|word| is_word(word, "schema"))
}
