//! The parts of a file: chains, elements, `state:` and the transport block.

use super::{Failed, Parsed, Parser};
use crate::ast::{
    Call, Chain, Element, File, Form, Handler, Name, Parameter, State, Table, Transport, TransportArm, Type,
};
use crate::ir::Side;
use crate::lex::Kind;

impl Parser<'_, '_> {
    pub(super) fn file(mut self) -> File {
        let mut file = File::default();
        while *self.peek() != Kind::End {
            if self.eat(&Kind::Line) || self.eat(&Kind::Dedent) {
                continue;
            }
            if self.part(&mut file).is_err() {
                self.recover();
            }
        }
        file
    }

    fn part(&mut self, file: &mut File) -> Parsed<()> {
        if self.is_word(0, "state") && *self.peek_at(1) == Kind::Colon {
            let state = self.state()?;
            match &mut file.state {
                None => file.state = Some(state),
                Some(first) => {
                    self.sink
                        .error(&state.span, "a policy has one `state:` block", "the second one")
                        .related(&first.span, "the first one");
                    first.tables.extend(state.tables);
                }
            }
            return Ok(());
        }
        if self.is_word(0, "match") {
            let transport = self.transport()?;
            match &mut file.transport {
                None => file.transport = Some(transport),
                Some(first) => {
                    self.sink
                        .error(&transport.span, "a policy has one transport block", "the second one")
                        .related(&first.span, "the first one");
                }
            }
            return Ok(());
        }
        if let Kind::Indent = self.peek() {
            return Err(self.unexpected_with("a chain or an element", "here", |diagnostic| {
                diagnostic.help("chains, elements and `state:` start in the first column");
            }));
        }
        self.chain_or_element(file)
    }

    fn chain_or_element(&mut self, file: &mut File) -> Parsed<()> {
        let first = match self.peek() {
            Kind::Name(_) => self.call("the name of an element", "here")?,
            _ => {
                return Err(self.unexpected_with("a chain or an element", "here", |diagnostic| {
                    diagnostic.help(
                        "a chain is `a() -> b()`, an element `a():` with its statements indented below",
                    );
                }));
            }
        };
        if *self.peek() == Kind::Colon {
            let element = self.element(first)?;
            file.elements.push(element);
            return Ok(());
        }
        let mut calls = vec![first];
        while self.eat(&Kind::Chain) {
            calls.push(self.call("the name of an element", "after `->`")?);
        }
        let mut side = None;
        if self.is_word(0, "at") {
            self.next();
            let span = self.span();
            let which = match self.peek() {
                Kind::Name(name) if name == "server" => Side::Server,
                Kind::Name(name) if name == "client" => Side::Client,
                _ => return Err(self.unexpected("`server` or `client`", "after `at`")),
            };
            self.next();
            side = Some((which, span));
        }
        if !matches!(self.peek(), Kind::Line | Kind::End) {
            return Err(self.unexpected_with(
                "`->`, `at server`, `at client` or `:`",
                "here",
                |diagnostic| {
                    diagnostic.help(
                        "a chain is `a() -> b()`, an element `a():` with its statements indented below",
                    );
                },
            ));
        }
        self.next();
        let start = calls.first().map_or(0, |call| call.span.start);
        let end = calls.last().map_or(start, |call| call.span.end);
        file.chains.push(Chain {
            calls,
            side,
            scope: Vec::new(),
            interface: None,
            audit: None,
            span: start..end,
        });
        Ok(())
    }

    fn element(&mut self, head: Call) -> Parsed<Element> {
        let Call { name, arguments, named: _, span: _ } = head;
        let mut parameters = Vec::new();
        for argument in arguments {
            match argument.kind {
                crate::ast::ExpressionKind::Name(text) => {
                    parameters.push(Parameter { name: Name { text, span: argument.span }, default: None })
                }
                _ => {
                    self.sink.error(&argument.span, "a parameter is a name", "not a name");
                }
            }
        }
        let sections = *self.peek_at(1) == Kind::Line
            && *self.peek_at(2) == Kind::Indent
            && (self.is_word(3, "request") || self.is_word(3, "response"))
            && *self.peek_at(4) == Kind::Colon;
        if !sections {
            let body = self.block("the element's statements", Parser::statement)?;
            let handler = Handler { span: name.span.clone(), body };
            return Ok(Element { name, parameters, request: Some(handler), response: None });
        }
        let mut element = Element { name, parameters, request: None, response: None };
        let handlers = self.block("`request:` or `response:`", |parser| {
            let word = parser.name("`request:` or `response:`", "here")?;
            if word.text != "request" && word.text != "response" {
                let message = format!("expected `request:` or `response:` here, found `{}`", word.text);
                parser.sink.error(&word.span, message, "neither").help(
                    "an element has either statements, or the sections `request:` and `response:` with statements",
                );
                return Err(Failed);
            }
            let body = parser.block("the handler's statements", Parser::statement)?;
            Ok((word.text == "request", Handler { span: word.span, body }))
        })?;
        for (is_request, handler) in handlers {
            let place = if is_request { &mut element.request } else { &mut element.response };
            match place {
                None => *place = Some(handler),
                Some(first) => {
                    self.sink
                        .error(&handler.span, "this element has that section already", "the second one")
                        .related(&first.span, "the first one");
                }
            }
        }
        Ok(element)
    }

    fn state(&mut self) -> Parsed<State> {
        let span = self.next().span;
        let tables = self.block("the tables", Parser::table)?;
        Ok(State { span, tables })
    }

    fn table(&mut self) -> Parsed<Table> {
        let name = self.name("a table's name", "here")?;
        self.expect(&Kind::Colon, "between a table's name and its type")?;
        let word = self.name("`table`", "as the type of a table")?;
        if word.text != "table" {
            let message = format!("expected `table(key -> value)`, found `{}`", word.text);
            self.sink
                .error(&word.span, message, "not a table")
                .help("for example `rules: table(string(32) -> ALLOW|DENY, capacity = 1024)`");
            return Err(Failed);
        }
        self.expect(&Kind::Open, "after `table`")?;
        let key = vec![self.type_of("the type of the key")?];
        self.expect(&Kind::Chain, "between the types of key and value")?;
        let mut value = vec![self.type_of("the type of the value")?];
        while self.eat(&Kind::Bar) {
            value.push(self.type_of("a name")?);
        }
        let mut capacity = None;
        while self.eat(&Kind::Comma) {
            let option = self.name("`capacity`", "here")?;
            if option.text != "capacity" {
                let message = format!("a table has no option `{}`", option.text);
                self.sink.error(&option.span, message, "unknown").help("the option is `capacity = 1024`");
                return Err(Failed);
            }
            self.expect(&Kind::Equals, "after `capacity`")?;
            let span = self.span();
            let Kind::Number(number) = *self.peek() else {
                return Err(self.unexpected("a number", "as the capacity"));
            };
            self.next();
            capacity = Some((number, span));
        }
        self.expect(&Kind::Close, "to end the table's type")?;
        self.end_of_line()?;
        Ok(Table { name, form: Form::Table, key, value, capacity, evict: None, initial: None })
    }

    fn type_of(&mut self, what: &str) -> Parsed<Type> {
        let name = self.name(what, "here")?;
        let mut size = None;
        if self.eat(&Kind::Open) {
            let span = self.span();
            let Kind::Number(number) = *self.peek() else {
                return Err(self.unexpected("a number", "of bytes"));
            };
            self.next();
            self.expect(&Kind::Close, "after the number of bytes")?;
            size = Some((number, span));
        }
        Ok(Type { name, size })
    }

    fn transport(&mut self) -> Parsed<Transport> {
        let start = self.next().span;
        let subject = self.is_word(0, "rpc") && *self.peek_at(1) == Kind::Minus && self.is_word(2, "schema");
        if !subject {
            return Err(self.unexpected_with("`rpc-schema`", "after a `match` outside of elements", |diagnostic| {
                diagnostic.help("`match rpc-schema:` chooses a transport per method; other matches belong in an element");
            }));
        }
        for _ in 0..3 {
            self.next();
        }
        let span = start.start..self.last_span().end;
        let arms = self.block("the methods", Parser::transport_arm)?;
        Ok(Transport { span, arms })
    }

    fn transport_arm(&mut self) -> Parsed<TransportArm> {
        let mut methods = Vec::new();
        loop {
            let span = self.span();
            let text = match self.peek() {
                Kind::Name(text) | Kind::Text(text) => text.clone(),
                _ => return Err(self.unexpected("the name of a method", "here")),
            };
            self.next();
            methods.push(Name { text, span });
            if !self.eat(&Kind::Bar) {
                break;
            }
        }
        self.expect(&Kind::Then, "between method and transport")?;
        let mut modules = vec![self.call("a transport", "here")?];
        while self.eat(&Kind::Chain) {
            modules.push(self.call("a transport", "after `->`")?);
        }
        self.end_of_line()?;
        Ok(TransportArm { methods, modules })
    }
}
