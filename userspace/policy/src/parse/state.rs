//! The `state:` block: tables, counters and cells.

use super::{Failed, Parsed, Parser};
use crate::ast::{Form, Name, State, Table, Type};
use crate::lex::{Kind, Symbol};

impl Parser<'_, '_, '_> {
    pub(super) fn state(&mut self) -> Parsed<State> {
        let span = self.next().span;
        let tables = self.block("the tables", Parser::table)?;
        Ok(State { span, tables })
    }

    fn table(&mut self) -> Parsed<Table> {
        let name = self.name("a table's name", "here")?;
        self.expect(Symbol::Colon, "between a table's name and its type")?;
        let form = match self.peek() {
            Kind::Name(word) if word == "table" => Form::Table,
            Kind::Name(word) if word == "counter" => Form::Counter,
            Kind::Name(_) => Form::Cell,
            _ => {
                return Err(self.unexpected_with("a type", "behind a table's name", |diagnostic| {
                    diagnostic.help(
                        "for example `rules: table(string(32) -> ALLOW|DENY, capacity = 1024)`, `calls: counter`, \
                         `limit: u64 = 100`",
                    );
                }));
            }
        };
        let (key, value) = (Vec::new(), Vec::new());
        let mut table = Table { name, form, key, value, capacity: None, evict: None, initial: None };
        if form == Form::Cell {
            table.value = self.types()?;
            if self.eat_symbol(Symbol::Equals) {
                table.initial = Some(self.expression()?);
            }
        } else {
            let word = self.next().span;
            if self.eat_symbol(Symbol::Open) {
                self.inside_table(&mut table)?;
                self.expect(Symbol::Close, "to end the table's type")?;
            }
            if self.is_symbol(0, Symbol::Equals) {
                let span = word.start..self.last_span().end;
                self.sink
                    .error(&span, "only a cell has a first value", "not a cell")
                    .help("a cell is one value: `limit: u64 = 100`; tables and counters start empty");
                return Err(Failed);
            }
        }
        self.end_of_line()?;
        Ok(table)
    }

    /// Keys, value and options, each of them where it is written.
    fn inside_table(&mut self, table: &mut Table) -> Parsed<()> {
        while !self.is_symbol(0, Symbol::Close) {
            if self.is_symbol(1, Symbol::Equals) {
                self.option(table)?;
            } else {
                table.key.push(self.type_of("the type of the key")?);
            }
            if self.is_symbol(0, Symbol::Chain) {
                if table.form == Form::Counter || !table.value.is_empty() || table.key.is_empty() {
                    return Err(self.unexpected("`,` or `)`", "here"));
                }
                self.next();
                table.value = self.types()?;
                while self.eat_symbol(Symbol::Comma) {
                    self.option(table)?;
                }
                return Ok(());
            }
            if !self.eat_symbol(Symbol::Comma) {
                break;
            }
        }
        Ok(())
    }

    fn option(&mut self, table: &mut Table) -> Parsed<()> {
        let option = self.name("`capacity` or `evict`", "here")?;
        match option.text.as_str() {
            "capacity" => {
                self.expect(Symbol::Equals, "after `capacity`")?;
                let span = self.span();
                let Kind::Number(number) = *self.peek() else {
                    return Err(self.unexpected("a number", "as the capacity"));
                };
                self.next();
                table.capacity = Some((number, span));
            }
            "evict" => {
                self.expect(Symbol::Equals, "after `evict`")?;
                let Name { text, span } = self.name("`lru`", "after `evict =`")?;
                table.evict = Some(Name { text, span });
            }
            other => {
                let message = format!("a table has no option `{other}`");
                self.sink
                    .error(&option.span, message, "unknown")
                    .help("the options are `capacity = 1024` and `evict = lru`");
                return Err(Failed);
            }
        }
        Ok(())
    }

    /// A type, or the names of an enum.
    fn types(&mut self) -> Parsed<Vec<Type>> {
        let mut types = vec![self.type_of("the type of the value")?];
        while self.eat_symbol(Symbol::Bar) {
            types.push(self.type_of("a name")?);
        }
        Ok(types)
    }

    fn type_of(&mut self, what: &str) -> Parsed<Type> {
        let name = self.name(what, "here")?;
        let mut size = None;
        if self.eat_symbol(Symbol::Open) {
            let span = self.span();
            let Kind::Number(number) = *self.peek() else {
                return Err(self.unexpected("a number", "of bytes"));
            };
            self.next();
            self.expect(Symbol::Close, "after the number of bytes")?;
            size = Some((number, span));
        }
        Ok(Type { name, size })
    }
}
