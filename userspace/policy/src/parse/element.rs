//! Elements: parameters, and handlers of requests and responses.

use super::{Failed, Parsed, Parser};
use crate::ast::{Call, Element, ExpressionKind, Handler, Name, Parameter};
use crate::lex::{Kind, Symbol};

impl Parser<'_, '_, '_> {
    pub(super) fn element(&mut self, head: Call) -> Parsed<Element> {
        let Call { name, arguments, named, span: _ } = head;
        let mut parameters = Vec::new();
        for argument in arguments {
            match argument.kind {
                ExpressionKind::Name(text) => {
                    parameters.push(Parameter { name: Name { text, span: argument.span }, default: None })
                }
                _ => {
                    self.sink
                        .error(&argument.span, "a parameter is a name", "not a name")
                        .help("parameters are `name` or `name = constant`");
                }
            }
        }
        parameters
            .extend(named.into_iter().map(|(name, default)| Parameter { name, default: Some(default) }));
        let sections = *self.peek_at(1) == Kind::Line
            && *self.peek_at(2) == Kind::Indent
            && (self.is_word(3, "request") || self.is_word(3, "response"))
            && self.is_symbol(4, Symbol::Colon);
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
}
