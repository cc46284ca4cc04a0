//! From what was written to what it means: resolves names, gives tables and values their types, and makes sure that
//! every path through an element ends. Reports everything that is wrong, not only the first thing.

mod element;
mod fields;
mod infer;
mod patterns;
mod tables;
mod transport;

use crate::ast::{self, File};
use crate::diagnostics::{Sink, Span};
use crate::explain::MethodTransport;
use crate::ir::{Body, Element, FieldUse, Policy, Side};
use crate::suggest::did_you_mean;
use crate::table::TableSpec;
use tollfree_schema::Manifest;

/// Elements the language brings along.
const BUILTIN: &str = "session_tracker";
/// Elements in a chain: far more than anyone needs, few enough to compile at once.
const CHAIN_MAX: usize = 64;

/// A policy without mistakes.
pub(crate) struct Checked {
    pub policy: Policy,
    pub transport: Vec<MethodTransport>,
    /// What a reader might not expect.
    pub notes: Vec<String>,
}

/// Checks a policy; what it returns means nothing if mistakes were reported.
pub(crate) fn check(file: &File, schema: &Manifest, side: Option<Side>, sink: &mut Sink<'_>) -> Checked {
    let tables = tables::resolve(file, schema, sink);
    let mut checker =
        Checker { schema, tables, table_names: Vec::new(), fields: Vec::new(), notes: Vec::new(), sink };
    checker.table_names = checker.tables.iter().map(|table| table.name.clone()).collect();
    let bodies: Vec<_> = file.elements.iter().map(|element| checker.element(element)).collect();
    checker.names(file);
    let chain = checker.chain(file);
    let side = checker.side(chain, side);
    let calls = chain.map_or(&[][..], |chain| &chain.calls);
    let elements = checker.resolve(file, calls, &bodies);
    let transport = match &file.transport {
        Some(block) => transport::check(block, schema, checker.sink),
        None => Vec::new(),
    };
    let Checker { tables, fields, notes, .. } = checker;
    Checked {
        policy: Policy {
            side,
            elements,
            tables,
            fields,
            response_fields: Vec::new(),
            peer_names: Vec::new(),
            metadata: Vec::new(),
            selectors: Vec::new(),
            authorisers: Vec::new(),
            keys: Vec::new(),
        },
        transport,
        notes,
    }
}

/// What is known while the elements are checked.
struct Checker<'a, 's, 'd> {
    schema: &'a Manifest,
    tables: Vec<TableSpec>,
    table_names: Vec<String>,
    fields: Vec<FieldUse>,
    notes: Vec<String>,
    sink: &'s mut Sink<'d>,
}

impl Checker<'_, '_, '_> {
    /// Names of elements are used once.
    fn names(&mut self, file: &File) {
        for (at, element) in file.elements.iter().enumerate() {
            let ast::Name { text, span } = &element.name;
            if text == BUILTIN {
                self.sink
                    .error(span, format!("`{BUILTIN}` is built in"), "defined again here")
                    .help("give the element another name");
            }
            if let Some(first) = file.elements[..at].iter().find(|other| other.name.text == *text) {
                self.sink
                    .error(span, format!("element `{text}` is defined twice"), "the second one")
                    .related(&first.name.span, "the first one");
            }
        }
    }

    /// The policy's chain; an element that stands alone is one.
    fn chain<'f>(&mut self, file: &'f File) -> Option<&'f ast::Chain> {
        if let [first, second, ..] = file.chains.as_slice() {
            self.sink
                .error(&second.span, "a policy has one chain", "the second one")
                .related(&first.span, "the first one")
                .help("join them with `->`; what guards the other side goes into a file of its own");
        }
        let first = file.chains.first();
        if let (None, Some(element)) = (first, file.elements.first()) {
            let ast::Name { text, span } = &element.name;
            self.sink.error(span, "the policy has no chain, so no element would run", "never runs").help(
                format!("say which elements run, in order: `{text}()` on a line of its own, before this one"),
            );
        }
        if first.is_none() && file.elements.is_empty() && file.transport.is_none() {
            self.sink
                .error(&(0..0), "the policy is empty", "nothing here")
                .help("a policy starts with a chain, such as `firewall() -> session_tracker()`");
        }
        first
    }

    fn side(&mut self, chain: Option<&ast::Chain>, wanted: Option<Side>) -> Side {
        let written = chain.and_then(|chain| chain.side.as_ref());
        if let (Some((written, span)), Some(wanted)) = (written, wanted)
            && *written != wanted
        {
            self.sink
                .error(
                    span,
                    format!("this chain guards the {written}, but is to be put in force at the {wanted}"),
                    "here",
                )
                .help(format!("attach it at the {written}, or leave `at {written}` out"));
        }
        written.map(|(side, _)| *side).or(wanted).unwrap_or_default()
    }

    /// The chain's calls, with what they run.
    fn resolve(&mut self, file: &File, calls: &[ast::Call], bodies: &[Option<Body>]) -> Vec<Element> {
        let mut elements = Vec::new();
        if let Some(extra) = calls.get(CHAIN_MAX) {
            let message = format!("a chain has at most {CHAIN_MAX} elements");
            self.sink.error(&extra.span, message, "one too many");
            return elements;
        }
        for call in calls {
            let ast::Call { name, arguments, named: _, span } = call;
            let defined = file.elements.iter().position(|element| element.name.text == name.text);
            if let Some(argument) = arguments.first() {
                self.sink
                    .error(&argument.span, format!("`{}` takes no arguments", name.text), "one too many")
                    .help("parameters of elements are not supported yet: write the constant in the element");
            }
            let body = match defined {
                Some(at) => bodies.get(at).cloned().flatten(),
                None if name.text == BUILTIN => Some(Body::SessionTracker(span.clone())),
                None => {
                    let known = file.elements.iter().map(|element| element.name.text.as_str());
                    let help = did_you_mean(&name.text, "the elements are", known.chain([BUILTIN]));
                    let message = format!("no element is called `{}`", name.text);
                    self.sink.error(&name.span, message, "not defined").maybe_help(help);
                    None
                }
            };
            if let Some(body) = body {
                elements.push(Element {
                    name: name.text.clone(),
                    span: span.clone(),
                    methods: None,
                    audit: false,
                    request: Some(body),
                    response: None,
                });
            }
        }
        for element in &file.elements {
            if !calls.is_empty() && !calls.iter().any(|call| call.name.text == element.name.text) {
                self.notes
                    .push(format!("element {}() is not in the chain: it never runs", element.name.text));
            }
        }
        elements
    }

    /// The index of a field among those read, if it can be read; else the mistake is reported.
    fn field(&mut self, name: &str, span: &Span) -> Option<usize> {
        if let Some(at) = self.fields.iter().position(|field| field.name == name) {
            return Some(at);
        }
        match fields::find(self.schema, name) {
            Ok(fields::Found { kind, missing }) => {
                if !missing.is_empty() {
                    self.notes.push(format!(
                        "field '{name}' reads as NONE in {}: not in the request",
                        missing.join(", ")
                    ));
                }
                self.fields.push(FieldUse { name: name.to_owned(), kind });
                Some(self.fields.len() - 1)
            }
            Err(fields::Unreadable { message, help }) => {
                self.sink.error(span, message, "cannot be read").maybe_help(help);
                None
            }
        }
    }
}
