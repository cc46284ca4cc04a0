//! Words of other languages: each is refused with what to write here instead.

use super::{Failed, Parsed, Parser};
use crate::lex::{Kind, Symbol};

const LOOPS: &str = "policies have no loops: every packet costs the same small number of steps";
const URLS: &str = "calls have no URL: route('group') chooses a backend, reject(CODE) ends a call";
const FUNCTIONS: &str = "what several places need becomes an element with parameters: `limit(rate = 100/s):`";

/// Words that start a statement or a part of the file elsewhere.
const WORDS: [(&str, &str); 28] = [
    ("if", "write `match value:` with an arm per case, or a guard behind a pattern: `_ if x > 5 => ...`"),
    ("else", "write `match value:` with an arm per case; `_ =>` takes everything else"),
    ("elif", "write `match value:` with an arm per case"),
    ("when", "write `match value:` with an arm per case, or a guard behind a pattern: `_ if x > 5 => ...`"),
    ("unless", "write `match value:` with an arm per case"),
    ("switch", "write `match value:` with an arm per case"),
    ("case", "an arm is `pattern => statement`"),
    ("for", LOOPS),
    ("while", LOOPS),
    ("loop", LOOPS),
    ("foreach", LOOPS),
    ("return", "elements end with send(rpc), drop() or reject(CODE)"),
    ("break", LOOPS),
    ("continue", "send(rpc) goes on with the next element"),
    ("let", "write `name = value`"),
    ("var", "write `name = value`"),
    ("const", "a constant is a parameter of the element: `limit(rate = 100/s):`"),
    ("def", FUNCTIONS),
    ("fn", FUNCTIONS),
    ("func", FUNCTIONS),
    ("import", "a policy is one file"),
    ("include", "a policy is one file"),
    ("allow", "send(rpc) lets a call on to the next element"),
    ("deny", "drop() forgets a call, reject(CODE) answers it"),
    ("rewrite", URLS),
    ("redirect", URLS),
    ("cors", "CORS is for browsers, which cannot make these calls"),
    (
        "regex",
        "texts are compared with ==, starts_with(text, 'prefix') and patterns such as 'prefix*': expressions of \
               unknown cost do not run in the driver",
    ),
];

impl Parser<'_, '_, '_> {
    /// Refuses a word of another language that a line starts with, unless it is used as a name here.
    pub(super) fn refuse_foreign_words(&mut self) -> Parsed<()> {
        let Kind::Name(word) = self.peek() else { return Ok(()) };
        let Some((word, help)) = WORDS.iter().find(|(known, _)| known == word) else { return Ok(()) };
        if self.is_symbol(1, Symbol::Equals) {
            return Ok(());
        }
        let span = self.span();
        let message = format!("`{word}` is not part of the policy language");
        self.sink.error(&span, message, "not a statement").help(*help);
        Err(Failed)
    }
}

/// What to write instead of calling something that other languages have.
pub(crate) fn instead_of(word: &str) -> Option<&'static str> {
    WORDS.iter().find(|(known, _)| *known == word).map(|(_, help)| *help)
}
