//! Chains: which of them are for the side and the interface at hand, what they cover, and the elements they use.

use super::Checker;
use super::fields::Message;
use super::frame::Frame;
use super::kind::Kind;
use crate::ast::{Call, Chain, Element, Expression, ExpressionKind, File, Handler, Name, Parameter};
use crate::diagnostics::Span;
use crate::engine::SLOTS_MAX;
use crate::ir::{self, Action, Body, Exit, FieldRef, FieldUse, Op, Operand, Side};
use crate::suggest::did_you_mean;
use std::collections::HashMap;
use std::rc::Rc;

/// Elements the language brings along.
pub(super) const BUILTIN: &str = "session_tracker";
/// Elements in the chains of one file: far more than anyone needs, few enough to compile at once.
pub(super) const USES_MAX: usize = 64;

/// What a policy is checked for.
#[derive(Clone, Copy)]
pub(crate) struct Target<'a> {
    pub side: Option<Side>,
    pub interface: Option<&'a str>,
}

/// The sides of chains that do not say which.
fn unnamed_side(file: &File, target: Option<Side>) -> Side {
    // Where another chain says which side it is for, the one that does not is the server's.
    match file.chains.iter().any(|chain| chain.side.is_some()) {
        true => Side::Server,
        false => target.unwrap_or_default(),
    }
}

fn side_of(chain: &Chain, unnamed: Side) -> Side {
    chain.side.as_ref().map_or(unnamed, |(side, _)| *side)
}

/// The sides that a file has chains for, the server's first.
pub(crate) fn sides(file: &File) -> Vec<Side> {
    let unnamed = unnamed_side(file, None);
    let has = |side| file.chains.iter().any(|chain| side_of(chain, unnamed) == side);
    [Side::Server, Side::Client].into_iter().filter(|side| has(*side)).collect()
}

impl Checker<'_, '_, '_> {
    /// The elements of the chains for the target, in their order, and the side.
    pub(super) fn chains(&mut self, file: &File, target: Target<'_>) -> (Side, Vec<ir::Element>) {
        self.without_chain(file);
        let side = target.side.unwrap_or_else(|| match sides(file).as_slice() {
            [only] => *only,
            _ => Side::Server,
        });
        let unnamed = unnamed_side(file, target.side);
        let uses: usize = file.chains.iter().map(|chain| chain.calls.len()).sum();
        let calls = file.chains.iter().flat_map(|chain| &chain.calls);
        if let Some(extra) = calls.clone().nth(USES_MAX) {
            let message = format!("a policy's chains have at most {USES_MAX} elements; here are {uses}");
            self.sink.error(&extra.span, message, "one too many");
            return (side, Vec::new());
        }
        let defined: HashMap<&str, &Element> =
            file.elements.iter().rev().map(|element| (element.name.text.as_str(), element)).collect();
        let mut elements = Vec::new();
        let mut others = Vec::new();
        for (at, chain) in file.chains.iter().enumerate() {
            let here = side_of(chain, unnamed) == side;
            let there = chain.interface.as_ref().zip(target.interface).filter(|(on, at)| on.text != *at);
            match (here, there) {
                (true, None) => elements.extend(self.chain(at, chain, side, &defined)),
                (true, Some((on, interface))) => {
                    self.note(format!("a chain is for {}, not for {interface}: it is left out", on.text));
                    others.push((at, chain));
                }
                (false, _) => others.push((at, chain)),
            }
        }
        if elements.is_empty() && self.sink.count() == 0 {
            self.for_another_side(file, side);
        }
        // The rest is checked for its mistakes only: what it uses is of no account.
        let uses = std::mem::take(&mut self.uses);
        self.known_fields.clear();
        self.quiet = true;
        for (at, chain) in others {
            let side = side_of(chain, unnamed);
            self.chain(at, chain, side, &defined);
        }
        self.unused(file);
        self.uses = uses;
        (side, elements)
    }

    fn without_chain(&mut self, file: &File) {
        if !file.chains.is_empty() {
            return;
        }
        if let Some(element) = file.elements.first() {
            let Name { text, span } = &element.name;
            self.sink.error(span, "the policy has no chain, so no element would run", "never runs").help(
                format!("say which elements run, in order: `{text}()` on a line of its own, before this one"),
            );
        } else if file.transport.is_none() && self.sink.count() == 0 {
            self.sink
                .error(&(0..0), "the policy is empty", "nothing here")
                .help("a policy starts with a chain, such as `firewall() -> session_tracker()`");
        }
    }

    /// Reports that every chain is for the other side than the one asked for.
    fn for_another_side(&mut self, file: &File, wanted: Side) {
        let mut written = file.chains.iter().map(|chain| chain.side.as_ref());
        if let Some(Some((side, span))) = written.next()
            && *side != wanted
            && written.all(|other| other.is_some_and(|(other, _)| other == side))
        {
            self.sink
                .error(
                    span,
                    format!("this chain guards the {side}, but is to be put in force at the {wanted}"),
                    "here",
                )
                .help(format!("attach it at the {side}, or leave `at {side}` out"));
        }
    }

    fn chain(
        &mut self,
        at: usize,
        chain: &Chain,
        side: Side,
        defined: &HashMap<&str, &Element>,
    ) -> Vec<ir::Element> {
        let Chain { calls, side: _, scope, interface: _, audit } = chain;
        let methods = self.scope(scope);
        let mut elements = Vec::new();
        for call in calls {
            let Call { name, arguments, named, span } = call;
            self.frame = Frame::new(at, methods.clone(), Some(side));
            let (request, response) = match defined.get(name.text.as_str()) {
                Some(element) => {
                    self.used.insert(name.text.clone());
                    self.arguments(element, call);
                    self.element(element)
                }
                None if name.text == BUILTIN => {
                    if let Some(argument) = arguments.first().or(named.first().map(|(_, argument)| argument))
                    {
                        self.sink.error(
                            &argument.span,
                            format!("`{BUILTIN}` takes no arguments"),
                            "one too many",
                        );
                    }
                    (Some(Body::SessionTracker(span.clone())), None)
                }
                None => {
                    let known = defined.keys().copied().chain([BUILTIN]);
                    let help = did_you_mean(&name.text, "the elements are", known.collect::<Vec<_>>());
                    let message = format!("no element is called `{}`", name.text);
                    self.sink.error(&name.span, message, "not defined").maybe_help(help);
                    continue;
                }
            };
            elements.push(ir::Element {
                name: name.text.clone(),
                span: span.clone(),
                methods: methods.as_ref().map(|ids| ids.to_vec()),
                audit: audit.is_some(),
                request,
                response,
            });
        }
        elements
    }

    /// The methods that a chain covers; `None`: all.
    fn scope(&mut self, scope: &[Name]) -> Option<Rc<[u32]>> {
        if scope.is_empty() || scope.iter().any(|path| path.text == "*") {
            return None;
        }
        let mut ids = Vec::new();
        for Name { text, span } in scope {
            match self.methods.scope(text) {
                Ok(found) => ids.extend(found),
                Err(missing) => {
                    self.sink.error(span, missing.message, "not in the schema").maybe_help(missing.help);
                }
            }
        }
        ids.sort_unstable();
        ids.dedup();
        Some(ids.into())
    }

    /// Gives an element's parameters what a chain says.
    fn arguments(&mut self, element: &Element, call: &Call) {
        let Call { name, arguments, named, span } = call;
        if let Some(extra) = arguments.get(element.parameters.len()) {
            let message = match element.parameters.len() {
                0 => format!("`{}` takes no arguments", name.text),
                1 => format!("`{}` takes one argument", name.text),
                many => format!("`{}` takes {many} arguments", name.text),
            };
            self.sink.error(&extra.span, message, "one too many");
        }
        for (argument, _) in named {
            let known = element.parameters.iter().map(|parameter| parameter.name.text.as_str());
            if !known.clone().any(|known| known == argument.text) {
                let message = format!("`{}` has no parameter `{}`", name.text, argument.text);
                let help = did_you_mean(&argument.text, "its parameters are", known);
                self.sink.error(&argument.span, message, "unknown").maybe_help(help);
                continue;
            }
            let position = element.parameters.iter().position(|known| known.name.text == argument.text);
            if position.is_some_and(|position| position < arguments.len()) {
                let message = format!("`{}` is given twice", argument.text);
                self.sink.error(&argument.span, message, "the second one");
            }
        }
        for argument in arguments.iter().chain(named.iter().map(|(_, argument)| argument)) {
            self.argument(argument);
        }
        self.frame.parameters = given(element, call);
        for parameter in &element.parameters {
            let Name { text, .. } = &parameter.name;
            let missing = !call.named.iter().any(|(name, _)| name.text == *text);
            let missing = missing && self.frame.parameters.get(text).is_some_and(Option::is_none);
            match &parameter.default {
                Some(default) => self.argument(default),
                None if missing && !call.named.iter().any(|(name, _)| name.text == *text) => {
                    let message = format!("`{}` needs its argument `{text}`", name.text);
                    self.sink
                        .error(span, message, "not given")
                        .related(&parameter.name.span, "this parameter has no default")
                        .help(format!("write {}({text} = ...)", name.text));
                }
                None => {}
            }
        }
    }

    fn argument(&mut self, argument: &Expression) {
        if !is_constant(argument) {
            self.sink
                .error(&argument.span, "arguments of elements are constants", "not a constant")
                .help("give a number, a 'text', a rate, a name; what differs from call to call is read in the element");
        }
    }

    /// Elements that no chain uses.
    fn unused(&mut self, file: &File) {
        for element in &file.elements {
            if self.used.contains(&element.name.text) {
                continue;
            }
            if !file.chains.is_empty() {
                self.notes
                    .push(format!("element {}() is not in the chain: it never runs", element.name.text));
            }
            self.frame = Frame::new(file.chains.len(), None, None);
            self.frame.parameters = defaults(element);
            self.element(element);
        }
    }

    /// The element's handlers, with the frame's parameters; nothing of use where it has mistakes.
    fn element(&mut self, element: &Element) -> (Option<Body>, Option<Vec<ir::Statement>>) {
        let Element { name, parameters: _, request, response } = element;
        if request.is_none() && response.is_none() {
            self.sink.error(&name.span, "this element does nothing", "no statements");
        }
        let request =
            request.as_ref().map(|handler| Body::Block(self.handler(name, handler, Message::Request)));
        let response = response.as_ref().map(|handler| self.handler(name, handler, Message::Response));
        (request, response)
    }

    fn handler(&mut self, name: &Name, handler: &Handler, message: Message) -> Vec<ir::Statement> {
        let Handler { span, body } = handler;
        let changed = self.changed_fields(body);
        self.frame.begin(message == Message::Response, changed);
        let mistakes = self.sink.count();
        let (mut statements, ends) = self.block(body);
        if !ends && self.frame.exits && self.sink.count() == mistakes {
            self.without_verdict(name, span, handler);
        }
        if !ends {
            let end = body.last().map_or(span, |last| &last.span).clone();
            statements.push(ir::Statement { span: end, action: Action::Exit(Exit::Send) });
        }
        let slots = super::slots::share(&mut statements, &|op| self.gives_text(op));
        if slots > SLOTS_MAX {
            let message = format!(
                "`{}` keeps {slots} values at the same time, at most {SLOTS_MAX} are possible",
                name.text
            );
            self.sink.error(&name.span, message, "too many").help("split the element");
        }
        statements
    }

    /// Whether an operation gives text, which takes more room than a number.
    fn gives_text(&self, op: &Op) -> bool {
        let in_field = |list: &[FieldUse], at: usize| {
            list.get(at).is_some_and(|field| Kind::of_field(&field.kind).is_text())
        };
        match op {
            Op::Lookup { table, .. } => {
                self.tables.get(*table).and_then(|table| table.value.as_ref()).is_some_and(Kind::is_text)
            }
            Op::Copy(Operand::Field(FieldRef::Request(at))) => in_field(&self.uses.fields, *at),
            Op::Copy(Operand::Field(FieldRef::Response(at))) => in_field(&self.uses.response_fields, *at),
            _ => false,
        }
    }

    fn without_verdict(&mut self, name: &Name, span: &Span, handler: &Handler) {
        let last = handler.body.last().map_or(span, |statement| &statement.span);
        self.sink
            .error(last, format!("`{}` can end here without a verdict", name.text), "goes on into nothing")
            .help("end every path with send(rpc), drop() or reject(CODE)");
    }
}

fn is_constant(argument: &Expression) -> bool {
    matches!(argument.kind, ExpressionKind::Literal(_) | ExpressionKind::Name(_))
}

/// What an element's parameters are where nobody uses it.
pub(super) fn defaults(element: &Element) -> HashMap<String, Option<Expression>> {
    let parameters = element.parameters.iter();
    parameters
        .map(|Parameter { name, default }| (name.text.clone(), default.clone().filter(is_constant)))
        .collect()
}

/// What a chain gives an element's parameters.
pub(super) fn given(element: &Element, call: &Call) -> HashMap<String, Option<Expression>> {
    let mut given = defaults(element);
    let by_place = element.parameters.iter().map(|parameter| &parameter.name.text).zip(&call.arguments);
    let by_name = call.named.iter().map(|(name, argument)| (&name.text, argument));
    for (name, argument) in by_place.chain(by_name) {
        if let Some(known) = given.get_mut(name) {
            *known = Some(argument.clone()).filter(is_constant);
        }
    }
    given
}
